"""A fork server: `python -m abuse.forks toy|real` has imported the program once and forks a child for every run.

It reads one JSON object a line on stdin (what `harness.Bench` asks for) and answers each with one on stdout.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pty
import resource
import signal
import struct
import sys
import time
import traceback
from pathlib import Path
from threading import Thread

LIBRARIES = {
    "toy": ["toy", "av", "ffmpeg", "imageio_ffmpeg", "PIL.Image", "tqdm", "tempfile", "kdtalker.apps.film_command",
            "kdtalker.media.video", "kdtalker.media.picture", "kdtalker.media.video_writer"],
    "real": ["toy", "scipy.spatial.transform", "onnxruntime", "ai_edge_litert.interpreter", "safetensors", "av",
             "ffmpeg", "imageio_ffmpeg", "PIL.Image", "tqdm", "kdtalker.apps.film_command",
             "kdtalker.media.video_writer", "kdtalker.renderers.mesh.renderer", "kdtalker.renderers.mesh.engine",
             "kdtalker.diffusion.speech", "kdtalker.audio.whisper",
             "kdtalker.diffusion.model"],
}  # fmt: skip
POLL_S = 0.003
GRACE_S = 1.0  # for what the program started, once it has ended itself
DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER = 1, 2, 3  # root's power over permissions, linux/capability.h
NOBODY = 65534
LIBC = ctypes.CDLL(None, use_errno=True)


def serve(kind: str) -> None:
    for name in LIBRARIES[kind]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    LIBC.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans of a run become children of this process
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        for line in sys.stdin:
            print(json.dumps(run(json.loads(line))), flush=True)


def run(ask: dict) -> dict:
    """Fork, wait, and tell how it ended: status (negative: the signal), seconds, what it left running."""
    master, slave = pty.openpty() if "tty" in ask["streams"] else (None, None)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(ask, slave)
    seen: list[bytes] = []
    if slave is not None:
        os.close(slave)
        Thread(target=_listen, args=(master, seen), daemon=True).start()
    status, cpu_s, timed_out = _wait(pid, ask, began)
    seconds = time.monotonic() - began
    orphans = _orphans()
    if master is not None:
        os.close(master)
    tty = b"".join(seen).decode("utf-8", "replace")
    return {"status": status, "seconds": seconds, "cpu_s": cpu_s, "timed_out": timed_out, "orphans": orphans,
            "tty": tty}  # fmt: skip


def _listen(master: int, seen: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        while piece := os.read(master, 1 << 16):
            seen.append(piece)


# --- waiting --------------------------------------------------------------------------------------------------------


def _wait(pid: int, ask: dict, began: float) -> tuple[int, float, bool]:
    signals, since = list(ask["signals"]), began
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, False
        now = time.monotonic()
        if now - began > ask["timeout_s"]:
            os.killpg(pid, signal.SIGKILL)
            _, status, used = os.wait4(pid, 0)
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, True
        if signals and _is_due(signals[0], pid, Path(ask["cwd"]), now - since, now - began):
            _, _, name = signals.pop(0)
            since = time.monotonic()
            number = signal.Signals[f"SIG{name}"]
            (os.killpg if name in ("INT", "HUP", "QUIT") else os.kill)(pid, number)  # as a terminal does, or `kill`
        time.sleep(POLL_S)


def _is_due(due: list, pid: int, folder: Path, since_s: float, wall_s: float) -> bool:
    kind, seconds, _ = due
    if kind == "later":
        return since_s >= seconds
    if kind == "cpu":
        return _cpu_s(pid) >= seconds or wall_s >= 10 * seconds
    begun = [path.stat().st_mtime for path in folder.glob(".kdtalker-*.part")]
    return bool(begun) and _age_s(folder) >= seconds


def _age_s(folder: Path) -> float:
    """How long ago a name was last made in the folder."""
    return time.time() - folder.stat().st_mtime


def _cpu_s(pid: int) -> float:
    """CPU time that the process has had, in steps of 10 ms: what it does by then depends little on the load."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _orphans() -> list[str]:
    """Names of processes that a run left behind; they are killed."""
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(POLL_S)
        except ChildProcessError:
            return []
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    names = [Path(f"/proc/{child}/comm").read_text().strip() for child in children]
    for child in children:
        os.kill(int(child), signal.SIGKILL)
        os.waitpid(int(child), 0)
    return names


# --- the child ------------------------------------------------------------------------------------------------------


def _child(ask: dict, slave: int | None) -> None:
    code = 70
    try:
        _settle(ask, slave)
        if ask["command"]:
            os.execve(ask["command"][0], ask["command"], ask["env"])
        code = _call(ask["engine"], ask["words"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _call(engine: str, words: list[str]) -> int:
    toy = importlib.import_module("toy")
    return toy.main(words) if engine == "real" else toy.main(words, load=lambda job: toy.pipeline())


def _settle(ask: dict, slave: int | None) -> None:
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):  # a shell may have started us deaf to them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL if ask["command"] else signal.default_int_handler)
    os.chdir(ask["cwd"])
    if ask["cwd_gone"]:
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir(os.path.join(ask["cwd"], "gone"))
    os.umask(ask["umask"])
    _open_streams(ask, slave)
    for name, amount in ask["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (amount, amount))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _become(ask["user"])
    os.environ.clear()
    os.environ.update(ask["env"])


def _open_streams(ask: dict, slave: int | None) -> None:
    for number, kind in enumerate(ask["streams"]):
        if kind == "closed":
            os.close(number)
            continue
        if kind == "tty":
            assert slave is not None
            os.dup2(slave, number)
            continue
        if kind == "broken":
            reader, opened = os.pipe()
            os.close(reader)
        else:
            opened = os.open("/dev/full" if kind == "full" else kind, os.O_RDWR if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)


def _become(user: str) -> None:
    if os.geteuid() != 0 or not user:
        return
    if user == "nobody":
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return
    dropped = [DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER]
    for capability in dropped:
        LIBC.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, for programs that it starts
    header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    held = ctypes.create_string_buffer(24)
    LIBC.capget(header, held)
    words = list(struct.unpack("<6I", held.raw))
    mask = sum(1 << capability for capability in dropped)
    words[:3] = [word & ~mask for word in words[:3]]
    if LIBC.capset(header, struct.pack("<6I", *words)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    serve(sys.argv[1])
