"""Run a row and judge it: exit code, words, what changed in its folders, what it left running, how long it took."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from abuse.case import PROCESS, REAL, TOY, TOY_PROCESS, CannotTry, Case
from abuse.files import make
from abuse.hub import Hub
from abuse.judge import Outcome, change_faults, film_faults, is_slow, snapshot, words_faults
from abuse.places import OLD, begun, finished

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {PROCESS: ROOT / "inference.py", TOY_PROCESS: ROOT / "tests" / "toy.py"}
STREAMS = ("stdin", "stdout", "stderr")
TIMEOUT_S = 90  # then a run is killed, or after twice its `within_s`; slower than that is a fault before
MOST_MEMORY = 12 << 30  # bytes of address space, so that a bomb bursts in its own process


class Bench:
    """Runs cases one after the other in a folder of its own; its fork servers start when they are first needed."""

    def __init__(self, folder: Path, files: Path, hub: Hub) -> None:
        """folder: where runs take place; files: where made files are kept, shared between benches."""
        self.folder, self.files, self.hub = folder, files, hub
        self._servers: dict[str, subprocess.Popen[str]] = {}
        self._count = 0

    def close(self) -> None:
        for server in self._servers.values():
            server.kill()  # it waits for the next run and holds nothing
            server.communicate()

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
            _unlock(place)
            shutil.rmtree(place)

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
        outcome.faults += [*words_faults(case, outcome, place), *change_faults(case, before, now)]
        outcome.faults += film_faults(case, outcome, place)
        if said["timed_out"] or is_slow(case, outcome.seconds, said["cpu_s"]):
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
            "cwd_gone": case.cwd == "gone", "env": self._environment(case, place), "umask": case.umask,
            "limits": {"AS": MOST_MEMORY, **case.limits}, "user": case.user, "streams": streams,
            "signals": case.signals, "timeout_s": max(TIMEOUT_S, 2 * case.within_s),
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
            "HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "NO_PROXY": "*",
        }  # fmt: skip
        changed = {**plain, **case.env}
        return {name: self._filled(value, place / "here") for name, value in changed.items() if value is not None}

    def _filled(self, word: str, here: Path) -> str:
        return word.replace("{hub}", self.hub.address).replace("{folder}", str(here)).replace("{root}", str(ROOT))


@contextmanager
def benches(count: int) -> Iterator[list[Bench]]:
    """So many of them, with one hub and one store of files; other users may pass through their folders."""
    with tempfile.TemporaryDirectory(prefix="abuse-") as name:
        folder, hub = Path(name), Hub()
        folder.chmod(0o711)
        for part in ("files", *map(str, range(count))):
            (folder / part).mkdir()
        made = [Bench(folder / str(number), folder / "files", hub) for number in range(count)]
        try:
            yield made
        finally:
            for bench in made:
                bench.close()
            hub.close()


def _unlock(folder: Path) -> None:
    """Give folders that a row has locked back to whoever removes them."""
    folder.chmod(0o700)
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            _unlock(Path(entry.path))


def named_files(case: Case) -> set[str]:
    """Names in the words that may stand for a file of the registry."""
    words = [part for word in case.words for part in (word, word.partition("=")[2])]
    return {*case.also, *words, *(word.rpartition("/")[2] for word in words)} - {"", "film.mp4"}
