"""What is wrong with a run: its exit code, its words, what it left or changed, its film, how long it took."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
from toy import PROGRESS

from abuse.case import Case

NOTE = "kdtalker: note: "


@dataclass
class Outcome:
    """How a run ended. faults: (kind, what) with the kinds of KINDS; skipped: why it was not tried."""

    case: Case
    code: int = 0
    seconds: float = 0.0
    stdout: str = ""
    stderr: str = ""
    faults: list[tuple[str, str]] = field(default_factory=list)
    skipped: str = ""

    def line(self) -> str:
        """What went wrong, in one line."""
        faults = "; ".join(f"{kind}: {what}" for kind, what in self.faults)
        said = (self.stderr.strip().splitlines() or [""])[-1]
        finding = f" [{self.case.finding}]" if self.case.finding else ""
        return f"{self.case.id}{finding}: {faults} | {said[:300]}"


KINDS = ("traceback", "code", "words", "left", "slow")


def is_slow(case: Case, seconds: float, cpu_s: float) -> bool:
    """Whether it took too long, and not for want of a processor that others were using."""
    return seconds > case.within_s and (cpu_s > case.within_s or seconds > 10 * case.within_s)


def snapshot(place: Path) -> dict[str, str]:
    """All names under the three folders, relative to the first: kind and sha256, target of a link, or device."""
    return {os.path.relpath(path, place / "here"): _told(path) for path in sorted(_walk(place))}


def _walk(folder: Path) -> list[Path]:
    found = []
    with _readable(folder):
        entries = list(os.scandir(folder))
        for entry in entries:
            found.append(Path(entry.path))
            if entry.is_dir(follow_symlinks=False):
                found += _walk(Path(entry.path))
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Give an ordinary user who runs the tests a look into what a row has locked."""
    mode = path.lstat().st_mode
    if os.geteuid() != 0:
        path.chmod(mode | 0o700)
    try:
        yield
    finally:
        if os.geteuid() != 0:
            path.chmod(mode)


def _told(path: Path) -> str:
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        with _readable(path):
            return f"file {hashlib.sha256(path.read_bytes()).hexdigest()}"
    if stat.S_ISLNK(status.st_mode):
        return f"link to {os.readlink(path)}"
    return f"{stat.filemode(status.st_mode)[0]} {status.st_rdev}"


def change_faults(case: Case, before: dict[str, str], now: dict[str, str]) -> list[tuple[str, str]]:
    may = {os.path.normpath(name) for name in case.outputs}
    faults = [("left", name) for name in sorted(now.keys() - before.keys()) if name not in may]
    faults += [("left", f"{name} is still there") for name in now if any(Path(name).match(glob) for glob in case.gone)]
    gone = [name for name in before.keys() - now.keys() if not any(Path(name).match(glob) for glob in case.gone)]
    faults += [("left", f"{name} is gone") for name in gone]
    changed = [name for name in before.keys() & now.keys() if before[name] != now[name] and name not in may]
    return [*faults, *(("left", f"{name} is another now") for name in changed)]


def words_faults(case: Case, outcome: Outcome, place: Path) -> list[tuple[str, str]]:
    faults, everything = [], outcome.stderr + outcome.stdout
    if "Traceback" in everything and not case.debug:
        faults.append(("traceback", (outcome.stderr.strip().splitlines() or [""])[-1][:200]))
    if outcome.code not in case.codes:
        faults.append(("code", f"{outcome.code}, wanted {' or '.join(map(str, case.codes))}"))
    if case.debug or case.stderr in ("closed", "full", "broken"):
        return faults
    lines = [line for line in re.split(r"[\r\n]+", outcome.stderr) if line.strip()]
    ours = [line for line in lines if line.startswith("kdtalker: ") and not line.startswith(NOTE)]
    foreign = [line for line in lines if not line.startswith("kdtalker: ")]
    noise = [line for line in foreign if "--quiet" in case.words or not PROGRESS.match(line)]
    if noise and case.stderr != "tty":
        faults.append(("words", f"noise: {noise[0][:200]}"))
    wanted = 0 if outcome.code == 0 else 1
    silent_end = outcome.code >= 128 or outcome.code < 0
    if len(ours) != wanted and not (silent_end and not ours):
        faults.append(("words", f"{len(ours)} lines that begin with 'kdtalker: ', wanted {wanted}"))
    if outcome.code != 0 and outcome.stdout and case.stdout != "tty":
        faults.append(("words", f"stdout: {outcome.stdout[:100]}"))
    text = everything if outcome.code == 0 else " ".join(ours)
    told = case.told.replace("{folder}", re.escape(str(place / "here")))
    if outcome.code in case.codes and not re.search(told, text, re.DOTALL):
        faults.append(("words", f"nothing matches {case.told!r}"))
    return faults


def film_faults(case: Case, outcome: Outcome, place: Path) -> list[tuple[str, str]]:
    """A run that ends in 0 has made what was asked for, and the film can be played."""
    if outcome.code != 0 or 0 not in case.codes:
        return []
    faults = []
    for name in case.outputs:
        path = place / "here" / name
        if not path.exists():
            faults.append(("words", f"code 0, but there is no {name}"))
        elif path.suffix.lower() in (".mp4", ".mov", ".webm", ".gif"):
            try:
                frames, size = _read_film(path)
            except (av.FFmpegError, OSError, IndexError) as error:
                faults.append(("words", f"{name} cannot be played ({error})"))
                continue
            least, most = case.frames if isinstance(case.frames, tuple) else (case.frames or 1, case.frames or 1 << 30)
            if not least <= frames <= most:
                faults.append(("words", f"{name} has {frames} frames, wanted {case.frames}"))
            if case.size and size != case.size:
                faults.append(("words", f"{name} is {size} px, wanted {case.size}"))
    return faults


def _read_film(path: Path) -> tuple[int, tuple[int, int]]:
    with path.open("rb") as file, av.open(file) as film:
        frames = sum(1 for _ in film.decode(video=0))
        return frames, (film.streams.video[0].width, film.streams.video[0].height)
