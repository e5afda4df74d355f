"""Describe a weight file: a row of the table of weights."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GITHUB = "https://raw.githubusercontent.com"  # server of single files of GitHub repositories


@dataclass(frozen=True)
class RemoteSource:
    """Locate a published file: a repository of the Hugging Face hub (or of GitHub) and the path in it."""

    repository: str
    path: str
    github: bool = False

    @property
    def url(self) -> str:
        """Return the download URL."""
        if self.github:
            return f"{GITHUB}/{self.repository}/main/{self.path}"
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.path}"

    def __str__(self) -> str:
        return f"{'github.com' if self.github else 'huggingface.co'}/{self.repository}/{self.path}"


@dataclass(frozen=True)
class Weight:
    """Describe a weight file: checksum, licence, provenance, purpose.

    file: its path in the package or, with `published` (the sources that others publish it at), its name in a weights
    folder. bytes, sha256: None if unpublished; for a published file they are unverified hints. contents: names that the
    file must have at its top level.
    """

    file: str
    bytes: int | None
    sha256: str | None
    licence: str
    source: str
    purpose: str
    published: tuple[RemoteSource, ...] = ()
    contents: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the file name, by which it is looked up."""
        return Path(self.file).name

    def command(self, folder: Path | None = None) -> str:
        """Return the shell command that fetches this published file, into the folder if given."""
        return fetch_command([self], folder)

    def repair_hint(self, folder: Path | None = None) -> str:
        """Suggest how to replace a damaged file, for an error message."""
        return f"`{self.command(folder)}` fetches them again" if self.published else "install kdtalker again"


def fetch_command(weights: Sequence[Weight], folder: Path | None = None) -> str:
    """Build the shell command that fetches published files, into the folder if given."""
    names = " ".join(weight.name for weight in weights)
    return f"kdtalker weights get {names}{f' --weights {shlex.quote(str(folder))}' if folder else ''}"
