"""Measure a process with all its descendants: wall-clock time, processor time, peak memory (Linux)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

SAMPLING_S = 0.05  # between two samples of memory
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Usage:
    """Hold the cost of one run of a command: wall-clock time in s, processor time (user and system) of its process tree
    in s, and the largest sum of the tree's resident sets in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measure_command(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Usage:
    """Run a command to its end. environment: variables added to this process's. Raises CalledProcessError where the
    command fails, and prints what it had printed."""
    environment, ended, peaks = {**os.environ, **(environment or {})}, Event(), [0.0]
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process:

            def sample() -> None:
                while not ended.wait(SAMPLING_S):
                    peaks.append(tree_mb(process.pid))

            sampler = Thread(target=sample)
            sampler.start()
            try:
                _, status, resources = os.wait4(process.pid, 0)
                wall_s = time.perf_counter() - began
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                ended.set()
                sampler.join()
        if process.returncode:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace"))
            raise subprocess.CalledProcessError(process.returncode, command)
    return Usage(wall_s, resources.ru_utime + resources.ru_stime, max(peaks))


def resident_mb() -> float:
    """Return the resident set of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_MB


def tree_mb(root: int) -> float:
    """Sum the resident sets in MB of a process and its descendants; libraries that programs share count for each. A
    child that still has its parent's command line is a fork of it, before its own program begins: it shares the
    parent's memory and counts nothing."""
    waiting, total = [(str(root), b"")], 0.0
    while waiting:
        process, parents_command = waiting.pop()
        folder = Path("/proc", process)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            resident_mb = int((folder / "statm").read_text().split()[1]) * PAGE_MB
            command = (folder / "cmdline").read_bytes()
            total += 0 if command == parents_command else resident_mb
            for children in folder.glob("task/*/children"):
                waiting += [(child, command) for child in children.read_text().split()]
    return total
