"""The bricks of neural language models: parts (frozen settings) that build layers. A brick knows no model."""
