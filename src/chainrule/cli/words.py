"""``chainrule words VECTORS``: learn word vectors, look at them, score them.

VECTORS is a file in word2vec's text format (gensim and fastText write it), or ``word2vec:FILE``: a text, a folder or rows of
documents whose words are learned on the spot, as ``key=value`` says.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.cli import options
from chainrule.core.errors import DataError, RequestError

if TYPE_CHECKING:
    from chainrule.models.word_vectors import WordVectors

LEARN = "word2vec:"


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "vectors",
        metavar="VECTORS",
        help="word vectors in word2vec's text format;\n"
        "or word2vec:FILE, a text, folder or rows of documents, whose words are learned on the spot",
    )
    parser.add_argument(
        "settings",
        metavar="key=value",
        nargs="*",
        help="how to learn from word2vec:FILE: method=skip_gram or cbow, by=block or place,\n"
        "d_model=100 window=5 min_count=5 epochs=5 threads=1 ...",
    )
    parser.add_argument("--near", action="append", default=[], metavar="WORD", help="show its nearest words; may be repeated")
    parser.add_argument("--analogy", nargs=3, metavar=("A", "B", "C"), help="A is to B as C is to ...?")
    parser.add_argument("-k", type=int, default=10, help="how many words to show (10)")
    parser.add_argument(
        "--similarity", metavar="FILE", help="score against people: lines of two words and a number (WordSim-353)"
    )
    parser.add_argument("--analogies", metavar="FILE", help="score on questions of four words (questions-words.txt)")
    parser.add_argument(
        "--segmented", action="store_true", help="the words of the text are separated by spaces already; take them as they are"
    )
    parser.add_argument("--save", metavar="FILE", help="write the vectors in word2vec's text format")
    parser.add_argument("--force", action="store_true", help="replace what is at --save's FILE")
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Learn or load, save; answer what was asked, or say what there is."""
    _check(args)
    vectors = _learn(args) if args.vectors.startswith(LEARN) else _load(args)
    if args.save:  # first of all: a word that is not there must not cost what took minutes to learn
        vectors.save(args.save)
        print(f"{args.save} is written", file=sys.stderr)
    found: dict[str, Any] = {"words": len(vectors.words), "d_model": vectors.matrix.shape[1]}
    found["near"] = {word: vectors.near(word, args.k) for word in args.near}
    if args.analogy:
        a, b, c = args.analogy
        found["analogy"] = vectors.nearest([b, c], [a], args.k)
    found |= _scores(args, vectors)
    options.dump(found) if args.json else _show(args, found, vectors)


def _check(args: Namespace) -> None:
    """Refuse before anything is learned what is known to fail: files that hold no questions, a place that cannot be written."""
    from chainrule.core.files import named, unused
    from chainrule.eval.words import judgements, questions

    options.check_least(args, k=1)
    if args.similarity:
        judgements(args.similarity)
    if args.analogies:
        questions(args.analogies)
    if args.save:
        place = named(Path(args.save))
        there = next(folder for folder in place.parents if folder.exists())
        if place.is_dir() or not there.is_dir() or not os.access(there, os.W_OK):
            raise DataError(f"cannot write {place}; give the name of a file in a folder that you may write to")
        unused(place, force=args.force)


def _load(args: Namespace) -> "WordVectors":
    from chainrule.models.word_vectors import WordVectors

    if args.settings:
        raise RequestError(
            f"{args.settings[0]!r} says how to learn, but {args.vectors} is learned already; learn anew with {LEARN}FILE"
        )
    if args.segmented:
        raise RequestError(f"--segmented says how to read a text, but {args.vectors} holds vectors; leave it out")
    return WordVectors.load(args.vectors)


def _learn(args: Namespace) -> "WordVectors":
    from chainrule.core.schema import parse
    from chainrule.data.documents import read_documents
    from chainrule.models.word2vec import Word2Vec, learn_words
    from chainrule.models.word_vectors import sentences
    from chainrule.train.recipe import override

    plain: dict[str, Any] = {}
    for change in args.settings:
        override(plain, change)
    settings = parse(Word2Vec, plain)
    texts = read_documents(args.vectors.removeprefix(LEARN))

    def heard(epoch: int, loss: float) -> None:
        print(f"epoch {epoch} of {settings.epochs}: loss {loss:.4f}", file=sys.stderr)

    return learn_words((line for text in texts for line in sentences(text, segmented=args.segmented)), settings, heard)


def _scores(args: Namespace, vectors: "WordVectors") -> dict[str, Any]:
    from chainrule.core.schema import dump
    from chainrule.eval.words import analogies, similarity

    scores: dict[str, Any] = {}
    if args.similarity:
        scores["similarity"] = dump(similarity(vectors, args.similarity))
    if args.analogies:
        found = analogies(vectors, args.analogies)
        scores["analogies"] = dump(found) | {"right": found.right, "asked": found.asked}
    return scores


def _show(args: Namespace, found: dict[str, Any], vectors: "WordVectors") -> None:
    print(f"{found['words']:,} words, {found['d_model']} numbers each; the first: {' '.join(vectors.words[:10])}")
    for word, near in found["near"].items():
        print(f"near {word}")
        _list(near)
    if "analogy" in found:
        print("{} is to {} as {} is to".format(*args.analogy))
        _list(found["analogy"])
    if "similarity" in found:
        score = found["similarity"]
        print(f"similarity  ρ = {score['rho']:.4f} over {score['pairs']} pairs ({score['unknown']} have no vectors)")
    if "analogies" in found:
        score = found["analogies"]
        for name, (right, asked) in score["sections"].items():
            print(f"{right / asked:7.1%}  {right} of {asked}  {name}")
        share = score["right"] / score["asked"]
        print(f"analogies   {share:.1%}: {score['right']} of {score['asked']} ({score['unknown']} have no vectors)")


def _list(near: list[tuple[str, float]]) -> None:
    for word, cosine in near:
        print(f"{cosine:8.4f}  {word}")
