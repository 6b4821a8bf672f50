"""The waist of the house: pure functions of log p, which know no particular model.

Losses, perplexity, preferences, multiple choice and reranking are sums of ``scoring.token_logprobs``; drawing a token
is a chain of ``filters`` over one column of it.
"""
