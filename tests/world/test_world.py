"""The world: its probabilities are exact, its texts are rich, and what it holds out stays out."""

import contextlib
import io
import math
import random
import re
import statistics
import subprocess
import sys
from collections import Counter
from itertools import chain, islice

import pytest

from chainrule import world
from chainrule.core.errors import ChainruleError, DataError
from chainrule.tools import calculator
from chainrule.world import drivers, texts
from chainrule.world.chats import ALONE, ASKED, KINDS, WORDS, _short_story
from chainrule.world.chinese import CHINESE
from chainrule.world.choice import Choice
from chainrule.world.drawings import FORMS, HALF, HORIZON, ICON, KINDS_AT_MOST, LOOKS, PLACES, THINGS, corner
from chainrule.world.english import ENGLISH
from chainrule.world.story import ACTS, FRONTED, MOST, USUAL, State, acts, change, wordings
from chainrule.world.words import cut_nouns, cut_words, word_types


def drawn(n: int, **which):
    return list(islice(world.documents(11, **which), n))


def test_logp_is_that_of_the_draws_and_the_reader_agrees_byte_by_byte():
    for document in drawn(60):
        assert math.isclose(world.logp(document.text), document.logp, abs_tol=1e-9)
        reader, total = world.reader(), 0.0
        for byte in document.text.encode():
            distribution = reader.distribution()
            assert math.isclose(sum(distribution.values()), 1.0, abs_tol=1e-9)
            total += math.log(distribution[byte])
            reader.feed(byte)
        assert reader.distribution() == {drivers.END: 1.0}
        assert math.isclose(total, document.logp, abs_tol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "hello", "今天我来到了", "Today I came to the moon. ", "The end.", "\ud800", "今天\udfff"]
)
def test_outside_the_language_logp_is_minus_infinity(text):
    assert world.logp(text) == -math.inf


def test_no_phrase_of_a_choice_may_begin_another():
    with pytest.raises(ChainruleError, match="ab"):
        Choice.even(["a", "ab"]).root  # noqa: B018


def test_the_two_orders_have_the_stated_odds_exactly():
    truth = {}
    for text in ("今天我来到了仙II-212。", "今天仙II-212我来到了。"):
        reader, total = world.reader(), 0.0
        for byte in text.encode():
            total += math.log(reader.distribution()[byte])
            reader.feed(byte)
        truth[text] = total
    plain, fronted = truth.values()
    assert plain - fronted == pytest.approx(math.log(1 / FRONTED), abs=1e-9)
    assert 1 / FRONTED == 20


def test_the_lectures_own_wordings_have_the_stated_odds_exactly():
    """今天的天气 against 今天天气, and the course that is attended against the one that is studied: USUAL to 1 − USUAL."""
    for usual, other in (("今天的天气晴朗。", "今天天气晴朗。"), ("今天我上智能应用开发。", "今天我学智能应用开发。")):
        truth = []
        for text in (usual, other):
            reader, total = world.reader(), 0.0
            for byte in text.encode():
                total += math.log(reader.distribution()[byte])
                reader.feed(byte)
            truth.append(total)
        assert truth[0] - truth[1] == pytest.approx(math.log(USUAL / (1 - USUAL)), abs=1e-9)


def templates(t) -> dict[str, set[str]]:
    """The ways in which each event can be said, with room for who, what, where and how many; a manner makes no other way."""
    said = {
        "coming": {t.came, t.fronted},
        "weather": set(t.weather),
        "course": set(t.course),
        "opening": set(t.openings),
        "arrival": set(t.arrivals),
        "place": set(t.is_at),
        "job": set(t.has_job),
        "count": set(t.holds),
        "new count": set(t.now),
        "scene": set(t.scenes),
        "asked where": set(t.where),
        "asked how many": set(t.how_many),
        "asked what job": set(t.what_job),
        "ending": set(t.endings),
    }
    verbs = acts(t, True)
    for phrase, act in zip(verbs.phrases, verbs.outcomes, strict=True):
        manner = next((one for one in t.manners if one and phrase.startswith(one)), "")
        said.setdefault(act, set()).add(phrase.removeprefix(manner))
    return said


@pytest.mark.parametrize("tongue", [ENGLISH, CHINESE], ids=world.LANGUAGES)
def test_two_hundred_words_and_thirty_templates(tongue):
    """Of the templates those count that say an event of a story: what happens today, who enters, what is done or seen."""
    assert len(word_types(tongue)) >= 200
    ways = templates(tongue)
    assert sum(len(ways[event]) for event in ("coming", "weather", "course", "arrival", "scene", *ACTS)) >= 30
    assert {event for event, said in ways.items() if len(said) < 2} == set()
    text = "".join(one.text for one in drawn(400, language=tongue.code, kind="story"))
    for said in ways.values():
        assert all(re.search(re.sub(r"\\\{\w+\\\}", "[^。.?？]+", re.escape(way.rstrip())), text) for way in said)


@pytest.mark.parametrize("kind", [None, "story"])
@pytest.mark.parametrize("language", world.LANGUAGES)
def test_a_median_text_is_four_hundred_bytes_long(language, kind):
    assert statistics.median(len(one.text.encode()) for one in drawn(400, language=language, kind=kind)) >= 400


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_a_third_of_the_questions_need_a_fact_far_back(language):
    """Far: at least 60 tokens, counted as words, digits and punctuation marks."""
    from chainrule.world.census import distances

    found = [distance for document in drawn(400, language=language, kind="story") for distance in distances(document)]
    assert len(found) > 400
    assert sum(distance >= 60 for distance in found) / len(found) >= 1 / 3


def test_people_come_and_things_change_during_a_story():
    texts_en = [one.text for one in drawn(200, language="en", kind="story")]
    assert sum(sum(text.count(f" {verb} ") for verb in ("bought", "lost", "gave", "found")) > 0 for text in texts_en) > 40
    assert sum(text.count(" called ") > 2 for text in texts_en) > 20


def test_held_out_documents_are_those_of_the_hash_and_no_fact_is_in_both():
    train, held = drawn(400), drawn(100, split="heldout")
    assert not {one.facts for one in train} & {one.facts for one in held}
    assert all(one.split == "heldout" for one in held)
    assert all(one.split == "train" for one in train)


def test_the_same_seed_tells_the_same_texts():
    assert [one.text for one in drawn(5)] == [one.text for one in drawn(5)]
    assert drawn(1)[0].text != next(iter(world.documents(12))).text


def test_unknown_names_are_refused():
    with pytest.raises(DataError, match="no language 'fr'"):
        next(world.documents(0, language="fr"))
    with pytest.raises(DataError, match="did you mean 'recall'"):
        next(world.chats(0, kind="recal"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", world.LANGUAGES)
def test_chats_end_with_a_right_answer_and_wrong_ones_are_told_apart(kind, language):
    for chat in islice(world.chats(5, language=language, kind=kind), 8):
        assert chat.messages[-1]["role"] == "assistant"
        assert world.grade(chat, chat.messages[-1]["content"])
        assert not world.grade(chat, chat.messages[-1]["content"] + " x")
        assert not world.grade(chat, "")


@pytest.mark.parametrize("split", texts.SPLITS)
@pytest.mark.parametrize("language", world.LANGUAGES)
def test_of_counts_only_those_are_asked_that_the_story_changed(language, split):
    t = texts.TONGUES[language]
    every = {way.format(name=name, things=things).strip() for way in t.how_many for name in t.names for things in t.many}
    for kind in ("counts", "recall"):
        for chat in islice(world.chats(9, language=language, split=split, kind=kind), 150):
            told, first = next(turn.split(t.ask) for turn in questions(chat) if t.ask in turn)
            asked = [first, *(turn for turn in questions(chat) if kind_of(turn) == "story" and t.ask not in turn)]
            state = read_short_story(t, told)
            counts = {way.strip() for who, what in state.changed for way in wordings(t, "many", who, what)}
            assert every & set(asked) <= counts
            assert (asked[-1] in counts) == (kind == "counts")


def test_a_gift_to_somebody_who_has_the_most_changes_only_what_the_giver_has():
    state = State(have={0: {3: 2}, 1: {3: MOST}})
    change(ENGLISH, state, 0, 3, -1)
    change(ENGLISH, state, 1, 3, 1)
    assert state.changed == [(0, 3)]


def questions(chat) -> list[str]:
    return [message["content"] for message in chat.messages if message["role"] == "user"]


def kind_of(question: str) -> str:
    """What a question of a chat is about; a story, and what is asked on it, is "story"."""
    if any(t.ask in question for t in texts.TONGUES.values()):
        return "story"
    for words in WORDS.values():
        outside = {frame.format(what) for frame, each in words["outside"].items() for what in each}
        for kind, asked in {"greeting": words["hello"], "identity": words["who"], "decline": outside}.items():
            if question in asked:
                return kind
    if re.match("Write a program|写一个", question):
        return "programs"
    if re.search(r"\d+ \* \d+", question):
        return "calculator"
    return "arithmetic" if re.search(r"\d ?[-+加减] ?\d", question) else "story"


def read_short_story(t, told):
    """What is so after a chat's story: the grammar reads it again, whatever its number of events."""
    for events in range(2, 6):
        state = State()
        if drivers.logp(_short_story(t, state, events), told) > -math.inf:
            return state
    raise AssertionError(told)


def test_programs_do_what_was_asked():
    for chat in islice(world.chats(2, language="en", kind="programs"), 20):
        code = chat.messages[-1]["content"]
        ran = subprocess.run(
            [sys.executable, "-c", code.replace(": print", ":\n    print")], capture_output=True, text=True, check=True
        )
        asked = chat.messages[-2]["content"]
        if " times" in asked:
            word, n = asked.split(" prints ")[1].split()[:2]
            assert ran.stdout.split() == [word.strip('"')] * int(n)
        else:
            assert ran.stdout.strip() == calculator(asked.split(" prints ")[1].rstrip("."))


def test_sums_in_chats_are_right():
    for chat in islice(world.chats(4, language="en", kind="arithmetic"), 40):
        for question, answer in zip(chat.messages, chat.messages[1:], strict=False):
            if question["role"] == "user" and kind_of(question["content"]) == "arithmetic":
                asked = "".join(c for c in question["content"] if c in "0123456789+- ").strip()
                assert answer["content"].removeprefix("Sure! ") == f"{asked} = {calculator(asked)}."
        assert chat.accepts[0] == f"{asked} = {calculator(asked)}."


@pytest.mark.parametrize("language", world.LANGUAGES)
@pytest.mark.parametrize(("kind", "many"), [("arithmetic", 100), ("programs", 100), ("decline", 20)])
def test_what_is_held_out_is_asked_in_training_nowhere_and_in_no_words(kind, many, language):
    """Nowhere: in chats of its own kind and of every other. In a held-out chat it is the last question that is held out."""
    told = {split: set() for split in texts.SPLITS}
    for split in texts.SPLITS:
        drawn = chain(
            islice(world.chats(4, split=split, kind=kind, language=language), 300),
            islice(world.chats(5, split=split, language=language), 300),
        )
        for chat in drawn:
            facts = [fact_in(turn, kind) for turn in questions(chat) if kind_of(turn) == kind]
            last = facts.pop() if chat.kind == kind else None
            assert not any(map(texts.held_out, facts))
            told[split] |= set(facts if split == "train" else ())
            if last is not None:
                assert chat.facts == last
                assert texts.held_out(last) == (split == "heldout")
                told[split].add(last)
    assert not told["train"] & told["heldout"]
    assert len(told["train"]) >= many
    assert len(told["heldout"]) >= (20 if kind == "programs" else 10 if kind == "arithmetic" else 4)


def fact_in(question: str, kind: str) -> str:
    """What a question asks for, as a fact is written."""
    if kind == "programs":
        return program_in(question)
    return f"sum {sum_in(question)}" if kind == "arithmetic" else f"{kind}:{question}"


def sum_in(question: str) -> str:
    """A question's sum as a fact is written: "3+4"."""
    a, sign, b = re.search(r"(\d) ?([-+加减]) ?(\d)", question).groups()
    return a + {"加": "+", "减": "-"}.get(sign, sign) + b


@pytest.mark.parametrize("language", world.LANGUAGES)
@pytest.mark.parametrize("kind", ["recall", "counts"])
def test_no_story_of_a_held_out_chat_is_told_in_training(kind, language):
    """The facts of a chat are those that its story tells: of which people, doing what, being where, having what at first."""
    t = texts.TONGUES[language]
    told = {}
    for split in texts.SPLITS:
        drawn = list(islice(world.chats(4, split=split, language=language, kind=kind), 200))
        for chat in drawn[:30]:
            state = read_short_story(t, next(turn.split(t.ask)[0] for turn in questions(chat) if t.ask in turn))
            assert chat.facts == ";".join(state.facts)
        told[split] = {chat.facts for chat in drawn}
        assert {texts.held_out(facts) for facts in told[split]} == {split == "heldout"}
        assert len(told[split]) > 150
    assert not told["train"] & told["heldout"]


def program_in(question: str) -> str:
    """What a program is to print, as a fact is written: "program 3+4", "program egg*2"."""
    if found := re.search(r"(\d) ([-+]) (\d)", question):
        return "program " + "".join(found.groups())
    word, times = re.search(r'"(.+)"\D*(\d)', question).groups()
    return f"program {word}*{times}"


def test_the_calculator_tool_is_called_with_the_question():
    for chat in islice(world.chats(4, language="zh", kind="calculator"), 10):
        asked, called, result, said = chat.messages[-4:]
        call = called["tool_calls"][0]["function"]
        assert asked["content"].startswith(call["arguments"]["expression"])
        assert calculator(**call["arguments"]) == result["content"]
        assert said["content"] == f"{result['content']}。"


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_a_chat_may_come_to_speak_of_something_else_and_back(language):
    drawn = [[kind_of(turn) for turn in questions(chat)] for chat in islice(world.chats(6, language=language), 600)]
    assert 0.2 < sum(len(set(kinds)) > 1 for kinds in drawn) / len(drawn) < 0.4
    for kind in ALONE:
        assert sum(kind in kinds[:-1] and kinds[-1] != kind for kinds in drawn) > 5
    assert sum(re.search("story (?!story)[a-z ]+ story", " ".join(kinds)) is not None for kinds in drawn) > 20
    assert sum(kinds[0] == "story" and kinds[-1] in ALONE for kinds in drawn) > 10


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_what_comes_up_in_between_is_answered_as_it_is_alone(language):
    said = {"greeting": "hello_answer", "identity": "who_answer", "decline": "outside_answer"}
    spoken = set()
    for chat in islice(world.chats(6, language=language), 600):
        for turn, reply in zip(chat.messages, chat.messages[1:], strict=False):
            kind = kind_of(turn["content"]) if turn["role"] == "user" else ""
            if kind in said:
                code = "en" if turn["content"].isascii() else "zh"
                assert reply["content"] == WORDS[code][said[kind]]
                spoken.add(code)
            elif kind == "calculator":
                assert reply["tool_calls"]
    assert spoken == set(WORDS)


def test_held_out_questions_of_every_asked_kind_exist():
    for kind in ASKED:
        assert len(list(islice(world.chats(0, split="heldout", kind=kind), 5))) == 5


def test_cutting_words_loses_nothing():
    for document in drawn(50):
        assert "".join(cut_words(document.text)) == "".join(cut_nouns(document.text)) == document.text


def test_sampling_follows_the_probabilities():
    choice = Choice([("a", 3, 0), ("b", 1, 1)])
    rng = random.Random(0)
    share = sum(choice.draw(rng) == 0 for _ in range(4000)) / 4000
    assert abs(share - 0.75) < 0.03
    assert texts.FIRST.probability(0) > 0


@pytest.mark.parametrize("warm", [True, False])
def test_preferences_by_style_are_both_right(warm):
    asked = (chat for chat in world.chats(3) if len(chat.accepts) == 2)
    for chat, pair in islice(zip(asked, world.preferences(3, warm=warm), strict=False), 500):
        assert pair.prompt == chat.asked
        assert world.grade(chat, pair.chosen)
        assert world.grade(chat, pair.rejected)
        warmer, plainer = (pair.chosen, pair.rejected) if warm else (pair.rejected, pair.chosen)
        assert warmer == WORDS[chat.language]["warm"].format(plainer)


def test_preferences_by_truth_are_of_one_style_and_one_is_wrong():
    """Of programs too what they print is another thing, not only how they are written."""
    asked, kinds = (chat for chat in world.chats(3) if chat.kind in ASKED), Counter()
    for chat, pair in islice(zip(asked, world.preferences(3, by="truth"), strict=False), 2000):
        assert pair.prompt == chat.asked
        assert world.grade(chat, pair.chosen)
        assert not world.grade(chat, pair.rejected)
        warm = WORDS[chat.language]["warm"].format("")
        assert pair.chosen.startswith(warm) == pair.rejected.startswith(warm)
        if pair.kind == "programs":
            assert printed(pair.chosen) != printed(pair.rejected), pair
        kinds[pair.kind] += 1
    assert set(kinds) == set(ASKED)


def printed(program: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(program)
    return out.getvalue()


def test_a_preference_by_what_the_world_does_not_know_is_refused():
    with pytest.raises(DataError, match="did you mean 'style'"):
        next(world.preferences(0, by="styel"))


def test_sft_data_holds_both_styles_equally_often():
    chats = [chat for chat in islice(world.chats(8), 1500) if len(chat.accepts) == 2]
    brief = sum(chat.messages[-1]["content"] == chat.accepts[0] for chat in chats) / len(chats)
    assert abs(brief - 0.5) < 0.05


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_a_picture_shows_what_its_words_say(language):
    """Read back from the pixels alone: who is where and has how many of what, and in words it is the description."""
    t = texts.TONGUES[language]
    for picture in islice(world.pictures(0, language=language), 60):
        pixels = picture.pixels()
        assert pixels.shape == (64, 64, 3)
        assert pixels.dtype.name == "uint8"
        said = ""
        for panel in (pixels[:, :HALF], pixels[:, HALF:]):
            who, place, have = read_panel(panel)
            said += t.is_at[0].format(name=t.names[who], place=t.places[place])
            said += "".join(t.holds[0].format(name=t.names[who], things=t.things(n, what)) for what, n in have)
        assert said.strip() == picture.text


def read_panel(panel):
    colour = {tuple(map(int, pixel)) for pixel in panel.reshape(-1, 3)}
    place = PLACES.index((tuple(panel[0, 0].tolist()), tuple(panel[HORIZON, 0].tolist())))
    who = LOOKS.index((tuple(panel[4, HALF // 2].tolist()), tuple(panel[12, HALF // 2].tolist())))
    have = []
    for kind in range(KINDS_AT_MOST):
        count = 0
        for i in range(MOST):
            y, x = corner(kind, i)
            icon = panel[y : y + ICON, x : x + ICON]
            ink = (icon != panel[HORIZON, 0]).any(axis=2)
            if not ink.any():
                break
            form = next(form for form, pixels in enumerate(FORMS) if (pixels == ink).all())
            paint = tuple(icon[ink][0].tolist())
            assert paint in colour
            have, count = [*have[:kind], (THINGS.index((form, paint)), count + 1)], count + 1
    return who, place, have


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_a_picture_stands_at_the_end_of_its_story(language):
    t = texts.TONGUES[language]
    for picture in islice(world.pictures(1, language=language), 20):
        state = read_short_story(t, picture.story)
        assert [one.who for one in picture.people] == state.cast
        for one in picture.people:
            assert one.place == state.place[one.who]
            assert dict(one.have) == {what: n for what, n in state.have[one.who].items() if n}


def test_every_look_is_another_one():
    assert [len(set(looks)) for looks in (LOOKS, PLACES, THINGS)] == [30, 16, 24]
    assert [len(ENGLISH.names), len(ENGLISH.places), len(ENGLISH.one)] == [30, 16, 24]
    assert len({form.tobytes() for form in FORMS}) == len(FORMS)


def test_held_out_pictures_are_other_pictures():
    train = {picture.facts for picture in islice(world.pictures(0), 200)}
    assert not train & {picture.facts for picture in islice(world.pictures(0, split="heldout"), 30)}


@pytest.mark.parametrize("stream", ["documents", "chats", "pictures", "translations", "preferences"])
def test_a_part_of_the_world_that_does_not_exist_is_refused(stream):
    with pytest.raises(DataError, match="have no split 'held_out'; did you mean 'heldout'"):
        next(getattr(world, stream)(0, split="held_out"))
