"""Every file that a row may name, made by code: name -> function that writes it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from abuse.checkpoints import CHECKPOINTS
from abuse.films import FILMS
from abuse.motions import MOTIONS
from abuse.pictures import PICTURES
from abuse.sounds import SOUNDS
from abuse.templates import TEMPLATES
from abuse.weight_files import WEIGHTS

FILES = {**PICTURES, **SOUNDS, **FILMS, **MOTIONS, **TEMPLATES, **CHECKPOINTS, **WEIGHTS}


def make(name: str, kept: Path, folder: Path) -> None:
    """Put the file of that name, if it is one of the registry, into the folder; it is made once and copied."""
    if name not in FILES:
        return
    path = kept / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=kept) as folder_of_one:  # two may make it at once
            FILES[name](Path(folder_of_one, name))
            Path(folder_of_one, name).replace(path)
    shutil.copy(path, folder / name)
