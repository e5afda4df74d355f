"""The benchmark of live faces: marks survive encoding, events are matched, the emulated network loses packets."""

import os
import socket
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from live_client import live_pipeline

from kdtalker import TalkingPortraitPipeline
from kdtalker.core.errors import InputError
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.frames import Activity, LiveFrame, PictureState
from kdtalker.media.picture import decode_jpeg, encode_jpeg
from train.bench.live import browser, command, engine, network, sessions
from train.bench.live.events import find_crossing, make_syllables
from train.bench.live.marks import ClickTaken, MarkedSession, draw_number, read_number
from train.bench.live.socket_client import ReceivedFrame, gaps_ms
from train.bench.record import BenchRecord

FLAT_MB = 20


@pytest.mark.parametrize("number", [0, 1, 12_345, 65_535, 65_536 + 7])
def test_a_number_is_read_from_a_compressed_picture(number):
    picture = np.random.default_rng(0).integers(0, 256, (512, 437, 3), np.uint8)
    marked = draw_number(picture, number)
    assert read_number(decode_jpeg(encode_jpeg(marked, 60))) == number % 65_536
    assert np.array_equal(marked[64:], picture[64:])
    assert read_number(picture) is None


def test_a_crossing_is_found_between_frames():
    opening = np.array([0, 0, 0, 0.1, 0.3, 0.4, 0.2, 0])
    assert find_crossing(opening) == pytest.approx(3)
    assert find_crossing(np.concatenate([[0, 0.09, 0], opening])) == pytest.approx(6)  # an earlier hump does not count
    assert np.isnan(find_crossing(np.full(20, 0.1)))


def test_onsets_fall_anywhere_within_a_hop():
    voice, onsets = make_syllables(24)
    assert all(np.abs(voice[onset : onset + 160]).max() > 0.02 for onset in onsets)
    assert all(not voice[onset - 8000 : onset].any() for onset in onsets)
    assert len({onset // 640 % 2 for onset in onsets}) == 2 and len({onset % 640 // 160 for onset in onsets}) == 4


def test_clicks_are_matched_with_their_sound_and_picture():
    start = 1000 * browser.WARM_UP_S
    taken = [100.0, 100 + start, 100 + start + 2300, 100 + start + 4600]
    raw = {
        "origin": 5000.0, "taken": taken, "heard": [taken[1] + 300, taken[3] + 320],
        "seen": [(9, taken[1] + 270), (10, taken[1] + 280), (71, taken[2] + 400), (65_540, 0.0)],
    }  # fmt: skip
    clicks = [ClickTaken(10, 0.03, (5000 + taken[1] + 200) / 1000), ClickTaken(70, 0.0, (5000 + taken[2] + 210) / 1000)]
    first, second, third = browser.match_clicks(raw, clicks)
    assert {name: round(value) for name, value in first.items()} == {
        "engine_ms": 200, "sound_ms": 300, "picture_ms": 310, "skew_ms": 10,
    }  # fmt: skip
    assert second["sound_ms"] is None and round(second["picture_ms"]) == 400 and second["skew_ms"] is None
    assert third["sound_ms"] == pytest.approx(320) and third["engine_ms"] is None


def test_without_chromium_one_sentence_tells_how_to_get_it_before_anything_is_measured(monkeypatch, tmp_path):
    none = SimpleNamespace(chromium=SimpleNamespace(executable_path=str(tmp_path / "chrome")))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(browser, "sync_playwright", lambda: nullcontext(none))
    with pytest.raises(InputError, match="There is no Chromium, .* `make browser`"):
        command.main(["--parts", "network"])


def test_a_late_picture_has_the_number_of_the_frame_that_it_was_drawn_for():
    picture = np.zeros((80, 128, 3), np.uint8)
    frame = LiveFrame(9, picture, np.zeros(640), Activity.SPEECH, PictureState.DEGRADED, 0, 0, picture_age=2)
    session = type("Session", (), {"take": lambda self: frame})()
    assert read_number(MarkedSession(session, []).take().picture) == 7


def test_a_silent_span_is_one_gap():
    frames = [ReceivedFrame(at_s, None) for at_s in (0.0, 0.04, 0.1, 5.0)]
    assert gaps_ms(frames, 0, 1) == pytest.approx([40, 60])
    assert gaps_ms(frames, 1, 4) == pytest.approx([3000])


def test_packets_are_dropped_delayed_and_never_invented():
    ours, theirs = zip(*(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)), strict=True)
    relay = network.PacketRelay((theirs[0].fileno(), theirs[1].fileno()), loss=0.2, jitter_ms=1)
    running, stop = os.pipe()
    thread = threading.Thread(target=relay.run, args=(running,))
    thread.start()
    for number in range(100):
        ours[0].send(number.to_bytes(2, "big"))
    ours[1].settimeout(60)
    got = []
    while relay.carried < 100 or len(got) < 100 - relay.dropped:
        got.append(int.from_bytes(ours[1].recv(10), "big"))
    os.write(stop, b"x")
    thread.join()
    for end in (*ours, *theirs):
        end.close()
    assert relay.carried == 100 and 5 < relay.dropped < 40
    assert len(set(got)) == len(got) and set(got) <= set(range(100))


def test_a_picture_that_moves_a_little_each_time_is_not_still():
    still = engine.StillTimes()
    for level in [0] * 50 + list(range(0, 60, 3)):
        still.add(0, type("Frame", (), {"picture": np.full((2, 2, 3), level, np.uint8)}))
    assert max(still.times_s) == pytest.approx(53 / FRAME_RATE_HZ)
    assert sorted(still.times_s)[-2] == pytest.approx(3 / FRAME_RATE_HZ)


def test_what_a_client_receives_is_measured(monkeypatch):
    for name, value in {"REPLIES": 1, "SETTLE_S": 0.0, "SKEW_S": 0.5, "REPLY_S": 0.2}.items():
        monkeypatch.setattr(sessions, name, value)
    skew, _ = sessions.measure_skew(live_pipeline())
    assert skew["gaps in timestamps"] == 0 and skew["frames of speech"] > 0
    _, raw = sessions.measure_first_frame(live_pipeline())
    assert all(len(delays) == 1 and delays[0] > 0 for delays in raw["first_frame_ms"].values())


@pytest.mark.soak
def test_ten_minutes_of_speech_keep_memory_flat_and_lose_no_sound():
    """Figures are kept in results/bench/live-soak.json."""
    seconds = 600
    pipeline = TalkingPortraitPipeline.mesh()
    pipeline.engine.speech.warm_up()
    figures, raw = engine.measure_engine(pipeline, 4, seconds)
    record = BenchRecord("live-soak", "live")
    record.add(figures, {"part": "engine", **raw})
    record.save()
    assert abs(figures["growth of memory, MB"]) < FLAT_MB
    taken = figures["frames of speech"] + figures["frames of sound skipped"]
    assert taken > (seconds - 5) * FRAME_RATE_HZ
