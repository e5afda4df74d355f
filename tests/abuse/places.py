"""What a folder holds before a run: links, pipes, devices, locked folders, full disks, what a killed run left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import imageio_ffmpeg

from abuse.case import CannotTry, Hook

ROOT = Path(__file__).resolve().parents[2]
TOY = [sys.executable, str(ROOT / "tests" / "toy.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
LONG_FILM = "--image face.png --audio long.wav --output"
LONG_FRAMES = 3000  # of long.wav
OLD = b"the film that was there before"


def folder(name: str, mode: int = 0o755) -> Hook:
    def make(here: Path) -> None:
        (here / name).mkdir(parents=True)
        (here / name).chmod(mode)

    return make


def file(name: str, content: bytes = OLD, mode: int = 0o644) -> Hook:
    def write(here: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content)
        (here / name).chmod(mode)

    return write


def mode(name: str, bits: int) -> Hook:
    """Take away (or give) permissions."""
    return lambda here: (here / name).chmod(bits)


def link(name: str, target: str) -> Hook:
    def make(here: Path) -> None:
        (here / name).unlink(missing_ok=True)
        (here / name).symlink_to(target.replace("{folder}", str(here)))

    return make


def hard_link(name: str, target: str) -> Hook:
    def make(here: Path) -> None:
        (here / name).unlink(missing_ok=True)
        (here / name).hardlink_to(here / target)

    return make


def renamed(name: str, new: str) -> Hook:
    return lambda here: (here / name).rename(here / new) and None


def copied(name: str, new: str) -> Hook:
    def copy(here: Path) -> None:
        (here / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here / name, here / new)

    return copy


def removed(name: str) -> Hook:
    return lambda here: (here / name).unlink()


def fifo(name: str) -> Hook:
    def make(here: Path) -> None:
        (here / name).unlink(missing_ok=True)
        os.mkfifo(here / name)

    return make


def device(name: str, major: int, minor: int) -> Hook:
    """A device of its own in the folder, 1 3 null, 1 5 zero, 1 7 full: nobody's /dev is at stake."""

    def make(here: Path) -> None:
        (here / name).unlink(missing_ok=True)
        try:
            os.mknod(here / name, 0o020666, os.makedev(major, minor))
            (here / name).open("rb").close()
        except OSError as error:
            raise CannotTry(f"no device can be made ({error.strerror})") from None

    return make


def socket_file(name: str) -> Hook:
    def make(here: Path) -> Callable[[], str]:
        (here / name).unlink(missing_ok=True)
        before = os.getcwd()
        os.chdir(here)  # the address of a socket is short
        try:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(name)
        finally:
            os.chdir(before)
        return lambda: listener.close() or ""

    return make


def small_disk(name: str, bytes_: int = 300_000) -> Hook:
    """A file system of that size, mounted in the folder."""

    def mount(here: Path) -> Callable[[], str]:
        place = here / name
        place.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={bytes_}", "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except OSError as error:
            raise CannotTry(f"no small disk can be mounted ({error})") from None
        if done.returncode:
            raise CannotTry("no small disk can be mounted (this takes root)")
        return lambda: subprocess.run(["umount", str(place)], check=True) and ""

    return mount


def half_an_ffmpeg(name: str) -> Hook:
    """The real one to read with, and one that gives up after a kilobyte to write with."""

    def write(here: Path) -> None:
        real = imageio_ffmpeg.get_ffmpeg_exe()
        cases = 'case "$*" in *libx264*) head -c 1000 >/dev/null; exit 1;; esac'
        (here / name).write_text(f'#!/bin/sh\n{cases}\nexec "{real}" "$@"\n')
        (here / name).chmod(0o755)

    return write


# --- other runs in the same folder ----------------------------------------------------------------------------------


def begun(here: Path, output: str) -> subprocess.Popen:
    """A long film in the making, its `.part` there."""
    process = subprocess.Popen(
        [*TOY, *LONG_FILM.split(), output], cwd=here, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 30
    while not list(here.glob(".kdtalker-*.part")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"no film was begun: {process.communicate()}")
        time.sleep(0.01)
    return process


def killed_run(here: Path) -> None:
    """A film that was begun here and killed, so that nobody could clean up after it."""
    process = begun(here, "killed.mp4")
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(here.glob(".kdtalker-*.part")), "kill -9 left nothing to sweep"
    for part in here.glob(".kdtalker-*.part"):  # its own ffmpeg may still be finishing it
        size = -1
        while size != (size := part.stat().st_size):
            time.sleep(0.2)


def finished(process: subprocess.Popen, film: Path) -> str:
    """Wait for a film that was begun; tells what is wrong with it."""
    _, said = process.communicate()
    if process.returncode != 0:
        return f"the run beside ended in {process.returncode}: {said.decode()[-200:]}"
    with film.open("rb") as file, av.open(file) as made:
        frames = sum(1 for _ in made.decode(video=0))
    return "" if frames == LONG_FRAMES else f"the film beside has {frames} frames, wanted {LONG_FRAMES}"
