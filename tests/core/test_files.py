"""Files appear whole or not at all, and only regular files are ever replaced."""

import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest

import kdtalker.core.files
from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.files import AtomicFile, check_target, commit_together
from kdtalker.core.signals import Interruption, deferred, interruptible

ROOT = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    target = tmp_path / "a.npz"
    target.write_bytes(b"old")
    with AtomicFile(target) as file:
        file.partial.write_bytes(b"new")
        assert target.read_bytes() == b"old"
        file.commit()
    assert target.read_bytes() == b"new" and names(tmp_path) == ["a.npz"]


def test_without_a_commit_nothing_has_changed(tmp_path):
    target = tmp_path / "a.npz"
    target.write_bytes(b"old")
    with AtomicFile(target) as file:
        file.partial.write_bytes(b"half")
    assert target.read_bytes() == b"old" and names(tmp_path) == ["a.npz"]


def test_a_name_of_255_bytes_is_not_too_long(tmp_path):
    with AtomicFile(tmp_path / ("x" * 255)) as file:
        file.commit()
    assert names(tmp_path) == ["x" * 255]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "real")
    with AtomicFile(tmp_path / "link") as file:
        file.partial.write_bytes(b"new")
        file.commit()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "far" / "real").read_bytes() == b"new"


def fifo(path):
    os.mkfifo(path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (fifo, "device, pipe or socket"),
        (listening, "device, pipe or socket"),
        (lambda path: path.symlink_to("/dev/null"), "device, pipe or socket"),
        (lambda path: path.symlink_to(path), "cannot be the name of a file"),
        (Path.mkdir, "is a folder"),
    ],
    ids=["fifo", "socket", "device", "loop", "folder"],
)
def test_what_is_no_regular_file_is_never_replaced(tmp_path, make, told):
    make(tmp_path / "it")
    kind = os.lstat(tmp_path / "it").st_mode
    with pytest.raises(InputError, match=told):
        AtomicFile(tmp_path / "it")
    assert os.lstat(tmp_path / "it").st_mode == kind and names(tmp_path) == ["it"]


def test_a_target_that_becomes_a_pipe_on_the_way_is_not_replaced(tmp_path):
    with AtomicFile(tmp_path / "it") as file:
        fifo(tmp_path / "it")
        with pytest.raises(InputError, match="pipe"):
            file.commit()
    assert names(tmp_path) == ["it"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("x" * 256, "File name too long"), ("no/a", "no folder"), ("file/a", "no folder")],
    ids=["long", "folder missing", "folder is a file"],
)
def test_names_that_cannot_be_are_the_callers_mistake(tmp_path, name, told):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=told):
        check_target(tmp_path / name)


def test_no_input_is_overwritten_under_any_name(tmp_path):
    picture = tmp_path / "face.png"
    picture.write_bytes(b"picture")
    (tmp_path / "soft").symlink_to(picture)
    os.link(picture, tmp_path / "hard")
    for name in ("face.png", "soft", "hard", "../" + tmp_path.name + "/face.png"):
        with pytest.raises(InputError, match="one of the inputs"):
            check_target(tmp_path / name, [picture])


def test_two_files_take_their_names_together_or_not_at_all(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"old")
    with AtomicFile(first) as one, AtomicFile(second) as other:
        one.partial.write_bytes(b"new")
        other.partial.unlink()
        with pytest.raises(OutputError, match="could not take its name"):
            commit_together([one, other])
    assert first.read_bytes() == b"old" and names(tmp_path) == ["first"]
    first.unlink()
    with AtomicFile(first) as one, AtomicFile(second) as other:
        other.partial.unlink()
        with pytest.raises(OutputError):
            commit_together([one, other])
    assert names(tmp_path) == []
    with AtomicFile(first) as one, AtomicFile(second) as other:
        commit_together([one, other])
    assert names(tmp_path) == ["first", "second"]


CLAIM = (
    "import sys, time, pathlib; from kdtalker.core.files import AtomicFile; "
    "file = AtomicFile(pathlib.Path(sys.argv[1]))"
)


def test_the_next_run_removes_what_a_killed_one_left_but_not_what_is_being_written(tmp_path):
    command = [sys.executable, "-c", f"{CLAIM}; print(flush=True); time.sleep(60)", str(tmp_path / "a")]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with AtomicFile(tmp_path / "b"):
            assert len(names(tmp_path)) == 2
        process.kill()
        process.wait()
    assert len(names(tmp_path)) == 1
    with AtomicFile(tmp_path / "b") as file:
        assert names(tmp_path) == [file.partial.name]


def test_signals_become_one_exception_and_more_of_them_do_not_cut_the_clean_up_short():
    cleaned = []
    with pytest.raises(Interruption) as caught, interruptible() as listener:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            for _ in range(5):
                os.kill(os.getpid(), signal.SIGINT)
            cleaned.append(True)
    assert caught.value.number == listener.heard == signal.SIGTERM and cleaned


def test_a_signal_in_a_callback_whose_exceptions_python_drops_ends_the_block_without_a_traceback(capfd):
    with pytest.raises(Interruption) as caught, interruptible():
        thing = {1}
        reference = weakref.ref(thing, _end)
        del thing
        time.sleep(5)
        assert reference
    assert caught.value.number == signal.SIGTERM and capfd.readouterr().err == ""


def _end(_):
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass


def test_deferred_signals_are_answered_at_the_end_of_the_block():
    done = []
    with pytest.raises(Interruption), interruptible():
        with deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("whole")
        done.append("never")
    assert done == ["whole"]


def test_a_signal_that_the_parent_ignores_stays_ignored():
    original = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, original)


def test_on_windows_only_what_was_abandoned_is_removed(tmp_path, monkeypatch):
    """There are no locks there: what is finished but not yet renamed, here or elsewhere, stays."""
    monkeypatch.setattr(kdtalker.core.files.sys, "platform", "win32")
    fresh, old = (tmp_path / f".kdtalker-{digit * 16}.part" for digit in "ab")
    fresh.touch()
    old.touch()
    os.utime(old, (0, 0))
    (tmp_path / "said.npz").write_text("before")
    with AtomicFile(tmp_path / "said.npz") as motion, AtomicFile(tmp_path / "film.mp4") as film:
        motion.partial.write_text("motion")
        film.partial.write_text("film")
        commit_together([motion, film])
    assert (tmp_path / "said.npz").read_text() == "motion" and (tmp_path / "film.mp4").read_text() == "film"
    assert fresh.exists() and not old.exists()


def test_nobody_elses_files_are_removed(tmp_path):
    """Only regular files of the program's own names: a picture behind a link and notes of the user stay."""
    (tmp_path / "picture.png").touch()
    (tmp_path / ".kdtalker-notes.part").touch()
    (tmp_path / ".kdtalker-0123456789abcdef.part").symlink_to(tmp_path / "picture.png")
    before = names(tmp_path)
    with AtomicFile(tmp_path / "a.npz") as file:
        file.commit()
    assert names(tmp_path) == sorted([*before, "a.npz"])
