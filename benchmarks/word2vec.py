"""word2vec: our words a second against gensim's, same words, settings, epochs and threads, in one run, with each one's score.

    CHAINRULE_TEST_DATA=../shared/data python benchmarks/word2vec.py [TEXT]

A word counts each time it is read, kept or not, and preparation counts too. The score is Spearman's ρ on WordSim-353,
the mean over two seeds; without TEXT the text is WikiText-2's validation and test parts, on which a seed moves it by 0.05. Each
is run twice and the faster counts. Ours reads by block and by place; what ``by=place`` compiles, once a process, is compiled
before anything is timed, and a line says how long that takes.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from gensim.models import Word2Vec as Gensim

from chainrule.core.device import cpu_threads
from chainrule.data.documents import read_documents
from chainrule.eval.words import similarity
from chainrule.models.word2vec import Word2Vec, learn_words
from chainrule.models.word_vectors import WordVectors, sentences

EPOCHS, SEEDS = 10, (1, 2)


def ours(lines: list[list[str]], method: str, threads: int, seed: int, by: str) -> WordVectors:
    return learn_words(lines, Word2Vec(method=method, by=by, epochs=EPOCHS, threads=threads, seed=seed))


def seconds_to_compile() -> float:
    began = time.perf_counter()
    learn_words([["a", "b"]] * 9, Word2Vec(by="place", sample=0.0))
    return time.perf_counter() - began


def theirs(lines: list[list[str]], method: str, threads: int, seed: int) -> WordVectors:
    model = Gensim(
        lines, vector_size=100, window=5, min_count=5, negative=5, sample=1e-3, alpha=0.025, min_alpha=0.0001,
        sg=int(method == "skip_gram"), epochs=EPOCHS, workers=threads, seed=seed,
    )  # fmt: skip
    return WordVectors(list(model.wv.index_to_key), model.wv.vectors)


def measured(learn, lines: list[list[str]], method: str, threads: int, pairs: Path) -> tuple[float, float]:
    """(words a second, mean score)."""
    seconds, scores = [], []
    for seed in SEEDS:
        began = time.perf_counter()
        vectors = learn(lines, method, threads, seed)
        seconds.append(time.perf_counter() - began)
        scores.append(similarity(vectors, pairs).rho)
    return EPOCHS * sum(map(len, lines)) / min(seconds), float(np.mean(scores))


def main() -> None:
    material = Path(os.environ.get("CHAINRULE_TEST_DATA", "../shared/data"))
    pairs = material / "tasks" / "wordsim" / "EN-WS-353-ALL.txt"
    text = sys.argv[1] if len(sys.argv) > 1 else material / "corpora" / "wikitext-2"
    lines = [line for document in read_documents(text) for line in sentences(document)]
    print(f"{sum(map(len, lines)):,} words of {text}, {EPOCHS} epochs, {cpu_threads()} cores")
    print(f"by=place: numba is imported and the loop compiled in {seconds_to_compile():.1f} s, not counted below")
    for method in ("skip_gram", "cbow"):
        for threads in sorted({1, cpu_threads()}):
            peer, expected = measured(theirs, lines, method, threads, pairs)
            print(f"{method:<9} {threads} threads   gensim   {peer:9,.0f} words/s, ρ {expected:.3f}")
            for by in ("block", "place"):
                rate, score = measured(partial(ours, by=by), lines, method, threads, pairs)
                print(f"{'':<21} by {by} {rate:9,.0f} words/s, ρ {score:.3f}   {rate / peer:5.2f} x", flush=True)


if __name__ == "__main__":
    main()
