"""The models: n-grams, the truth, and the decoder assembled from parts. Each is a ``core.model.LanguageModel``."""
