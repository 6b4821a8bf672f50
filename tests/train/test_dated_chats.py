"""A chat template that asks for the date is told the recipe's day: a run does not hang on the clock."""

import json
from datetime import date

import pytest

from chainrule.core.errors import TokenizerError
from chainrule.hub.fresh import fresh
from chainrule.hub.lm import LM
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.tokenizers.chat import ChatTemplate
from chainrule.train.material import prepare
from chainrule.train.recipe import parse_recipe, write_recipe

DATED = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"


def test_the_day_of_a_recipe_stands_in_its_chats_and_without_one_the_error_says_how_to_name_it(tmp_path):
    lm = LM(fresh(vocab_size=257, context=64, n_layers=1, d_model=8, n_heads=1, n_kv_heads=1, d_ff=8, rope_theta=1e4,
                  tied=True, init="normal", seed=0), ByteTokenizer(), ChatTemplate(DATED, ByteTokenizer()))  # fmt: skip
    lm.save(tmp_path / "dated")
    row = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    text = f"model: {{kind: start, path: {tmp_path / 'dated'}}}\ndata: {{kind: chats, path: {tmp_path / 'chats.jsonl'}}}\ncontext: 32"
    with pytest.raises(TokenizerError, match=r"data\.day=2024-07-26"):
        prepare(parse_recipe(text))
    recipe = parse_recipe(text, ["data.day=2024-07-26"])
    assert parse_recipe(write_recipe(recipe)) == recipe
    ids = prepare(recipe).stream.batches(0)[0].tokens.flatten().tolist()
    assert b"26 Jul 2024hiyes" in bytes(id for id in ids if id < 256)
    today = date.today().strftime("%d %b %Y")
    assert lm.tokenizer.decode(lm.chat_ids(row["messages"])) == f"{today}hiyes"
