"""Frames are handed out by the clock of their sound."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from kdtalker.live.pacing import FRAME_S, Pacer, ticks


def _run(pacer, frames, now=0.0, late=lambda frame: 0.0, has_sound=True):
    """Hand out frames when they are due; return the time, and how much sound waited before each."""
    waiting = []
    for frame in range(frames):
        now = max(now, pacer.next_s or 0.0) + late(frame)
        waiting.append(pacer.heard_s - now)
        pacer.advance(now, has_sound=has_sound)
    return now, waiting


def test_idle_frames_come_every_40_ms():
    now, _ = _run(Pacer(), 101, has_sound=False)
    assert now == pytest.approx(100 * FRAME_S)


def test_the_lead_grows_once_and_then_the_rate_is_that_of_the_sound():
    pacer = Pacer(lead_s=0.06)
    _, waiting = _run(pacer, 60)
    assert max(waiting) == pytest.approx(0.06) and waiting[59] == pytest.approx(0.06)
    begin = pacer.heard_s
    _run(pacer, 90_000, pacer.next_s)  # an hour
    assert pacer.heard_s - begin == pytest.approx(3600)


def test_late_frames_are_no_gap_within_the_lead():
    pacer = Pacer(lead_s=0.06)
    now, _ = _run(pacer, 60)
    _, waiting = _run(pacer, 200, now, late=lambda frame: 0.05 * (frame % 5 == 0))
    assert min(waiting) > 0


def test_after_a_stall_sound_goes_on_without_a_burst_beyond_the_lead():
    pacer = Pacer(lead_s=0.06)
    now, _ = _run(pacer, 60)
    _, waiting = _run(pacer, 60, now, late=lambda frame: 2.0 * (frame == 0))
    assert waiting[0] < 0 and max(waiting) <= 0.06 + 1e-9


def test_a_picture_is_seen_when_its_sound_is_heard():
    pacer = Pacer(lead_s=0.06)
    begins = [pacer.advance(0.036 * frame, has_sound=True) for frame in range(10)]
    assert begins == pytest.approx([FRAME_S * frame for frame in range(10)])


def test_dropped_sound_is_not_waited_for():
    pacer = Pacer(lead_s=0.06)
    now, _ = _run(pacer, 60)
    pacer.cut()
    assert pacer.advance(now + 0.01, has_sound=True) == now + 0.01


def test_the_clock_does_not_drift_in_an_hour_and_catches_up_after_a_stall():
    now, times = SimpleNamespace(s=100.0), []

    async def sleep(seconds):
        now.s += seconds + 0.003 * (seconds > 0)  # every sleep is too long

    async def run():
        async for index in ticks(clock=lambda: now.s, sleep=sleep):
            times.append(now.s - 100)
            if index == 1000:
                now.s += 1.0
            if index == 25 * 3600:
                return

    asyncio.run(run())
    due = np.arange(len(times)) / 25
    late = np.array(times) - due
    assert late.min() >= -1e-6 and np.abs(late[-1000:]).max() < 0.004  # 1 hour later, at most one sleep's fault
    assert late[1001] == pytest.approx(0.96, abs=0.01) and late[1030] < 0.004
