"""Settings are typed, and nothing unknown is let through."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from chainrule.core.errors import ConfigError
from chainrule.core.schema import dump, parse


@dataclass(frozen=True, kw_only=True)
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Square:
    kind: Literal["square"] = "square"
    side: int


@dataclass(frozen=True, kw_only=True)
class Drawing:
    name: str
    shape: Circle | Square
    more: tuple[Circle | Square, ...] = ()
    size: tuple[int, int] = (1, 1)
    note: str | None = None
    weights: dict[str, float] = field(default_factory=dict)


def test_what_is_dumped_is_parsed_again() -> None:
    drawing = Drawing(name="a", shape=Square(side=2), more=(Circle(radius=0.5),), weights={"x": 1.5})
    assert parse(Drawing, dump(drawing)) == drawing


def test_an_integer_may_stand_where_a_number_is_wanted_but_not_the_other_way() -> None:
    assert parse(Circle, {"radius": 2}).radius == 2.0
    with pytest.raises(ConfigError, match=r"'side' is 2.5; it must be an int"):
        parse(Square, {"side": 2.5})


def test_true_is_not_the_number_one() -> None:
    with pytest.raises(ConfigError, match="it must be an int"):
        parse(Square, {"side": True})


def test_an_unknown_key_names_its_path_and_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'shape\.raduis'; did you mean 'radius'\?"):
        parse(Drawing, {"name": "a", "shape": {"kind": "circle", "raduis": 1}})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'shape\.side' is missing"):
        parse(Drawing, {"name": "a", "shape": {"kind": "square"}})


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'shape' has kind 'cirle'; did you mean 'circle'\?"):
        parse(Drawing, {"name": "a", "shape": {"kind": "cirle"}})


def test_a_list_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="'size' has 3 items; it must have 2"):
        parse(Drawing, {"name": "a", "shape": {"kind": "circle"}, "size": [1, 2, 3]})


def test_a_text_is_no_number() -> None:
    for said in ("1", "1e-3", "nan"):
        with pytest.raises(ConfigError, match="must be a float"):
            parse(Circle, {"radius": said})
