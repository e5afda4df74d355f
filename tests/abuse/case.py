"""One run of the command line as a row of a table: what it is given, how it must end, what it may leave behind."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOY = "toy"  # kdtalker.apps.cli.main over the toy engine, in a process forked from one that has imported everything
REAL = "real"  # the same over the program's own engines
TOY_PROCESS = "toy process"  # `python tests/toy.py`, a fresh interpreter
PROCESS = "process"  # `python inference.py`, a fresh interpreter

FILM = "--image face.png --audio voice.wav --output film.mp4"
REAL_FILM = "--image hopper.jpg --audio word.wav --output film.mp4"
LONGEST_S = 30.0  # for everything but a film of half an hour
REFUSED_WITHIN_S = 3.0  # a call that cannot be, of whatever kind
OUTPUTS = ("--output", "--save-motion")

Signal = tuple[str, float, str]  # ("cpu", after so many s of the process's CPU time; "part", s after a .part file is
# there; "later", s after the signal before; the signal's name)
Maker = Callable[[Path], None]  # writes a file there
Hook = Callable[[Path], Callable[[], str] | None]  # prepares the folder; what it returns runs afterwards, tells a fault


class CannotTry(Exception):
    """This machine or user cannot set the scene; the row is skipped and counted as skipped."""


@dataclass(frozen=True)
class Case:
    """A row. Files named in the words are made from the registry in files.py, others by `also` and `before`.

    told: regular expression that the sentence on stderr (for a film: all output) must match. made: names, relative to
    the folder, that may be new or changed afterwards; by default what the words name as outputs where the code is 0.
    gone: glob patterns that must match nothing afterwards. finding: the promise it holds, V1..V20. stdin, stdout,
    stderr: "" (null device or a file), "closed", "full" (/dev/full), "broken" (a pipe that nobody reads) or "tty".
    beside: the output of another, long film that is made in the same folder meanwhile and must come out whole.
    user: "" (as the tests run), "plain" (root without its power over permissions) or "nobody" (another user id).
    within_s: longest time. frames: of the film, or (least, most). debug: a traceback is wanted.
    fast: see is_fast.
    """

    group: str
    name: str
    words: tuple[str, ...]
    code: int | tuple[int, ...]
    told: str
    made: tuple[str, ...] | None = None
    gone: tuple[str, ...] = ()
    program: str = TOY
    finding: str = ""
    also: tuple[str, ...] = ()
    before: tuple[Hook, ...] = ()
    beside: str = ""
    env: Mapping[str, str | None] = field(default_factory=dict)
    python: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    umask: int = 0o022
    cwd: str = "."
    user: str = ""
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    signals: tuple[Signal, ...] = ()
    within_s: float = LONGEST_S
    frames: int | tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    debug: bool = False
    fast: bool | None = None

    @property
    def id(self) -> str:
        """Group and name, on one line."""
        name = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in self.name)
        return f"{self.group}: {name}"

    @property
    def is_fast(self) -> bool:
        """Whether `make test` runs it: as `fast` says, else where a call must be refused at once."""
        if self.fast is not None:
            return self.fast
        return self.program == TOY and self.within_s <= REFUSED_WITHIN_S and 0 not in self.codes

    @property
    def codes(self) -> tuple[int, ...]:
        return (self.code,) if isinstance(self.code, int) else self.code

    @property
    def outputs(self) -> tuple[str, ...]:
        """What may be new or changed."""
        if self.made is not None:
            return self.made
        if 0 not in self.codes:
            return ()
        return tuple(value for flag, value in zip(self.words, self.words[1:], strict=False) if flag in OUTPUTS)


def table(group: str, code: int | tuple[int, ...], *rows: tuple[Any, ...], **common: Any) -> list[Case]:
    """Rows (name, words, told) or (name, words, told, {fields}); common: fields of all of them."""
    cases = []
    for name, words, told, *more in rows:
        parts = tuple(shlex.split(words)) if isinstance(words, str) else tuple(words)
        fields = {**common, **(more[0] if more else {})}
        cases.append(Case(group, name, parts, fields.pop("code", code), told, **fields))
    return cases
