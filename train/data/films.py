"""Find training films, with speaker and split from tables or from the layout of a corpus."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from kdtalker.core.errors import InputError

# Where the paths of a corpus name the speaker: HDTF in RD_Radio10_000.mp4, VoxCeleb in id10012/FZ7ELP9RgQM/00001.mp4.
LAYOUTS = {
    "hdtf": re.compile(r"(?P<speaker>[^/]+?)(_\d+)?\.\w+$"),
    "voxceleb": re.compile(r"(^|/)(?P<speaker>id\d{5})/"),
}
SUFFIXES = {".mp4", ".mpg", ".mpeg", ".avi", ".mov", ".mkv", ".webm", ".m4v"}


@dataclass(frozen=True)
class Film:
    """Describe a film to track: path, unique name, speaker, and split ("train" or "val")."""

    path: Path
    name: str
    speaker: str
    split: str

    @property
    def stem(self) -> str:
        """Return the name as a file name, without folders."""
        return self.name.replace("/", "__")


def read_tables(tables: list[Path]) -> dict[Path, dict[str, str]]:
    """Read tables (CSV: file, split, speaker) into rows by path. Raises InputError where one cannot be read or lacks a
    column."""
    rows: dict[Path, dict[str, str]] = {}
    for table in tables:
        try:
            with table.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                missing = {"file", "split", "speaker"} - set(reader.fieldnames or [])
                if missing:
                    raise InputError(f"The table '{table}' lacks the columns {', '.join(sorted(missing))}.")
                rows |= {(table.parent / row["file"]).resolve(): row for row in reader}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The table '{table}' cannot be read ({error}), wanted a CSV file.") from None
    return rows


def find_films(places: list[Path], tables: list[Path], layout: str | None = None) -> list[Film]:
    """List the films of files and folders in order, each once; without a row in a table the split is "train".

    Raises InputError where a path does not exist, where there are no films, or where two have the same name."""
    rows = read_tables(tables)
    films: dict[Path, Film] = {}
    names: dict[str, Path] = {}
    for place in (place.resolve() for place in places):
        if not place.exists():
            raise InputError(f"'{place}' does not exist, wanted a film or a folder of films.")
        inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        for path in inside if place.is_dir() else [place]:
            row = rows.get(path.resolve(), {})
            name = path.relative_to(place.parent if place.is_dir() else path.parent.parent).as_posix()
            speaker = row.get("speaker") or speaker_of(path, layout)
            film = Film(path, name, speaker, row.get("split") or "train")
            if films.setdefault(path.resolve(), film) is not film:
                continue
            if names.setdefault(film.stem, path) != path:
                raise InputError(f"'{names[film.stem]}' and '{path}' would both be named '{name}'; rename a folder.")
    if not films:
        raise InputError(f"No films were found in {', '.join(map(str, places))}; wanted {', '.join(sorted(SUFFIXES))}.")
    return list(films.values())


def speaker_of(path: Path, layout: str | None) -> str:
    """Parse the speaker from a path by the layout of a corpus; without a layout every film is its own speaker.

    Raises InputError for a path that does not match."""
    if layout is None:
        return f"{path.parent.name}/{path.stem}"
    match = LAYOUTS[layout].search(path.as_posix())
    if match is None:
        raise InputError(f"'{path}' is not named as films of {layout} are; leave out --layout, or give a --table.")
    return match["speaker"]
