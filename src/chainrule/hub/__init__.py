"""A name or a path to a language model that can be used, and back to files."""
