"""New models of the older families, their weights drawn from a seed: what recipes and the ladder begin from."""

from collections.abc import Sequence
from typing import Literal

import torch

from chainrule.models.neural_ngram import NeuralNGram, NeuralNGramConfig
from chainrule.models.rnn import Recurrent, RecurrentConfig
from chainrule.models.word2vec import Word2Vec, learn_vectors
from chainrule.models.word2vec_places import Ints


def recurrent(
    *,
    vocab_size: int,
    cell: Literal["lstm", "gru", "rnn"] = "lstm",
    n_layers: int = 1,
    d_model: int = 256,
    d_hidden: int | None = None,
    tied: bool = True,
    seed: int = 0,
) -> Recurrent:
    """A language model of equal cells, as wide as the embedding unless told otherwise."""
    config = RecurrentConfig.uniform(
        vocab_size=vocab_size, cell=cell, n_layers=n_layers, d_model=d_model, d_hidden=d_hidden, tied=tied
    )
    return Recurrent(config, torch.Generator().manual_seed(seed))


def neural_ngram(
    documents: Sequence[Ints] | None = None,
    *,
    vocab_size: int,
    order: int = 5,
    d_model: int = 64,
    d_hidden: int = 256,
    direct: bool = False,
    word2vec: Literal["skip_gram", "cbow"] | None = None,
    epochs: int = 2,
    seed: int = 0,
) -> NeuralNGram:
    """A neural n-gram; with ``word2vec`` its table begins with vectors learned from the ``documents`` of ids, if any."""
    config = NeuralNGramConfig(vocab_size=vocab_size, order=order, d_model=d_model, d_hidden=d_hidden, direct=direct)
    model = NeuralNGram(config, torch.Generator().manual_seed(seed))
    if word2vec is not None and documents is not None:
        settings = Word2Vec(method=word2vec, d_model=d_model, epochs=epochs, min_count=1, seed=seed)
        model.take_vectors(learn_vectors(documents, vocab_size, settings))
    return model
