"""Configs: a TOML file laid over the defaults of a frozen dataclass. What the dataclass does not know is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import tomli

from kdtalker.core.errors import InputError

Config = TypeVar("Config")
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word in quotes",
    Path: "a path in quotes",
}


def read_config(path: Path, presets: Mapping[str, Config]) -> Config:
    """The preset that the file names under `preset`, or the first one, with all else that the file says. Raises
    InputError for a file that is not there or no TOML, and for keys and values that do not fit."""
    try:
        table = tomli.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The config '{path}' cannot be read ({error}), wanted a TOML file.") from None
    except tomli.TOMLDecodeError as error:
        raise InputError(f"The config '{path}' is not TOML: {error}.") from None
    name = table.pop("preset", next(iter(presets)))
    if name not in presets:
        raise InputError(f"The config '{path}' names the preset {name!r}, known are {', '.join(presets)}.")
    return overlaid(presets[name], table, f"The config '{path}'")


def overlaid(defaults: Config, table: Mapping[str, object], place: str) -> Config:
    """`defaults` with the values of the table; a table within it lies over the dataclass of that name."""
    kinds = get_type_hints(type(defaults))
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in kinds:
            nearest = get_close_matches(name, kinds, 1, cutoff=0)[0]
            raise InputError(f"{place} has the unknown key '{name}'; did you mean '{nearest}'?")
        known = getattr(defaults, name)
        if is_dataclass(known) and isinstance(value, Mapping):
            values[name] = overlaid(known, value, f"{place}, table [{name}],")
        else:
            values[name] = _value(value, kinds[name], f"{place} gives '{name}' as {value!r}")
    return replace(defaults, **values)  # type: ignore[type-var]


def _value(value: object, kind: Any, told: str) -> Any:
    """The value as that kind of thing."""
    if is_dataclass(kind):
        raise InputError(f"{told}, wanted a table with {', '.join(field.name for field in fields(kind))}.")
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis and isinstance(value, list):
            kinds = kinds[:1] * len(value)
        if not isinstance(value, list) or len(value) != len(kinds):
            wanted = "a list" if kinds[-1] is Ellipsis else f"{len(kinds)} numbers"
            raise InputError(f"{told}, wanted {wanted} in brackets.")
        return tuple(_value(one, kind, told) for one, kind in zip(value, kinds, strict=True))
    accepted = {float: (int, float), Path: str}.get(kind, kind)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{told}, wanted {_WORDS[kind]}.")
    return kind(value)
