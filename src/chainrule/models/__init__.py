"""Models: each a ``LanguageModel``, from tables of counts to the decoder assembled from parts, and the truth itself."""
