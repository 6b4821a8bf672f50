"""Training BPE: merge the most frequent neighbours, write the merge down, repeat.

    merges₁ = argmax_(a,b) count(a b),   then every "a b" becomes one symbol, and so on

Sennrich et al. 2016, arXiv:1508.07909. Ties go to the pair of smaller ids, as in the `tokenizers` library, so the merges are
the same. Pieces are counted once, and only the pieces that hold a merged pair are touched again.
"""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable

from chainrule.tokenizers.patterns import compiled

Pair = tuple[int, int]


def count_pieces(texts: Iterable[str], pattern: str) -> Counter[bytes]:
    """How often each piece occurs when the texts are cut by the pattern."""
    split = compiled(pattern).findall
    pieces: Counter[str] = Counter()
    for text in texts:
        pieces.update(split(text))
    return Counter({piece.encode(): count for piece, count in pieces.items()})


def learn_merges(pieces: Counter[bytes], vocab: list[bytes], vocab_size: int) -> list[tuple[bytes, bytes]]:
    """Grow ``vocab`` (which holds the 256 bytes) to ``vocab_size`` by merges; returns the merges in order."""
    ids = {symbol: id for id, symbol in enumerate(vocab)}
    words = [[ids[bytes([byte])] for byte in piece] for piece in pieces]
    weights = list(pieces.values())
    counts, where = _count_pairs(words, weights)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    merges: list[tuple[bytes, bytes]] = []
    while queue and len(vocab) < vocab_size:
        negative, pair = heapq.heappop(queue)
        count = counts[pair]
        if count != -negative:  # an old entry: its true place is further down
            if count > 0:
                heapq.heappush(queue, (-count, pair))
            continue
        left, right = vocab[pair[0]], vocab[pair[1]]
        new = ids.setdefault(left + right, len(vocab))
        if new == len(vocab):
            vocab.append(left + right)
        merges.append((left, right))
        touched: set[Pair] = set()
        for word in where.pop(pair):
            touched |= _merge_in(words[word], weights[word], pair, new, counts, where, word)
        counts[pair] = 0
        for fresh in touched:
            heapq.heappush(queue, (-counts[fresh], fresh))
    return merges


def _count_pairs(words: list[list[int]], weights: list[int]) -> tuple[Counter[Pair], dict[Pair, set[int]]]:
    counts: Counter[Pair] = Counter()
    where: dict[Pair, set[int]] = defaultdict(set)
    for index, (word, weight) in enumerate(zip(words, weights, strict=True)):
        for pair in itertools.pairwise(word):
            counts[pair] += weight
            where[pair].add(index)
    return counts, where


def _merge_in(
    word: list[int], weight: int, pair: Pair, new: int, counts: Counter[Pair], where: dict[Pair, set[int]], index: int
) -> set[Pair]:
    """Replace the pair in one word, keep the counts true; returns the pairs that came to be."""
    born: set[Pair] = set()
    i = 0
    while i < len(word) - 1:
        if (word[i], word[i + 1]) == pair:
            if i > 0:
                counts[word[i - 1], pair[0]] -= weight
                born.add((word[i - 1], new))
                counts[word[i - 1], new] += weight
                where[word[i - 1], new].add(index)
            if i + 2 < len(word):
                counts[pair[1], word[i + 2]] -= weight
                born.add((new, word[i + 2]))
                counts[new, word[i + 2]] += weight
                where[new, word[i + 2]].add(index)
            word[i : i + 2] = [new]
        i += 1
    return born
