"""Parts of the live transports without a server: messages, queue of a client, clock, access."""

import asyncio
import json
import re
from pathlib import Path

import numpy as np
import pytest

from kdtalker.apps.live.access import Access, HostCheck, is_loopback
from kdtalker.apps.live.outbox import MAX_BEHIND_S, PICTURES_WAITING, Outbox, SlowReaderError
from kdtalker.apps.live.segments import SegmentTracker, count_sent
from kdtalker.apps.live.wire import (
    _LIVE_FIELDS,
    ACTIVITIES,
    HEADER,
    PICTURE_STATES,
    FrameHeader,
    ProtocolError,
    close_reason,
    decode_sound,
    parse_command,
    parse_hello,
    unpack_frame,
)
from kdtalker.apps.live.wire import pack_frame as pack
from kdtalker.core.errors import InputError
from kdtalker.core.pcm import encode_pcm
from kdtalker.live.frames import Activity, LiveFrame, PictureState, Played

ROOT = Path(__file__).parents[2]
HELLO = {"type": "hello", "version": 1, "rate": 16000}
HEADER_OF_3 = FrameHeader("pause", "repeated", 3, 1920, 640, -1, 2)


def test_a_frame_comes_back_as_it_was():
    message = pack(HEADER_OF_3, b"jpeg", b"sound!")
    header, jpeg, sound = unpack_frame(message)
    assert (jpeg, sound, len(message)) == (b"jpeg", b"sound!", HEADER.size + 10)
    assert header == FrameHeader("pause", "repeated", 3, 1920, 640, -1, 2, 4, 6)
    for broken in (b"", message[:-1], message + b"x", b"KDLG" + message[4:]):
        with pytest.raises(InputError, match="wanted"):
            unpack_frame(broken)


def test_the_names_of_the_protocol_are_those_of_the_session():
    assert [activity.value for activity in Activity] == list(ACTIVITIES)
    assert {state.value for state in PictureState} == set(PICTURE_STATES)


def test_sound_of_16_bits_comes_back_as_it_was():
    levels = np.arange(-32768, 32768).astype("<i2").tobytes()
    assert encode_pcm(decode_sound(levels)) == levels
    assert encode_pcm(np.array([-2, -1, 1, 2], np.float32)) == np.array([-32768, -32768, 32767, 32767], "<i2").tobytes()
    assert len(decode_sound(b"")) == 0
    with pytest.raises(ProtocolError, match="3 bytes"):
        decode_sound(b"abc")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"rate": 44_101}, "rate"), ({"rate": 96_000}, "rate"), ({"rate": "16000"}, "rate"), ({"rate": True}, "rate"),
        ({"rate": 16000.0}, "rate"), ({"version": 2}, "version"), ({"channels": 2}, "channels"),
        ({"source": "tape"}, "source"), ({"lookahead": 9}, "lookahead"), ({"lookahead": True}, "lookahead"),
        ({"portrait": 3}, "portrait"), ({"token": []}, "token"), ({"options": []}, "options"),
        ({"options": {"sed": 3}}, "options"), ({"options": {"seed": -1}}, "options"), ({"more": 1}, "unknown_field"),
        ({"type": "end"}, "no_hello"), ({"type": {}}, "no_hello"),
    ],
)  # fmt: skip
def test_a_hello_that_is_wrong_is_refused_with_its_code(changed, code):
    with pytest.raises(ProtocolError, match="wanted|known") as caught:
        parse_hello(json.dumps(HELLO | changed))
    assert (caught.value.code, caught.value.close) == (code, 1008)


LONG = 10**400
LONG_VALUES = [{"rate": LONG}, {"version": LONG}, {"channels": LONG}, {"channels": [[[["x" * 999]]]]},
               {"source": "x" * 999}, {"lookahead": LONG}, {"portrait": [1] * 999}, {"options": {"seed": LONG}},
               {"options": {"x" * 999: 1}}, {"type": "x" * 999}, {"x" * 999: 1}]  # fmt: skip


@pytest.mark.parametrize("changed", LONG_VALUES, ids=lambda changed: next(iter(changed))[:9])
def test_a_value_is_not_told_back_at_length(changed):
    with pytest.raises(ProtocolError) as caught:
        parse_hello(json.dumps(HELLO | changed))
    assert len(str(caught.value)) < 250


def test_every_error_code_is_documented():
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "kdtalker" / "apps" / "live").glob("*.py"))
    codes = set(re.findall(r'ProtocolError\(\s*"(\w+)"', sources)) | {"token", "portrait", *_LIVE_FIELDS}
    page = (ROOT / "docs" / "live-protocol.md").read_text("utf-8")
    assert len(codes) > 25 and {code for code in codes if f"`{code}`" not in page} == set()


@pytest.mark.parametrize("text", ["", "hello", "[]", "3", "[" * 100_000, '{"type": "flush"', '"' + "a" * 70_000 + '"'])
def test_text_that_is_no_message_is_told(text):
    with pytest.raises(ProtocolError) as caught:
        parse_command(text)
    assert caught.value.code == "not_json" and caught.value.close is None


def test_commands():
    assert parse_command('{"type": "say", "text": "Hello.", "voice": "de"}').voice == "de"
    for message, code in (({"type": "sing"}, "unknown_type"), (HELLO, "second_hello"), ({}, "unknown_type"),
                          ({"type": "say", "text": 3}, "say"), ({"type": "flush", "x": 1}, "unknown_field"),
                          ({"type": ["flush"]}, "unknown_type")):  # fmt: skip
        with pytest.raises(ProtocolError) as caught:
            parse_command(json.dumps(message))
        assert caught.value.code == code


def test_a_close_reason_is_cut_by_bytes():
    assert close_reason("ü" * 200) == "ü" * 61 and close_reason("short \ud800") == "short ?"


def test_events_that_nobody_reads_end_the_connection_and_the_reason_still_fits():
    box = Outbox()
    with pytest.raises(SlowReaderError):
        for _ in range(100_000):
            box.put({"type": "stats"})
    box.put({"type": "error"}, last=True)


def frames(count):
    return [(FrameHeader("speech", "new", n, 640 * n, 640 * n, 0, 0), b"jpeg", b"ss") for n in range(count)]


def test_a_slow_reader_loses_old_pictures_and_no_sound():
    box = Outbox()
    for frame in frames(20):
        box.put(frame)
    box.put({"type": "stats"})
    assert box.pictures_dropped == 20 - PICTURES_WAITING
    received = drain_frames(box)
    assert [header.index for header, _, _ in received] == list(range(20))
    assert [bool(jpeg) for _, jpeg, _ in received] == [False] * 15 + [True] * PICTURES_WAITING
    assert all(sound == b"ss" for _, _, sound in received) and box.is_empty


def drain_frames(box):
    async def take():
        messages = []
        while not box.is_empty:
            messages.append(await box.get())
        return messages

    return [unpack_frame(message) for message in asyncio.run(take()) if isinstance(message, bytes)]


def test_a_reader_that_stopped_loses_its_connection():
    box = Outbox()
    with pytest.raises(SlowReaderError):
        for frame in frames(1000):
            box.put(frame)
    assert len(drain_frames(box)) == MAX_BEHIND_S * 25


def test_after_an_interruption_only_events_are_sent_and_the_position_is_what_was_sent():
    box = Outbox()
    for frame in frames(5):
        box.put(frame)
    box.put({"type": "stats"})
    dropped = box.drop_frames()
    assert [header.index for header in dropped] == [0, 1, 2, 3, 4] and drain_frames(box) == [] and box.is_empty
    assert count_sent(Played(0, 3000, True), dropped[3:]) == Played(0, 3 * 640, True)
    assert count_sent(Played(1, 3000, True), dropped) == Played(1, 3000, True)
    assert count_sent(Played(0, 3200, False), dropped[4:]) == Played(0, 4 * 640, True)


def live_frame(index, activity=Activity.SPEECH, segment=0, ended=(), position=0):
    picture, sound = np.zeros((2, 2, 3), np.uint8), np.zeros(640)
    return LiveFrame(index, picture, sound, activity, PictureState.NEW, segment, 0, ended, position)


def test_headers_have_the_positions_of_their_frames():
    tracker, told = SegmentTracker(16_000), []
    tracker.open(0, 1000)
    for index, (activity, segment, position) in enumerate(
        [
            (Activity.IDLE, None, 0),
            (Activity.SPEECH, 0, 0),
            (Activity.PAUSE, None, 0),
            (Activity.SPEECH, 0, 1280),  # a frame was skipped
            (Activity.SPEECH, 1, 0),
        ]
    ):
        header = tracker.header(live_frame(index, activity, segment, position=position))
        told.append((header.timestamp, header.segment, header.position))
    assert told == [(0, -1, 0), (640, 0, 0), (1280, -1, 0), (1920, 0, 1280), (2560, 1, 0)]
    assert tracker.is_waiting
    tracker.end(Played(0, 1000, False))
    assert not tracker.is_waiting


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({}, True), ({"origin": "http://here:7860", "host": "here:7860"}, True),
        ({"origin": "https://elsewhere.example", "host": "here:7860"}, False),
        ({"origin": "null", "host": "here:7860"}, False), ({"origin": "https://friend.example", "host": "here"}, True),
    ],
)  # fmt: skip
def test_pages_of_other_origins_are_refused(headers, is_allowed):
    access = Access(origins=["https://friend.example"])
    if is_allowed:
        access.check(headers)
    else:
        with pytest.raises(ProtocolError, match="--origin") as caught:
            access.check(headers)
        assert caught.value.code == "origin"


def test_a_password_is_wanted_or_a_token_that_was_issued(monkeypatch):
    access = Access("open sesame")
    token = access.issue_token()
    access.check({}, token)
    access.check({"authorization": "Bearer open sesame"})
    ends, signature = token.split(".")
    forged = [
        f"{int(ends) + 1}.{signature}",
        "x.y",
        f"{ends}.\ud800",
        "\ud800.x",
        ".",
        "9" * 30,
        token[:-1],
        Access("open sesame").issue_token(),
    ]
    for wrong in [None, "", *forged]:
        with pytest.raises(ProtocolError, match="password"):
            access.check({"authorization": "Bearer sesame"}, wrong)
    monkeypatch.setattr("time.time", lambda: int(ends) + 1.0)
    with pytest.raises(ProtocolError, match="password"):
        access.check({}, token)


async def ask(check, scope_type, host):
    """The messages that a request gets."""
    sent = []

    async def receive():
        return {"type": f"{scope_type}.connect"}

    async def send(message):
        sent.append(message)

    await check({"type": scope_type, "headers": [(b"host", host.encode("latin-1"))]}, receive, send)
    return sent


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [
        ("localhost:7860", True), ("LOCALHOST", True), ("127.0.0.1:7860", True), ("[::1]:7860", True), ("", True),
        ("friend.example", True), ("friend.example:443", True), ("elsewhere.example:7860", False),
        ("localhost.elsewhere.example", False), ("192.168.0.7:7860", False), ("0.0.0.0:7860", False), ("[", False),
        ("127.0.0.1.elsewhere.example", False), ("friend.example@elsewhere.example", False),
    ],
)  # fmt: skip
def test_a_name_that_was_made_to_lead_here_gets_no_answer(host, is_answered):
    async def app(scope, receive, send):
        await send("answer")

    check = HostCheck(app, Access(origins=["https://friend.example"]).hosts)
    sent = asyncio.run(ask(check, "http", host)), asyncio.run(ask(check, "websocket", host))
    if is_answered:
        assert sent == (["answer"], ["answer"])
    else:
        assert sent[0][0]["status"] == 403 and b"wanted localhost" in sent[0][1]["body"]
        assert sent[1] == [{"type": "websocket.close"}]


def test_only_servers_of_this_computer_alone_check_the_host():
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.7", "me.example"]))
