"""The description of one weight file: a row of the table of weights."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Source:
    """A file on the network: a repository of the Hugging Face hub (or of GitHub) and the path in it."""

    repository: str
    path: str
    github: bool = False

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        if self.github:
            return f"{GITHUB}/{self.repository}/main/{self.path}"
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.path}"

    def __str__(self) -> str:
        return f"{'github.com' if self.github else 'huggingface.co'}/{self.repository}/{self.path}"


@dataclass(frozen=True)
class Weight:
    """One file and what a reader needs to know of it.

    file is its path in the package or, where `published` says where others publish it, its name in a weights folder.
    bytes and sha256 are None where nobody has said them; of a published file they are hints, which nobody has checked
    against it. contents are names that the file holds at its top level.
    """

    file: str
    bytes: int | None
    sha256: str | None
    licence: str
    source: str
    purpose: str
    published: tuple[Source, ...] = ()
    contents: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name it is asked for by: the last part of its path."""
        return Path(self.file).name

    def command(self, folder: Path | None = None) -> str:
        """What a person runs to get a published file, into the folder if there is one."""
        return fetching([self], folder)

    def remedy(self, folder: Path | None = None) -> str:
        """What helps where the file is not as it should be."""
        return f"`{self.command(folder)}` fetches them again" if self.published else "install kdtalker again"


def fetching(weights: Sequence[Weight], folder: Path | None = None) -> str:
    """What a person runs to get published files, into the folder if there is one."""
    names = " ".join(weight.name for weight in weights)
    return f"kdtalker weights get {names}{f' --weights {shlex.quote(str(folder))}' if folder else ''}"
