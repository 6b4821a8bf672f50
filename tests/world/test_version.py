"""What ``world.VERSION`` stands for: under one version the same seeds tell the same texts, with the same probabilities."""

import hashlib
import json
import math
from itertools import islice

import pytest

from chainrule import world

TOLD = 50
GOLDEN = {
    1: {
        "en": {"documents": "e4c335e4498b7fbc", "logp": -4131.276643486768, "chats": "0e3896af82e4afc7"},
        "zh": {"documents": "9a7a5db36385e1de", "logp": -4029.769764900796, "chats": "f40d78031e47cd98"},
    },
    2: {
        "en": {"documents": "e4c335e4498b7fbc", "logp": -4131.276643486768, "chats": "c1a94d5fb6b83e8f"},
        "zh": {"documents": "9a7a5db36385e1de", "logp": -4029.769764900796, "chats": "4ab9859c49d58f3b"},
    },
    3: {
        "en": {"documents": "ee984fabc434c3ed", "logp": -4638.2422033696475, "chats": "ce30a151a1d96bc4"},
        "zh": {"documents": "85c4531f81b0f620", "logp": -4409.95744790602, "chats": "b37a0132fa95691e"},
    },
    4: {
        "en": {"documents": "ee984fabc434c3ed", "logp": -4638.2422033696475, "chats": "dc2fbead81e752f3"},
        "zh": {"documents": "85c4531f81b0f620", "logp": -4409.95744790602, "chats": "34827183f41b5667"},
    },
}


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_a_version_of_the_world_tells_what_it_always_told(language):
    documents = list(islice(world.documents(0, language=language), TOLD))
    chats = [(chat.messages, chat.accepts, chat.facts) for chat in islice(world.chats(0, language=language), TOLD)]
    found = {
        "documents": fingerprint([(one.text, one.facts) for one in documents]),
        "logp": pytest.approx(math.fsum(world.logp(one.text) for one in documents), abs=1e-6),
        "chats": fingerprint(chats),
    }
    assert GOLDEN.get(world.VERSION, {}).get(language) == found, (
        f"world {world.VERSION} tells other texts than it did: what was measured on it is no longer comparable. If that is "
        "meant, raise world.VERSION and put what is found here beside it in GOLDEN; else undo the change"
    )


def fingerprint(told: list) -> str:
    return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()[:16]
