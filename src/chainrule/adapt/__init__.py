"""A model to a model: adapters, merging, weights in fewer bits. What is adapted comes as an argument."""
