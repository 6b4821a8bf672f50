"""Pairs say the same in both languages: the same people, places, works, counts and events, in the same order."""

import math
import re
from itertools import islice

import pytest

from chainrule.core.errors import DataError
from chainrule.world.chinese import CHINESE
from chainrule.world.english import ENGLISH
from chainrule.world.texts import logp
from chainrule.world.translations import ABSENT, chinese, translations

BY_HAND = {
    "Tom": "小明", "Anna": "小红", "Eve": "冯程", "library": "图书馆", "room": "仙II-212", "park": "公园", "harbor": "港口",
    "apple": "苹果", "jar": "罐子", "toy": "玩具", "spoon": "勺子", "teacher": "老师", "porter": "搬运工", "young": "年轻的",
    "wise": "智慧的", "sweet": "可爱的", "merry": "活泼的", "loyal": "忠诚的", "modest": "谦虚的", "quickly": "很快", "again": "又",
    "went to": "去了", "rode to": "骑车去了", "borrowed": "借了", "broke": "打碎了", "gave": "送给", "became a": "当上了",
    "praised": "表扬了", "There was a": "从前有一位", "I know a": "我认识一位", "Now": "现在",
    "So": "这样", "stays in": "待在", "owns": "拥有", "works as": "的工作是", "started work as a": "改行做了", "works out": "算一算",
}  # fmt: skip


def told(n=300, **rest):
    return list(islice(translations(0, **rest), n))


def found(text: str, words: dict[str, str], english: bool) -> list[str]:
    """The words of a list in the order in which a text says them, by their English."""
    keys = {en: en for en in words} if english else {zh: en for en, zh in words.items()}
    longest_first = sorted(keys, key=len, reverse=True)
    edge = (r"\b(?:", r")s?\b") if english else ("(?:", ")")
    return [keys[re.sub("s$", "", one) if english and one not in keys else one]
            for one in re.findall(edge[0] + "|".join(map(re.escape, longest_first)) + edge[1], text)]  # fmt: skip


def test_words_chosen_by_hand_stand_in_both_texts_equally_often():
    pairs = told(800)
    seen = set()
    for one in pairs:
        for en, zh in BY_HAND.items():
            there = len(re.findall(rf"(?<![\w]){en}s?\b", one.en))
            if there:
                seen.add(en)
            assert there <= one.zh.count(zh), (en, one)
    assert len(seen) > 25


@pytest.mark.parametrize("field", ["names", "places", "one", "jobs", "natures"])
def test_every_list_is_said_in_the_same_order(field):
    words = {
        en.removeprefix("the ").strip(): zh for en, zh in zip(getattr(ENGLISH, field), getattr(chinese(), field), strict=True)
    }
    words = {en: zh for en, zh in words.items() if zh != ABSENT}
    for one in told():
        assert found(one.en, words, True) == found(one.zh, words, False), one


def test_the_numbers_are_the_same():
    for one in told():
        english = re.sub(r"\bno\b(?= \w+s\.)", "0", one.en)
        assert re.findall(r"\d+", english) == re.findall(r"\d+", one.zh.replace("仙II-212", "")), one


def test_each_word_has_one_translation():
    for field in ("places", "one", "natures"):
        words = [word for word in getattr(chinese(), field) if word != ABSENT]
        assert len(words) == len(set(words))
        assert set(words) <= set(getattr(CHINESE, field))
    assert not any(word in one.en + one.zh for one in told(600) for word in (ABSENT, "rose", "花瓶", "frank", "热心"))


def test_both_sides_with_an_ending_are_stories_of_the_world():
    """Their probability under the whole world is not zero, though nobody drew them there."""
    pairs = [one for one in told(60) if one.en.count("person called") == 2]
    assert len(pairs) > 20
    for one in pairs:
        assert math.isfinite(logp(f"{one.en} The end.")), one.en
        assert math.isfinite(logp(f"{one.zh}故事讲完了。")), one.zh


def test_held_out_pairs_are_those_of_the_hash_and_no_fact_is_in_both():
    train, held = told(500), told(60, split="heldout")
    assert all(one.split == "train" for one in train)
    assert all(one.split == "heldout" for one in held)
    assert not {one.facts for one in train} & {one.facts for one in held}
    assert told(5) == told(5)


def test_sizes_are_kept_and_impossible_ones_refused():
    assert all(one.en.count(" called ") == 1 for one in told(30, people=1))
    assert all(len(re.findall(r"[.。]", one.zh)) == 4 for one in told(30, people=1))
    assert max(one.en.count("person called") for one in told(60, people=3)) == 3
    with pytest.raises(DataError, match="people=9"):
        next(translations(0, people=9))
