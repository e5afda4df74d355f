"""Run a row and judge it: exit code, words, what changed in its folders, what it left running, how long it took."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av

from abuse.case import PROCESS, REAL, TOY, TOY_PROCESS, CannotTry, Case
from abuse.files import make
from abuse.hub import Hub
from abuse.places import OLD, begun, finished

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {PROCESS: ROOT / "inference.py", TOY_PROCESS: ROOT / "tests" / "toy.py"}
STREAMS = ("stdin", "stdout", "stderr")
TIMEOUT_S = 60  # then a run is killed, or after twice its `within_s`; slower than that is a fault before
MOST_MEMORY = 12 << 30  # bytes of address space, so that a bomb bursts in its own process
NOTE = "kdtalker: note: "
NOISE = re.compile(r"warn|error|traceback|exception|@ 0x|\.py\b|^\s|^\[|^[EWI]\d{4} |libpng|libjpeg", re.IGNORECASE)


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


class Bench:
    """Runs cases one after the other in a folder of its own; its fork servers start when they are first needed."""

    def __init__(self, folder: Path, files: Path, hub: Hub) -> None:
        """folder: where runs take place; files: where made files are kept, shared between benches."""
        self.folder, self.files, self.hub = folder, files, hub
        self._servers: dict[str, subprocess.Popen[str]] = {}
        self._count = 0

    def close(self) -> None:
        for server in self._servers.values():
            server.stdin.close()
            server.wait()

    def run(self, case: Case) -> Outcome:
        self._count += 1
        place = self.folder / str(self._count)
        here = place / "here"
        for name in ("here", "home", "tmp"):
            (place / name).mkdir(parents=True)
        after: list = []
        try:
            self._furnish(case, here, after)
            return self._tried(case, place, after)
        except CannotTry as reason:
            return Outcome(case, skipped=str(reason))
        finally:
            for undo in reversed(after):
                undo()
            shutil.rmtree(place, ignore_errors=True)

    def _furnish(self, case: Case, here: Path, after: list) -> None:
        for name in sorted(named_files(case)):
            make(name, self.files, here)
        if case.program in (TOY, TOY_PROCESS):
            for name in ("face.png", "voice.wav"):
                make(name, self.files, here)
        if not (here / "film.mp4").exists():
            (here / "film.mp4").write_bytes(OLD)
        for hook in case.before:
            if (undo := hook(here)) is not None:
                after.append(undo)
        if case.user == "nobody" and os.geteuid() == 0:
            for path in (here.parent, *here.parent.rglob("*")):
                os.chown(path, 65534, 65534, follow_symlinks=False)

    def _tried(self, case: Case, place: Path, after: list) -> Outcome:
        before = snapshot(place)
        beside = begun(place / "here", case.beside) if case.beside else None
        said = self._ask(case, place)
        wrong = finished(beside, place / "here" / case.beside) if beside else ""
        outcome = Outcome(case, said["status"], said["seconds"], said["stdout"], said["stderr"])
        outcome.faults += [("left", wrong)] if wrong else []
        now = snapshot(place)
        for undo in reversed(after):
            told = undo()
            if told:
                outcome.faults.append(("left", told))
        after.clear()
        outcome.faults += [("left", f"process {name}") for name in said["orphans"]]
        outcome.faults += [*_words(case, outcome, place), *_changes(case, before, now), *_films(case, outcome, place)]
        outcome.faults += [("left", f"{name} is still there") for name in _still(case, place / "here")]
        if said["timed_out"] or outcome.seconds > case.within_s:
            outcome.faults.append(("slow", f"{outcome.seconds:.1f} s, wanted at most {case.within_s:g}"))
        return outcome

    def _ask(self, case: Case, place: Path) -> dict:
        here, streams = place / "here", []
        for name in STREAMS:
            kind = getattr(case, name)
            path = place / name
            path.touch()
            path.chmod(0o666)
            streams.append(kind or ("/dev/null" if name == "stdin" else str(path)))
        words = [self._filled(word, here) for word in case.words]
        script = PROGRAMS.get(case.program)
        ask = {
            "engine": "real" if case.program == REAL else "toy", "words": words, "cwd": str(here / case.cwd),
            "command": [sys.executable, *case.python, str(script), *words] if script else None,
            "cwd_gone": case.cwd == "gone", "env": self._environment(case, place), "limits": {"AS": MOST_MEMORY, **case.limits},
            "umask": case.umask, "user": case.user, "streams": streams, "signals": case.signals, "timeout_s": max(TIMEOUT_S, 2 * case.within_s),
        }  # fmt: skip
        if case.cwd == "gone":
            ask["cwd"] = str(here)
        server = self._server(case.program)
        server.stdin.write(json.dumps(ask) + "\n")
        server.stdin.flush()
        said = json.loads(server.stdout.readline())
        for name in STREAMS[1:]:
            text = (place / name).read_text("utf-8", "replace")
            said[name] = said["tty"] if getattr(case, name) == "tty" else text
            (place / name).unlink()
        (place / "stdin").unlink()
        return said

    def _server(self, program: str) -> subprocess.Popen[str]:
        kind = "real" if program == REAL else "toy"
        if kind not in self._servers:
            environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TMPDIR": str(self.folder)}
            command = [sys.executable, "-m", "abuse.forks", kind]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._servers[kind] = subprocess.Popen(command, cwd=self.folder, env=environment, **pipes)
        return self._servers[kind]

    def _environment(self, case: Case, place: Path) -> dict[str, str]:
        plain = {
            "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT),
            "HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "*",
        }  # fmt: skip
        changed = {**plain, **case.env}
        return {name: self._filled(value, place / "here") for name, value in changed.items() if value is not None}

    def _filled(self, word: str, here: Path) -> str:
        return word.replace("{hub}", self.hub.address).replace("{folder}", str(here)).replace("{root}", str(ROOT))


def named_files(case: Case) -> set[str]:
    """Names in the words that may stand for a file of the registry."""
    words = [part for word in case.words for part in (word, word.partition("=")[2])]
    return {*case.also, *words, *(word.rpartition("/")[2] for word in words)} - {"", "film.mp4"}


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


def _changes(case: Case, before: dict[str, str], now: dict[str, str]) -> list[tuple[str, str]]:
    may = {os.path.normpath(name) for name in case.outputs}
    faults = [("left", name) for name in now.keys() - before.keys() if name not in may]
    gone = [name for name in before.keys() - now.keys() if not any(Path(name).match(glob) for glob in case.gone)]
    faults += [("left", f"{name} is gone") for name in gone]
    changed = [name for name in before.keys() & now.keys() if before[name] != now[name] and name not in may]
    return [*faults, *(("left", f"{name} is another now") for name in changed)]


def _still(case: Case, here: Path) -> list[str]:
    return [str(path.relative_to(here)) for glob in case.gone for path in here.glob(glob)]


def _words(case: Case, outcome: Outcome, place: Path) -> list[tuple[str, str]]:
    faults, everything = [], outcome.stderr + outcome.stdout
    if "Traceback" in everything and not case.debug:
        faults.append(("traceback", (outcome.stderr.strip().splitlines() or [""])[-1][:200]))
    if outcome.code not in case.codes:
        faults.append(("code", f"{outcome.code}, wanted {' or '.join(map(str, case.codes))}"))
    if case.debug or case.stderr in ("closed", "full", "broken"):
        return faults
    lines = [line for line in re.split(r"[\r\n]+", outcome.stderr) if line.strip()]
    ours = [line for line in lines if line.startswith("kdtalker: ") and not line.startswith(NOTE)]
    noise = [line for line in lines if not line.startswith("kdtalker: ") and NOISE.search(line)]
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


def _films(case: Case, outcome: Outcome, place: Path) -> list[tuple[str, str]]:
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
