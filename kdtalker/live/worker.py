"""Threads of a live session."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Thread

from kdtalker.live.timeline import Timeline

_log = logging.getLogger(__name__)


def repeat_steps(timeline: Timeline, step: Callable[[], bool]) -> Thread:
    """Start a thread that repeats a step as long as there is work, and waits for changes of the timeline where there is
    none. It ends where the session is closed, or by an error in it or another thread, which the timeline keeps."""

    def run() -> None:
        try:
            while not timeline.is_closed and timeline.error is None:
                version = timeline.version
                if not step():
                    timeline.wait_after(version)
        except Exception as error:
            _log.exception("A live session draws no more pictures; its sound goes on.")
            timeline.fail(error)

    thread = Thread(target=run, name="kdtalker-live", daemon=True)
    thread.start()
    return thread
