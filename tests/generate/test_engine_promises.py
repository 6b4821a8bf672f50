"""What the engine promises in odd corners: rows declared to be long, rows without a limit, settings that leave no numbers,
and a text that begins under a tokenizer which puts a space in front."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from chainrule.core.errors import RequestError
from chainrule.core.model import LanguageModel
from chainrule.generate import engine as engines
from chainrule.generate.engine import Engine, Request, run
from chainrule.generate.text import TextStream
from chainrule.layers.rope import Rope
from chainrule.layers.scaling import Dynamic, LongRope
from chainrule.logprobs.filters import Temperature
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.models.ngram import NGram
from chainrule.models.rnn import Recurrent, RecurrentConfig
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.tokenizers.sentencepiece import BPE, CONTROL, NORMAL, UNKNOWN, Model, SentencePiece

LONG = LongRope(short=(1.0, 1.5, 2.0, 2.5), long=(1.0, 3.0, 5.0, 9.0), original=12)
DYNAMIC = Dynamic(factor=4.0, original=12)
PLAN = DecoderConfig.uniform(vocab_size=31, context=40, d_model=16, n_layers=2, n_heads=2)


def turned_by(scaling: LongRope | Dynamic | None) -> Decoder:
    """A model with weights large enough for positions to matter."""
    model = Decoder(replace(PLAN, position=Rope(scaling=scaling)), torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 15 if weight.ndim == 2 else 1
    return model


@pytest.mark.parametrize("scaling", [LONG, DYNAMIC], ids=["longrope", "dynamic"])
def test_a_short_request_beside_longer_ones_gets_what_it_gets_alone(scaling):
    model = turned_by(scaling)
    requests = [Request(tokens=[*range(2, 8)], max_tokens=n, temperature=0.0) for n in (5, 25, 4, 20)]
    alone = [[event.logp for event in run(Engine(model), [request])[0]] for request in requests]
    together = [[event.logp for event in events] for events in run(Engine(model), requests)]
    for expected, found in zip(alone, together, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    assert alone[0][:4] == pytest.approx(alone[2], abs=1e-5)
    assert alone[0][:4] != pytest.approx(alone[1][:4], abs=1e-5)  # the declared length does decide


def test_requests_of_one_kind_still_run_together():
    engine = Engine(turned_by(LONG))
    for n in (5, 25, 4):
        engine.submit(Request(tokens=[1, 2], max_tokens=n))
    assert [event.id for event in engine.step()] == [0, 2]


def endless(name: str) -> NGram | Recurrent:
    if name == "ngram":
        return NGram.fit([[256, *(b"one two three. " * 4), 256]], order=4, vocab_size=257)
    return Recurrent(
        RecurrentConfig.uniform(vocab_size=257, cell="lstm", n_layers=1, d_model=8), torch.Generator().manual_seed(0)
    ).eval()


@pytest.mark.parametrize("name", ["ngram", "recurrent"])
def test_a_row_without_a_limit_takes_memory_as_it_grows_and_says_the_same(name, monkeypatch):
    model = endless(name)
    engine = Engine(model)
    engine.submit(Request(tokens=[256, 111], max_tokens=10**9))
    assert len(engine.step()) == 1
    assert engine._cache.capacity == 2 + engines.ROOM
    requests = [Request(tokens=[256, 111], max_tokens=20, seed=1), Request(tokens=[256, *b"three"], max_tokens=9, seed=2)]
    expected = run(Engine(model), requests)
    monkeypatch.setattr(engines, "ROOM", 3)
    found = run(Engine(model), requests)
    assert [[event.token for event in events] for events in found] == [[event.token for event in events] for events in expected]


@pytest.mark.parametrize("settings", [{"temperature": 1e-40}, {"temperature": 1e9}, {"repetition_penalty": 1e-40},
                                      {"repetition_penalty": float("inf")}, {"temperature": float("nan")}])  # fmt: skip
def test_settings_beyond_all_numbers_are_refused(settings):
    with pytest.raises(RequestError, match=r"between 0\.0001 and 10000"):
        Request(tokens=[1], **settings)


def test_the_coldest_temperature_draws_the_best_token():
    logp = (torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 50).log_softmax(-1)
    for t in (1e-4, 1e-40):
        cold = Temperature(t)(logp).exp()
        assert not cold.isnan().any()
        assert torch.equal(cold.argmax(-1), logp.argmax(-1))


def test_scores_that_no_setting_survives_are_refused():
    with pytest.raises(RequestError, match=r"repetition_penalty=0\.0001 leave no numbers"):
        run(Engine(Monster()), [Request(tokens=[1], repetition_penalty=1e-4)])


class Monster(LanguageModel):
    """Scores the token 1 beyond all measure."""

    vocab_size = 257

    def hidden(self, tokens, cache=None, *, layout=None, given=None, tap=None):
        return torch.zeros(*tokens.shape, 1)

    def readout(self, hidden):
        scores = torch.zeros(*hidden.shape[:-1], 257)
        scores[..., 1] = 1e38
        return scores


def test_a_request_that_fails_ends_alone():
    """Nothing that the others had drawn or not yet read is lost by it."""
    sound = [Request(tokens=[*range(2, 2 + n)], max_tokens=6, seed=n) for n in (3, 5)]
    model = Decoder(PLAN, torch.Generator().manual_seed(0)).eval()
    alone = [[event.token for event in run(Engine(model), [request])[0]] for request in sound]
    bad = replace(sound[0], also=(lambda logp: logp * torch.nan,))
    engine = Engine(model)
    ids = [engine.submit(request) for request in (sound[0], bad, sound[1])]
    said: dict[int, list[int]] = {id: [] for id in ids}
    failures = 0
    while engine.busy:
        try:
            for event in engine.step():
                said[event.id].append(event.token)
        except RequestError:
            failures += 1
    assert failures == 1
    assert [said[ids[0]], said[ids[2]]] == alone
    assert said[ids[1]] == []


def test_filters_and_caches_of_ones_own_are_passed_in():
    model = NGram.fit([[256, 1, 2, 1, 3, 256]], order=2, vocab_size=257)
    made = []

    def cache(rows, capacity, given):
        made.append((rows, capacity, given))
        return model.cache(rows, capacity, given)

    def never_two(logp):
        return logp.index_fill(-1, torch.tensor([2]), -torch.inf).log_softmax(-1)

    engine = Engine(model, make_cache=cache)
    plain, filtered = run(
        engine, [Request(tokens=[1], max_tokens=1, temperature=0.0, also=also) for also in ((), (never_two,))]
    )
    assert [plain[0].token, filtered[0].token] == [2, 3]
    assert made == [(2, 2, None)]


def test_fewer_than_no_alternatives_are_refused():
    with pytest.raises(RequestError, match="logprobs is -1"):
        Request(tokens=[1], logprobs=-1)


def pieces(prefix: bool) -> SentencePiece:
    words = ["▁", "a", "b", "▁a", "▁b", "▁ab"]
    rows = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    rows += [(word, -float(i), NORMAL) for i, word in enumerate(words)]
    return SentencePiece(Model(rows, BPE, {"bos": 1, "eos": 2}, b"", prefix, True, b""))


@pytest.mark.parametrize("prefix", [True, False])
def test_a_text_that_begins_is_what_decode_says_and_one_that_goes_on_keeps_its_space(prefix):
    tokenizer = pieces(prefix)
    said = [tokenizer._ids[word] for word in ("▁ab", "▁a", "b")]
    model = NGram.fit([[1, *said, 2]], order=4, vocab_size=tokenizer.vocab_size, smoothing="mle")
    for prompt in ([1], [1, said[0]]):
        request = Request(tokens=prompt, temperature=0.0, stop_ids=frozenset({2}))
        text = "".join(event.text for event in run(Engine(model, tokenizer), [request])[0])
        assert text == (tokenizer.decode(said) if prompt == [1] else " ab")


def test_a_space_that_is_said_stays():
    stream = TextStream(ByteTokenizer(), begins=True)
    assert "".join(map(stream.feed, b"  a")) == "  a"


@pytest.mark.parametrize(
    ("settings", "because"),
    [
        ({"seed": None}, "seed is None; it must be a whole number"),
        ({"temperature": None}, "temperature is None; it must be a number"),
        ({"temperature": "hot"}, "temperature is 'hot'; it must be a number"),
        ({"max_tokens": 2.5}, "max_tokens is 2.5; it must be a whole number"),
        ({"top_k": 2.5}, "top_k is 2.5; it must be a whole number"),
        ({"top_p": "0.9"}, "top_p is '0.9'; it must be a number"),
        ({"repetition_penalty": None}, "repetition_penalty is None"),
        ({"logprobs": 1.5}, "logprobs is 1.5"),
        ({"stop": "###"}, "stop is '###'; it must be a tuple of the strings that end the text"),
        ({"stop": None}, "stop is None"),
        ({"stop": (3,)}, r"stop is \(3,\)"),
        ({"stop_ids": 3}, "stop_ids is 3; it must be a set of the ids"),
        ({"stop_ids": "###"}, "stop_ids is '###'"),
        ({"tokens": "Once"}, "tokens is 'Once'; it must be a list of ids"),
    ],
)
def test_settings_of_a_wrong_kind_are_refused(settings, because):
    request = Request(tokens=[1])
    for name, value in settings.items():
        object.__setattr__(request, name, value)  # not in the call: under pytest its signature is enforced
    with pytest.raises(RequestError, match=because):
        request.__post_init__()


SOUND = [Request(tokens=[*range(2, 2 + n)], max_tokens=6, seed=n) for n in (3, 5, 1)]


def told(engine: Engine) -> dict[int, list[int]]:
    said: dict[int, list[int]] = {}
    while engine.busy:
        for event in engine.step():
            said.setdefault(event.id, []).append(event.token)
    return said


@pytest.mark.parametrize("bad", [replace(SOUND[0], tokens=[99]), replace(SOUND[0], also=(lambda logp: logp * torch.nan,))])
def test_a_run_in_which_a_request_fails_leaves_nothing_behind(bad):
    engine = Engine(turned_by(None))
    with pytest.raises(RequestError):
        run(engine, [*SOUND, bad])
    assert not engine.busy
    alone = run(Engine(turned_by(None)), SOUND)
    assert [[e.token for e in events] for events in run(engine, SOUND)] == [[e.token for e in events] for events in alone]


def test_a_run_does_not_swallow_the_events_of_others():
    engine = Engine(turned_by(None))
    own = engine.submit(SOUND[0])
    with pytest.raises(RequestError, match="serving other requests"):
        run(engine, SOUND[1:])
    assert {id: len(said) for id, said in told(engine).items()} == {own: 6}


def test_requests_wait_on_where_no_cache_can_be_made():
    model, full = turned_by(None), [True]

    def cache(rows, capacity, given):
        if full.pop() if full else False:
            raise MemoryError
        return model.cache(rows, capacity, given)

    engine = Engine(model, make_cache=cache)
    for request in SOUND:
        engine.submit(request)
    with pytest.raises(MemoryError):
        engine.step()
    assert told(engine) == dict(enumerate([event.token for event in events] for events in run(Engine(model), SOUND)))


@pytest.mark.parametrize("at", [0, 2, 5])
@pytest.mark.parametrize("cancelled", [None, 1])
def test_a_step_that_breaks_off_within_the_model_changes_no_row(at, cancelled):
    model = turned_by(None)
    expected = dict(enumerate([(event.token, event.logp) for event in events] for events in run(Engine(model), SOUND)))
    engine, said = Engine(model), {id: [] for id in expected}
    for request in SOUND:
        engine.submit(request)
    for step in range(6):
        if step == at:
            hook = model.layers[1].register_forward_pre_hook(interrupt)  # the cache has grown, the second layer has not read
            with pytest.raises(KeyboardInterrupt):
                engine.step()
            hook.remove()
            if cancelled is not None:
                engine.cancel(cancelled)
        for event in engine.step():
            said[event.id].append((event.token, event.logp))
    if cancelled is not None:
        expected[cancelled] = expected[cancelled][:at]
    for id, events in expected.items():
        assert said[id] == [(token, pytest.approx(logp, abs=1e-4)) for token, logp in events]
    assert not engine.busy


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("length", [1, 3])
def test_stop_strings_end_a_text_at_one_place_however_it_is_cut(length):
    """The one that is complete first, and of those that are so together the one that begins first."""
    assert stopped(["abc"], ("b", "abc")) == stopped(["a", "b", "c"], ("b", "abc")) == ("a", True)
    assert stopped(["xabc"], ("bc", "abc")) == stopped(["xa", "bc"], ("bc", "abc")) == ("x", True)
    for text in map("".join, product("abc", repeat=5)):
        for stop in (("ab", "b"), ("abc", "b"), ("bca", "ca", "aab"), ("cc", "bcc")):
            pieces = [text[at : at + length] for at in range(0, 5, length)]
            assert stopped(pieces, stop) == stopped([text], stop)


def stopped(pieces: list[str], stop: tuple[str, ...]) -> tuple[str, bool]:
    stream = TextStream(Spelt(pieces), stop)
    said = "".join(stream.feed(id) for id in range(len(pieces)) if not stream.stopped)
    return said + stream.flush(), stream.stopped


class Spelt(ByteTokenizer):
    """Each id is a piece of a text."""

    def __init__(self, pieces: list[str]) -> None:
        super().__init__()
        self.pieces = pieces

    def token_bytes(self, id: int) -> bytes:
        return self.pieces[id].encode()
