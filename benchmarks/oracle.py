"""The truth's speed on one thread: bytes of the world a second through the model's own interface, and by the grammar alone.

python benchmarks/oracle.py
"""

import time
from itertools import islice

import torch

from chainrule.core.datum import Batch
from chainrule.logprobs.scoring import token_logprobs
from chainrule.models.oracle import Oracle
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.world import documents, logp

DOCUMENTS = 400


def main() -> None:
    torch.set_num_threads(1)  # small tensors gain nothing from a second, and lose much where the machine is busy
    texts = [document.text for document in islice(documents(seed=3), DOCUMENTS)]
    size = sum(len(text.encode()) for text in texts)
    tokenizer, oracle = ByteTokenizer(), Oracle()
    began = time.perf_counter()
    nats = 0.0
    for text in texts:
        tokens = torch.tensor([[256, *tokenizer.encode(text), 256]])
        nats -= float(token_logprobs(oracle, Batch(tokens, torch.ones(tokens.shape))).sum())
    middle = time.perf_counter()
    exact = -sum(logp(text) for text in texts)
    end = time.perf_counter()
    print(f"{len(texts)} documents, {size:,} bytes; {nats:,.1f} nats by bytes, {exact:,.1f} by derivations")
    print(f"oracle, every next byte  {size / (middle - began) / 1e3:8,.0f} kB/s")
    print(f"world.logp               {size / (end - middle) / 1e3:8,.0f} kB/s")


if __name__ == "__main__":
    main()
