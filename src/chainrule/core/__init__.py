"""The contracts every room shares: what a model, a batch, a cache, a loss, a tokenizer and a message are.

Nothing here knows a particular model, file format or training method. The one alphabet of tensor shapes is in
``core.shapes``; errors meant for people are in ``core.errors``, which imports no torch.
"""
