"""The engine: many requests at once get what each would get alone; text streams in whole characters and stops where asked."""

import pytest
import torch

from chainrule.core.datum import Layout
from chainrule.core.errors import ConfigError, RequestError
from chainrule.generate.engine import Engine, Request
from chainrule.generate.text import TextStream
from chainrule.hub.fresh import fresh
from chainrule.models.ngram import NGram
from chainrule.tokenizers.byte import ByteTokenizer

TOKENIZER = ByteTokenizer()


def model():
    return fresh(vocab_size=257, context=64, n_layers=2, d_model=32, n_heads=2, n_kv_heads=1, d_ff=32, rope_theta=1e4,
                 tied=True, init="normal", seed=3).eval()  # fmt: skip


def finish(engine):
    said: dict[int, list[int]] = {}
    while engine.busy:
        for event in engine.step():
            said.setdefault(event.id, []).append(event.token)
    return said


REQUESTS = [
    Request(tokens=[1, 2, 3], max_tokens=9, temperature=0.0),
    Request(tokens=[7] * 20, max_tokens=4, seed=5),
    Request(tokens=[9, 8], max_tokens=12, seed=6, top_k=5, top_p=0.9),
    Request(tokens=[4], max_tokens=1, temperature=0.5, min_p=0.1, repetition_penalty=1.2),
]


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_many_requests_at_once_get_what_each_gets_alone(rows):
    lm = model()
    alone = []
    for request in REQUESTS:
        engine = Engine(lm)
        engine.submit(request)
        alone.append(next(iter(finish(engine).values())))
    engine = Engine(lm, rows=rows)
    ids = [engine.submit(request) for request in REQUESTS]
    together = finish(engine)
    assert [together[id] for id in ids] == alone
    assert [len(said) for said in alone] == [9, 4, 12, 1]


def test_a_row_that_fills_the_context_stops_there():
    engine = Engine(model())
    engine.submit(Request(tokens=[1] * 60, max_tokens=99, temperature=0.0))
    events = []
    while engine.busy:
        events += engine.step()
    assert len(events) == 4
    assert events[-1].done == "length"


def test_log_probabilities_are_those_of_the_model_itself():
    lm = model()
    engine = Engine(lm)
    engine.submit(Request(tokens=[5, 6], max_tokens=3, temperature=0.3, top_k=2, logprobs=4))
    tokens = [5, 6]
    while engine.busy:
        for event in engine.step():
            row = torch.tensor([tokens])
            logp = lm(row, layout=Layout.plain(row))[0, -1].log_softmax(-1)
            assert abs(event.logp - float(logp[event.token].detach())) < 1e-4
            assert [id for id, _ in event.top] == logp.topk(4).indices.tolist()
            tokens.append(event.token)


def counted(text: str) -> NGram:
    return NGram.fit([[256, *text.encode(), 256]], order=6, vocab_size=257)


def test_a_stop_string_ends_the_text_before_it():
    lm = counted("one two three. " * 20)
    engine = Engine(lm, TOKENIZER)
    engine.submit(Request(tokens=[256, *b"one "], max_tokens=50, temperature=0.0, stop=("three",)))
    text, done = "", None
    while engine.busy:
        for event in engine.step():
            text, done = text + event.text, event.done
    assert (text, done) == ("two ", "stop")


def test_text_comes_in_whole_characters():
    engine = Engine(counted("今天的天气很好。😀" * 9), TOKENIZER)
    engine.submit(Request(tokens=[256, *"今天".encode()], max_tokens=40, temperature=0.0))
    pieces = []
    while engine.busy:
        pieces += [event.text for event in engine.step() if event.text]
    assert all("\ufffd" not in piece for piece in pieces[:-1])
    assert "".join(pieces).startswith("的天气很好。😀")


def test_a_text_that_ends_inside_a_character_says_so():
    stream = TextStream(TOKENIZER)
    assert [stream.feed(byte) for byte in "好".encode()[:2]] == ["", ""]
    assert stream.flush() == "\N{REPLACEMENT CHARACTER}"


def test_cancelled_requests_are_forgotten():
    engine = Engine(model())
    first, second = (engine.submit(Request(tokens=[1], max_tokens=5)) for _ in range(2))
    engine.step()
    engine.cancel(first)
    assert set(finish(engine)) == {second}


@pytest.mark.parametrize(
    ("request_", "because"),
    [
        (lambda: Request(tokens=[1], max_tokens=0), "max_tokens"),
        (lambda: Request(tokens=[1], temperature=-0.1), "temperature"),
        (lambda: Request(tokens=[], max_tokens=1), "empty"),
        (lambda: Request(tokens=[1], repetition_penalty=0.0), "repetition_penalty"),
        (lambda: Request(tokens=[1], stop=("",)), "stop string"),
    ],
)
def test_requests_that_mean_nothing_are_refused(request_, because):
    with pytest.raises(RequestError, match=because):
        request_()


def test_prompts_the_model_cannot_read_are_refused():
    engine = Engine(model())
    with pytest.raises(RequestError, match="64 tokens long"):
        engine.submit(Request(tokens=[1] * 64))
    with pytest.raises(RequestError, match="id 900"):
        engine.submit(Request(tokens=[900]))
    with pytest.raises(RequestError, match="id -1; this model knows ids 0 to 256"):
        engine.submit(Request(tokens=[-1, 5]))
    with pytest.raises(RequestError, match="tokenizer"):
        engine.submit(Request(tokens=[1], stop=("x",)))
    with pytest.raises(ConfigError, match="reads tokens alone; it cannot be given source"):
        engine.submit(Request(tokens=[1], given={"source": torch.ones(1, 3, dtype=torch.long)}))
    assert not engine.busy
