"""Typed settings from plain data: frozen dataclasses in, frozen dataclasses out, nothing unknown let through.

A recipe, a model's config and every part of it are dataclasses. ``parse`` builds one from the nested dictionaries of
YAML or JSON and refuses an unknown key, naming the nearest known one; ``dump`` gives the dictionaries back. Where a
field may be one of several dataclasses, the literal field ``kind`` tells them apart. Imports no torch.
"""

# pyright: basic
# (what comes out of a YAML file has no types yet: giving it some is this file's work)

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from chainrule.core.errors import ConfigError, nearest

T = TypeVar("T")


def parse(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """An instance of the dataclass ``cls`` from nested dictionaries; ``where`` prefixes keys in error messages.

    Raises ``ConfigError`` for unknown, missing or mistyped keys.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or cls.__name__} is {data!r}; it must be a table of keys and values")
    hints = get_type_hints(cls)
    settings: Any = cls
    fields = {field.name: field for field in dataclasses.fields(settings) if field.init}
    for key in data:
        if key not in fields:
            raise ConfigError(f"unknown key {_path(where, str(key))!r}{nearest(str(key), fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ConfigError(f"{_path(where, name)!r} is missing; {cls.__name__} needs it")
    return cls(**{key: _value(hints[key], value, _path(where, key)) for key, value in data.items()})


def dump(value: Any) -> Any:
    """Plain data (dictionaries, lists, numbers, text) from dataclasses; the inverse of ``parse``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: dump(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: dump(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [dump(item) for item in value]
    return value


def _is_settings(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


def _path(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where!r} is {value!r}; it must be one of {', '.join(map(repr, args))}")
        return value
    if origin in (Union, UnionType):
        return _one_of(args, value, where)
    if _is_settings(hint):
        return value if isinstance(value, hint) else parse(hint, value, where)
    if origin in (tuple, list):
        return _sequence(origin, args, value, where)
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where!r} is {value!r}; it must be a table of keys and values")
        return {key: _value(args[1], item, _path(where, str(key))) for key, item in value.items()}
    return _scalar(hint, value, where)


def _one_of(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and NoneType in args:
        return None
    classes = [arg for arg in args if _is_settings(arg)]
    if isinstance(value, Mapping) and classes:
        if len(classes) == 1:
            return parse(classes[0], value, where)
        kinds = {get_args(get_type_hints(cls)["kind"])[0]: cls for cls in classes}
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            raise ConfigError(f"{where!r} has kind {kind!r}{nearest(str(kind), map(str, kinds))}")
        return parse(kinds[kind], value, where)
    errors: list[str] = []
    for arg in args:
        if arg is not NoneType:
            try:
                return _value(arg, value, where)
            except ConfigError as error:
                errors.append(str(error))
    raise ConfigError(errors[0])


def _sequence(origin: Any, args: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where!r} is {value!r}; it must be a list")
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(value) != len(args):
            raise ConfigError(f"{where!r} has {len(value)} items; it must have {len(args)}")
        hints = list(args)
    else:
        hints = [args[0] if args else Any] * len(value)
    return origin(_value(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(hints, value, strict=True)))


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        name = getattr(hint, "__name__", str(hint))
        raise ConfigError(f"{where!r} is {value!r}; it must be {'an' if name[0] in 'aeiou' else 'a'} {name}")
    return value
