"""Turn signals that end a program into an exception, and defer them where an interruption would leave a mess."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer, current_thread, main_thread
from types import FrameType

REPEAT_S = 0.01  # after which a signal that was swallowed is sent again
GRACE_S = 5.0  # further signals within this time are ignored, so that they cannot cut the clean-up short

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGUSR1")  # the last two are those of batch systems
_NUMBERS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
Handler = Callable[[int, FrameType | None], object]


class Interruption(KeyboardInterrupt):
    """Report that a signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Listener:
    """Raise Interruption in the main thread for the first signal; `heard` is its number, also where a library
    swallowed the exception."""

    def __init__(self) -> None:
        self.heard: int | None = None
        self._ignored_until = 0.0

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.heard is not None and number == getattr(signal, "SIGQUIT", None):  # the way out of a hang: at once
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if time.monotonic() < self._ignored_until:
            return
        self.heard = number
        self._ignored_until = time.monotonic() + GRACE_S
        raise Interruption(number)

    def repeat(self, number: int) -> None:
        """Send a signal again whose exception came to nothing."""
        self.heard, self._ignored_until = None, 0.0
        Timer(REPEAT_S, _send, [number]).start()


def _send(number: int) -> None:
    """Send a signal to the main thread, whose waiting it ends."""
    main = main_thread().ident
    if sys.platform != "win32" and main is not None:
        signal.pthread_kill(main, number)
    else:
        signal.raise_signal(number)


@contextmanager
def interruptible(*, ignore_after: bool = False) -> Iterator[Listener]:
    """Raise Interruption for signals within the block. Those that the parent ignores (nohup) stay ignored.

    ignore_after: ignore all of them from then on, while the interpreter ends.
    """
    listener = Listener()
    heard = [number for number in _NUMBERS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    after = signal.SIG_IGN if ignore_after else None
    with _handlers(dict.fromkeys(heard, listener), after), _never_swallowed(listener):
        yield listener


@contextmanager
def _never_swallowed(listener: Listener) -> Iterator[None]:
    """Repeat interruptions that Python drops with a traceback: those in destructors and in callbacks of weak
    references, which every import has."""
    original = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if isinstance(dropped.exc_value, Interruption):
            listener.repeat(dropped.exc_value.number)
        else:
            original(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = original


@contextmanager
def deferred() -> Iterator[None]:
    """Defer signals within the block, a critical section, and answer them at its end, as their handlers would have.

    For steps that must not be cut in two: to start a process and to remember it, to rename a file, to clean up.
    """
    originals = {number: signal.getsignal(number) for number in _NUMBERS}
    heard: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        heard.append(number)

    try:
        with _handlers({number: remember for number, original in originals.items() if callable(original)}):
            yield
    finally:
        for number in heard:
            handler = originals[number]
            assert callable(handler)
            handler(number, None)


@contextmanager
def _handlers(handlers: dict[int, Handler], after: signal.Handlers | None = None) -> Iterator[None]:
    """Install signal handlers for a while, then `after` or else what was there before; does nothing outside the main
    thread, which alone hears signals."""
    if current_thread() is not main_thread():
        yield
        return
    originals = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, original in originals.items():
            signal.signal(number, original if after is None else after)
