"""Write files atomically: they grow under a temporary name beside the target and take its name when they are whole."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO
from uuid import uuid4

from kdtalker.core.errors import SHORTAGES, InputError, OutputError
from kdtalker.core.signals import deferred

if sys.platform != "win32":
    import fcntl

_PREFIX, _SUFFIX = ".kdtalker-", ".part"

_NAME_DIGITS = 16
_ABANDONED_S = 24 * 3600.0  # on Windows, which has no such locks: a temporary file not written to for so long is stale


class AtomicFile:
    """Write a file under a temporary name that becomes the target on `commit`.

    The temporary file `.kdtalker-*.part` is locked while its process lives; those of killed processes are removed from
    the folder (on Windows after a day). Leaving the context without a commit removes the temporary file; the target
    stays as it was.
    """

    def __init__(self, path: Path, *, sweep: bool = True) -> None:
        """Raises InputError or OutputError where `path` cannot be written, see `check_target`."""
        self.path, self.is_committed = path, False
        self._target = check_target(path)
        with deferred():
            if sweep:
                _remove_stale(self._target.parent)
            self.partial, lock = _create_locked(self._target.parent, path)
            # Runs at the latest when the object goes or the program ends, wherever a signal interrupted it.
            self._remove = weakref.finalize(self, _remove, self.partial, lock)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove the temporary file; does nothing after a commit."""
        with deferred():
            self._remove()

    def commit(self) -> None:
        """Give the file its name. Raises InputError or OutputError where that has become impossible."""
        with deferred():
            check_target(self.path)
            try:
                self.partial.replace(self._target)
            except OSError as error:
                raise OutputError(f"'{self.path}' could not take its name ({error.strerror}).") from None
            self.is_committed = True
            self._remove()  # finds nothing under the temporary name, and unlocks

    def copy_of_target(self) -> AtomicFile | None:
        """Back up the target as it is now; commit the copy to restore it. None where there is no target."""
        if not self._target.exists():
            return None
        copy = AtomicFile(self.path)
        try:
            shutil.copy2(self._target, copy.partial)
        except OSError as error:
            copy.discard()
            raise OutputError(f"'{self.path}' could not be kept ({error.strerror}); make room.") from None
        return copy

    def remove_target(self) -> None:
        """Remove the file that has the target's name."""
        self._target.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file atomically: `write` fills a temporary file, which is then renamed. Raises OutputError where there is
    no room."""
    with AtomicFile(path, sweep=False) as file:  # a folder of shards may be written by many machines
        try:
            with file.partial.open("wb") as content:
                write(content)
        except OSError as error:
            raise OutputError(f"'{path}' cannot be written ({error.strerror}); make room and run this again.") from None
        file.commit()


def commit_together(files: Sequence[AtomicFile]) -> None:
    """Commit files as one transaction with rollback: all get their names, or none.

    What was renamed before a failure is put back. All files but the last, the largest, are copied for that.
    """
    with deferred():
        copies = [file.copy_of_target() for file in files[:-1]]
        renamed = 0
        try:
            for file in files:
                file.commit()
                renamed += 1
        except BaseException:
            for file, copy in list(zip(files, copies, strict=False))[:renamed]:
                if copy is None:
                    file.remove_target()
                else:
                    copy.commit()
            raise
        finally:
            for copy in copies:
                if copy is not None:
                    copy.discard()


def check_target(path: Path, inputs: Iterable[Path] = ()) -> Path:
    """Check that a file can be written there and return its place, symbolic links followed.

    Only regular files are ever replaced, and none of the inputs. Raises InputError for a name that cannot be used,
    OutputError for a place that may not be written.
    """
    target = Path(os.path.realpath(path))
    mode = _mode_of(target, path)
    if mode is None:
        parent = _mode_of(target.parent, path)
        if parent is None or not stat.S_ISDIR(parent):
            raise InputError(f"There is no folder '{path.parent}' to write '{path.name}' into; make it first.")
    elif stat.S_ISDIR(mode):
        raise InputError(f"'{path}' is a folder, wanted the name of a file to write.")
    elif not stat.S_ISREG(mode):
        raise InputError(f"'{path}' is a device, pipe or socket, wanted the name of a file to write.")
    elif any(_is_same(target, other) for other in inputs):
        raise InputError(f"'{path}' is one of the inputs and would be overwritten; choose another name.")
    elif not os.access(target, os.W_OK):
        raise OutputError(f"'{path}' is read-only for this user and is not replaced; choose another name.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"The folder '{path.parent}' is read-only for this user; choose another one.")
    return target


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder. Raises InputError where that cannot be told: a name too long, no permission."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise InputError(f"The folder '{path}' cannot be used ({error.strerror}); choose another one.") from None


def _mode_of(target: Path, path: Path) -> int | None:
    """Return file type and permissions, or None where there is nothing."""
    try:
        return target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise OutputError(f"'{path}' cannot be written ({error.strerror}); choose another folder.") from None
    except OSError as error:
        raise InputError(f"'{path}' cannot be the name of a file ({error.strerror}); choose another one.") from None


def _is_same(target: Path, other: Path) -> bool:
    try:
        return target.samefile(other)
    except OSError:
        return False


def _create_locked(folder: Path, path: Path) -> tuple[Path, int | None]:
    """Create the temporary file; it gets its name `.part` only once it is locked, so that nobody takes it for stale."""
    partial = folder / f"{_PREFIX}{uuid4().hex[:_NAME_DIGITS]}{_SUFFIX}"
    unlocked = partial.with_suffix(".new")
    try:
        if sys.platform == "win32":
            partial.touch(exist_ok=False)
            return partial, None
        descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.rename(partial)
        return partial, descriptor
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written ({error.strerror}); choose another folder or name.") from None


def _remove(partial: Path, lock: int | None) -> None:
    """Remove a temporary file and its lock."""
    with suppress(OSError):
        if lock is not None:
            os.close(lock)
    with suppress(OSError):
        partial.unlink(missing_ok=True)


def _remove_stale(folder: Path) -> None:
    """Remove temporary files whose process was killed."""
    with suppress(OSError):
        for partial in folder.glob(f"{_PREFIX}{'[0-9a-f]' * _NAME_DIGITS}{_SUFFIX}"):
            with suppress(OSError):
                if not stat.S_ISREG(partial.lstat().st_mode):
                    continue
                if sys.platform == "win32":
                    if time.time() - partial.stat().st_mtime < _ABANDONED_S:
                        continue
                else:
                    descriptor = os.open(partial, os.O_RDWR)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    finally:
                        os.close(descriptor)
                partial.unlink()


def check_file(path: Path, wanted: str) -> None:
    """Check that the path is a readable file and not empty. Raises InputError, which says what was wanted."""
    try:
        empty = path.stat().st_size == 0
        is_file = path.is_file()
        if is_file:
            path.open("rb").close()
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            raise
        reason = error.strerror if isinstance(error, OSError) else "no valid name"
        raise InputError(f"'{path}' cannot be opened ({reason}), wanted {wanted}.") from None
    if not is_file:
        raise InputError(f"'{path}' is not a file, wanted {wanted}.")
    if empty:
        raise InputError(f"'{path}' is empty (0 bytes), wanted {wanted}.")
