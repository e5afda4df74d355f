"""Read configs: a TOML file over the defaults of a frozen dataclass; unknown keys are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import tomli

from kdtalker.core.errors import InputError

ConfigT = TypeVar("ConfigT")
_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word in quotes",
    Path: "a path in quotes",
}


def read_config(path: Path, presets: Mapping[str, ConfigT]) -> ConfigT:
    """Read a TOML config over the preset that it names under `preset`, or over the first one.

    Raises InputError for a file that is missing or not TOML, and for keys and values that do not fit."""
    try:
        table = tomli.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The config '{path}' cannot be read ({error}), wanted a TOML file.") from None
    except tomli.TOMLDecodeError as error:
        raise InputError(f"The config '{path}' is not TOML: {error}.") from None
    name = table.pop("preset", next(iter(presets)))
    if name not in presets:
        raise InputError(f"The config '{path}' names the preset {name!r}, known are {', '.join(presets)}.")
    return overlay(presets[name], table, f"The config '{path}'")


def overlay(defaults: ConfigT, table: Mapping[str, object], place: str) -> ConfigT:
    """Replace fields of a dataclass by a table's values; nested tables overlay the dataclass of that name.

    place: where the table stands, for error sentences. Raises InputError for unknown keys and wrong types."""
    kinds = get_type_hints(type(defaults))
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in kinds:
            nearest = get_close_matches(name, kinds, 1, cutoff=0)[0]
            raise InputError(f"{place} has the unknown key '{name}'; did you mean '{nearest}'?")
        known = getattr(defaults, name)
        if is_dataclass(known) and isinstance(value, Mapping):
            values[name] = overlay(known, value, f"{place}, table [{name}],")
        else:
            values[name] = _convert(value, kinds[name], f"{place} gives '{name}' as {value!r}")
    return replace(defaults, **values)  # type: ignore[type-var]


def _convert(value: object, kind: Any, found: str) -> Any:
    """Check a TOML value against a field's type and convert it; found: the sentence that error messages begin with."""
    kind = get_args(kind)[0] if get_origin(kind) is UnionType else kind  # of several kinds of table
    if is_dataclass(kind):
        raise InputError(f"{found}, wanted a table with {', '.join(field.name for field in fields(kind))}.")
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis and isinstance(value, list):
            kinds = kinds[:1] * len(value)
        if not isinstance(value, list) or len(value) != len(kinds):
            wanted = "a list" if kinds[-1] is Ellipsis else f"{len(kinds)} numbers"
            raise InputError(f"{found}, wanted {wanted} in brackets.")
        return tuple(_convert(one, kind, found) for one, kind in zip(value, kinds, strict=True))
    accepted: Any = {float: (int, float), Path: str}.get(kind, kind)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{found}, wanted {_TYPE_NAMES[kind]}.")
    return kind(value)
