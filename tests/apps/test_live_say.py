"""What one client wants: texts in a short queue, their errors, the order of replies, and what an interruption tells."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from kdtalker.apps.live import service as live_service
from kdtalker.apps.live.control import TEXTS_WAITING, SessionControl
from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.wire import Command, FrameHeader, ProtocolError
from kdtalker.core.errors import InputError
from kdtalker.live.frames import Activity, LiveFrame, LiveStats, PictureState, Played


class Recorder:
    """Replies of a session as lists of the lengths that were pushed."""

    stats, error = LiveStats(), None

    def __init__(self):
        self.replies, self.is_open = [], False

    def push(self, samples):
        if not self.is_open:
            self.replies.append([])
        self.is_open = True
        self.replies[-1].append(len(samples))
        return len(self.replies) - 1

    def end_segment(self):
        self.is_open = False

    def interrupt(self):
        self.is_open = False
        self.stats = replace(self.stats, interrupts=self.stats.interrupts + 1)
        return (Played(1, 320, True),)

    def take(self):
        """The last frame of the first reply."""
        picture, sound, ended = np.zeros((2, 2, 3), np.uint8), np.zeros(640, np.float32), (Played(0, 1000, False),)
        return LiveFrame(7, picture, sound, Activity.SPEECH, PictureState.NEW, 0, 0, ended, 640)


@pytest.fixture
def spoken(monkeypatch, tmp_path):
    """Synthesis: a sample for each letter; "fault" and "refused" fail."""

    def synthesise(text, voice, rate_hz):
        if text == "fault":
            raise RuntimeError("inside")
        if text == "refused":
            raise InputError("no text")
        return np.zeros(len(text), np.float32)

    monkeypatch.setattr(live_service, "synthesise_text", synthesise)
    session, events = Recorder(), []
    service = LiveService(lambda: None, tmp_path)
    return SessionControl(service, session, 16_000, events.append), session, events


async def said(control):
    while control._texts.is_busy:
        await asyncio.sleep(0.001)


def test_a_text_is_a_reply_of_its_own_though_sound_has_opened_one(spoken):
    control, session, _ = spoken

    async def run():
        await control.push_audio(np.zeros(640, np.float32))
        await control.handle_command(Command("say", "four"))  # ends it
        await control.push_audio(np.zeros(320, np.float32))  # while the text is being synthesised
        await said(control)
        await control.push_audio(np.zeros(160, np.float32))

    asyncio.run(run())
    assert session.replies == [[640], [320], [4], [160]]


def test_few_texts_wait_and_each_fault_is_told(spoken):
    control, session, events = spoken

    async def run():
        for text in ["fault", "refused", "four", "eleven"]:
            await control.handle_command(Command("say", text))
        with pytest.raises(ProtocolError, match=f"{TEXTS_WAITING} texts wait"):
            await control.handle_command(Command("say", "more"))
        await said(control)
        await control.handle_command(Command("end"))
        with pytest.raises(ProtocolError, match="after the end"):
            await control.handle_command(Command("say", "more"))

    asyncio.run(run())
    assert session.replies == [[4], [6]]
    assert [(event["code"], event["message"]) for event in events] == [
        ("say", "The text could not be said (RuntimeError)."), ("say", "no text"),
    ]  # fmt: skip


def test_an_interruption_drops_texts_and_the_end_does_not_wait_for_them(spoken):
    control, session, _ = spoken

    async def run():
        await control.handle_command(Command("say", "four"))
        await asyncio.sleep(0)  # it is at work
        await control.handle_command(Command("clear"))
        await control.handle_command(Command("say", "eleven"))
        await said(control)
        await control.close()

    asyncio.run(run())
    assert session.replies == [[6]]


def told(events):
    return [(event["type"], event.get("segment"), event.get("samples"), event.get("interrupted")) for event in events]


@pytest.mark.parametrize("is_sent", [True, False])
def test_an_interruption_tells_each_reply_once_in_their_order_and_last_that_it_is_done(spoken, is_sent):
    control, _, events = spoken
    _, header = control.take()
    if is_sent:
        control.send_ended()
    else:
        control._drop = lambda: [header]
    asyncio.run(control.handle_command(Command("clear")))
    control.send_ended()
    first = ("ended", 0, 1000, False) if is_sent else ("ended", 0, 640, True)
    assert told(events) == [first, ("ended", 1, 320, True), ("cleared", None, None, None)]
    assert control.is_stale(header)


def test_an_end_that_was_told_and_not_sent_is_corrected(spoken):
    control, _, events = spoken
    control.take()
    control.send_ended()
    dropped = [FrameHeader("speech", "new", 6, 3840, 0, 0, 0), FrameHeader("speech", "new", 7, 4480, 640, 0, 0)]
    assert told([control.amend(events[0], dropped), control.amend({"type": "stats"}, dropped)]) == [
        ("ended", 0, 0, True), ("stats", None, None, None),
    ]  # fmt: skip
    assert control.amend(events[0], []) == events[0]


def test_counts_are_told_in_thousandths(spoken):
    control, session, events = spoken
    session.stats = LiveStats(new=3, waiting_s=1 / 3, hear_ms=0.1 + 0.2)
    control.report(pictures_dropped=1)
    numbers = {name: events[0][name] for name in ("new", "waiting_s", "hear_ms", "first_frame_ms", "pictures_dropped")}
    assert numbers == {"new": 3, "waiting_s": 0.333, "hear_ms": 0.3, "first_frame_ms": None, "pictures_dropped": 1}
