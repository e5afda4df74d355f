"""The WebSocket /v1/live of the real server over the toy engine: what works, and what each bad input gets."""

import asyncio
import json
import re
import resource
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import wave
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import toy
from live_client import HELLO, PORTRAIT, ROOT, client, live_pipeline, post, served, voice
from websockets.exceptions import InvalidStatus

from kdtalker.apps.live import server as live_server
from kdtalker.apps.live import websocket as live_websocket
from kdtalker.apps.live.service import LiveService
from kdtalker.core.errors import OutputError
from kdtalker.live.drawing import Drawing

SPEECH = "speech"


@pytest.fixture(scope="module")
def address():
    with served() as address:
        yield address


async def speak(one, seconds=0.5, rate_hz=16_000):
    """Say a segment to its end; returns its frames."""
    await one.send(voice(seconds, rate_hz))
    await one.send({"type": "flush"})
    await one.event("ended")
    return [frame for frame in one.frames if frame[0].activity == SPEECH]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_the_sound_comes_back_with_one_picture_for_each_40_ms(address, rate_hz):
    async def run():
        async with client(address, HELLO | {"rate": rate_hz}) as one:
            ready = await one.event("ready")
            assert (ready["rate"], ready["fps"], ready["width"]) == (rate_hz, 25, 436)
            return one, await speak(one, 0.5, rate_hz)

    one, spoken = asyncio.run(run())
    played = b"".join(sound for _, _, sound in spoken)
    sent = voice(0.5, rate_hz)
    assert played[: len(sent)] == sent
    assert [header.position for header, _, _ in spoken] == [number * rate_hz // 25 for number in range(len(spoken))]
    assert [header.index for header, _, _ in one.frames] == list(range(len(one.frames)))
    assert all(header.timestamp == header.index * rate_hz // 25 for header, _, _ in one.frames)
    picture = cv2.imdecode(np.frombuffer(spoken[0][1], np.uint8), cv2.IMREAD_COLOR)
    assert picture.ndim == 3 and one.events[-1] | {"type": ""} == {
        "type": "", "segment": 0, "samples": len(sent) // 2, "seconds": 0.5, "interrupted": False,
    }  # fmt: skip


def test_the_end_waits_for_what_was_sent(address):
    async def run():
        async with client(address) as one:
            await one.send(voice(0.3))
            await one.send({"type": "flush"})
            await one.send(voice(0.2))
            await one.send({"type": "end"})
            await one.send(voice(0.2))
            code = await one.closed()
            return code, [event for event in one.events if event["type"] == "ended"], one.errors()

    code, ended, errors = asyncio.run(run())
    assert (code, errors) == (1000, ["ended"])
    assert [(event["segment"], event["samples"]) for event in ended] == [(0, 4800), (1, 3200)]


def test_clear_stops_at_once_and_tells_what_was_played(address):
    async def run():
        async with client(address) as one:
            await one.send(voice(20.0))
            await one.until(lambda found: isinstance(found, tuple) and found[0].position >= 3200)
            await one.send({"type": "clear"})
            cleared = await one.event("cleared")
            heard = max(h.position + 640 for h, _, _ in one.frames if h.activity == SPEECH)
            one.frames.clear()
            ended = [event for event in one.events if event["type"] == "ended"]
            await one.send(voice(0.2))
            await one.send({"type": "flush"})
            await one.event("ended")
            return cleared, ended, heard, one.frames

    cleared, (ended,), heard, later = asyncio.run(run())
    assert cleared["generation"] == 1 and ended["interrupted"] and ended["samples"] == heard
    assert all(header.generation == 1 for header, _, _ in later)
    assert {header.segment for header, _, _ in later if header.activity == SPEECH} == {1}


def test_the_client_of_the_documentation_works(address, tmp_path):
    (example,) = re.findall(r"^```py\n(.*?)^```", (ROOT / "docs" / "live-protocol.md").read_text("utf-8"), re.M | re.S)
    own = address.removeprefix("http://").rstrip("/")
    done = subprocess.run(
        [sys.executable, "-c", example.replace("localhost:7860", own)], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with wave.open(str(tmp_path / "said.wav")) as file:
        assert 0.3 < file.getnframes() / file.getframerate() < 3
    assert cv2.imread(str(tmp_path / "face.jpg")).shape == (512, 436, 3)


def test_an_interruption_sends_the_picture_anew_and_a_repeated_one_is_not_sent_again(monkeypatch):
    """The renderer stands still after its first picture."""
    monkeypatch.setattr(Drawing, "step", lambda self: False)

    async def run(address):
        async with client(address) as one:
            await one.until(lambda found: isinstance(found, tuple) and found[0].index == 5)
            await one.send({"type": "clear"})
            await one.event("cleared")
            one.frames.append(None)
            await one.until(lambda found: isinstance(found, tuple) and found[0].generation == 1)
            await one.until(lambda found: isinstance(found, tuple))
            return one.frames

    with served() as address:
        frames = asyncio.run(run(address))
    cut = frames.index(None)
    before, after = ([bool(jpeg) for _, jpeg, _ in part] for part in (frames[:cut], frames[cut + 1 :]))
    assert before == [True] + [False] * (cut - 1) and after == [True, False]


def test_what_is_asked_for_without_a_socket_or_at_another_address_is_told(address):
    def ask(path, method="GET"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(f"{address}v1/{path}", method=method), timeout=60)
        told = json.load(caught.value)
        return caught.value.code, told["type"], told["code"], "wanted" in told["message"]

    assert ask("live") == (426, "error", "no_websocket", True)
    assert ask("portrait", "POST") == (404, "error", "not_found", True)
    assert ask("portraits") == (405, "error", "method", False)


def test_a_text_is_said(address):
    async def run():
        async with client(address) as one:
            await one.send({"type": "say", "text": ""})
            await one.event("error")
            await one.send({"type": "say", "text": "Hello there."})
            return one, await one.event("ended")

    one, ended = asyncio.run(run())
    assert one.errors() == ["say"] and 0.3 < ended["seconds"] < 3


BAD_HELLOS = [
    (json.dumps(HELLO | {"rate": 44_101}), "rate"), ('{"type": "flush"}', "no_hello"), ("hello", "not_json"),
    (voice(), "no_hello"), (json.dumps(HELLO | {"portrait": "unknown"}), "portrait"),
    (json.dumps(HELLO | {"lookahead": 4.5}), "lookahead"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "code"), BAD_HELLOS)
def test_before_the_hello_one_error_ends_the_session(address, message, code):
    async def run():
        async with client(address, None) as one:
            await one.send(message)
            return await one.closed(), one.events

    close, (event,) = asyncio.run(run())
    assert (close, event["code"], event["fatal"]) == (1008, code, True)


BAD_MESSAGES = [
    (b"abc", "odd_bytes"), ("words", "not_json"), ("[]", "not_json"), (json.dumps(HELLO), "second_hello"),
    ('{"type": "sing"}', "unknown_type"), (bytes(2 * 16_000 * 121), "refused"),
]  # fmt: skip


def test_after_the_hello_each_bad_message_gets_one_error_and_the_session_lives(address):
    async def run():
        async with client(address) as one:
            for message, _ in BAD_MESSAGES:
                await one.send(message)
            spoken = await speak(one)
            return one.errors(), len(spoken)

    errors, spoken = asyncio.run(run())
    assert errors == [code for _, code in BAD_MESSAGES] and spoken == 13


@pytest.mark.parametrize(
    ("message", "code", "close"), [(bytes(17 * 2**20), "too_large", 1009), (None, "not_utf8", 1007)]
)
def test_what_cannot_be_read_is_told_before_the_socket_is_closed(address, message, code, close):
    async def run():
        async with client(address) as one:
            await one.event("ready")
            if message is None:
                one.socket.transport.write(b"\x81\x81\x00\x00\x00\x00\xff")  # a text frame of one byte that is no UTF-8
            else:
                await one.send(message)
            return await one.closed(), one.errors()

    assert asyncio.run(run()) == (close, [code])


def test_who_sends_nothing_but_faults_is_cut_off(address):
    async def run():
        async with client(address) as one:
            for _ in range(100):
                await one.send("garbage")
            return await one.closed(), one.errors()

    close, errors = asyncio.run(run())
    assert close == 1008 and errors == ["not_json"] * 20 + ["too_many_errors"]


def test_who_says_no_hello_is_sent_away(address, monkeypatch):
    monkeypatch.setattr(live_websocket, "HELLO_WITHIN_S", 0.2)

    async def run():
        async with client(address, None) as one:
            return await one.closed(), one.errors()

    assert asyncio.run(run()) == (1008, ["no_hello"])


def test_a_session_too_many_is_refused_and_its_place_is_free_once_another_ends():
    async def run(address):
        async with client(address) as first:
            await first.event("ready")
            async with client(address) as second:
                refused = await second.closed(), second.errors(), second.events[-1]["message"]
            spoken = await speak(first)
            await first.send({"type": "end"})
            ended = await first.closed()
        for _ in range(3):
            async with client(address) as third:
                assert await third.event("ready")
        return refused, len(spoken), ended

    with served(most=1) as address:
        refused, spoken, ended = asyncio.run(run(address))
    assert refused == (1013, ["busy"], "All 1 live sessions are taken; try again in 30 s.") and (spoken, ended) == (
        13,
        1000,
    )


def test_garbage_slow_readers_and_half_open_sockets_slow_nobody(monkeypatch):
    """One session plays on while another process disturbs; the places that it took are free again."""
    monkeypatch.setattr(live_server, "PING_S", 5.0)

    async def run(address):
        async with client(address) as good:
            await good.event("ready")
            before_mb = peak_mb()
            command = [sys.executable, "-m", "train.bench.live.disturb", address, "8"]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as disturber:
                assert await asyncio.to_thread(disturber.stdout.readline) == b"opened\n"
                ended = asyncio.ensure_future(asyncio.to_thread(disturber.stdout.readline))
                spoken = await speak(good, 3.0)
                assert not ended.done()  # it lasts longer than the reply
                while not ended.done() or not await is_free(address):  # the half-open ones are dropped while it lives
                    await good.event("stats")  # the good one lives
                disturber.kill()
            return spoken, peak_mb() - before_mb

    def peak_mb():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    async def is_free(address):
        async with client(address) as third:
            return await third.event("ready") is not None

    with served(most=2) as address:
        spoken, more_mb = asyncio.run(run(address))
    assert len(spoken) == 75 and spoken[-1][0].index - spoken[0][0].index == 74
    assert more_mb < 100


def test_a_portrait_of_ones_own(address):
    _, content = cv2.imencode(".png", toy.picture(96, 80)[..., ::-1])
    status, answer = post(address, content.tobytes())
    assert (status, answer["width"], answer["height"]) == (201, 96, 80)
    assert post(address, content.tobytes())[1]["portrait"] == answer["portrait"]

    async def run():
        async with client(address, HELLO | {"portrait": answer["portrait"]}) as one:
            return await one.event("ready")

    ready = asyncio.run(run())
    assert (ready["width"], ready["height"]) == (96, 80)
    for content, code in (
        (b"words", 400),
        (b"", 400),
        (bytes(51_000_000), 413),
        (cv2.imencode(".png", np.zeros((9, 9, 3)))[1].tobytes(), 400),
    ):
        status, told = post(address, content)
        assert status == code and told["type"] == "error" and "wanted" in told["message"] or "choose" in told["message"]


def test_a_page_of_another_origin_and_who_has_no_password_are_refused():
    async def refused(address, hello=HELLO, **how):
        async with client(address, hello, **how) as one:
            return await one.closed(), one.errors()

    async def welcome(address, **how):
        async with client(address, **how) as one:
            return (await one.event("ready"))["type"]

    with served("open sesame") as address:
        assert asyncio.run(refused(address)) == (1008, ["not_allowed"])
        assert asyncio.run(refused(address, HELLO | {"token": "1.x"})) == (1008, ["not_allowed"])
        key = {"Authorization": "Bearer open sesame"}
        for origin in ("http://elsewhere", "http://["):
            assert asyncio.run(refused(address, additional_headers=key, origin=origin)) == (1008, ["origin"])
        assert asyncio.run(welcome(address, additional_headers=key)) == "ready"
        assert asyncio.run(welcome(address, additional_headers=key, origin=address.rstrip("/"))) == "ready"
        assert post(address, PORTRAIT.read_bytes())[0] == 401
        assert post(address, PORTRAIT.read_bytes(), Origin="http://elsewhere")[0] == 403
        assert post(address, PORTRAIT.read_bytes(), **key)[0] == 201


def test_a_socket_under_another_name_is_refused(address):
    async def run():
        with pytest.raises(InvalidStatus, match="403"):
            async with client(address.replace("127.0.0.1", "elsewhere.example"), host="127.0.0.1"):
                pass

    asyncio.run(run())


def test_a_port_that_is_taken_is_told():
    told = pytest.raises(OutputError, match="cannot be used .* choose another")
    with socket.create_server(("127.0.0.1", 0)) as taken, told:
        live_server.PageServer(live_server.FastAPI(), port=taken.getsockname()[1])


def test_a_server_that_is_interrupted_while_it_starts_is_closed(monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(live_server, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupt))
    server = live_server.PageServer(live_server.live_app(LiveService(live_pipeline, PORTRAIT)))
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert not server._thread.is_alive()


def test_a_fault_of_the_server_is_told_as_failed():
    def load():
        raise RuntimeError("inside")

    async def run(address):
        async with client(address) as one:
            return await one.closed(), one.errors()

    with served(load=load) as address:
        assert asyncio.run(run(address)) == (1011, ["failed"])
        status, told = post(address, PORTRAIT.read_bytes())
        assert status == 500 and told["code"] == "failed"


def test_who_speaks_while_the_engine_is_loaded_stays_connected_and_is_heard(monkeypatch):
    monkeypatch.setattr(live_server, "PING_S", 1.0)

    def load():
        time.sleep(1.5)  # twice, longer than a ping may take
        return live_pipeline()

    async def run(address):
        async with client(address) as one:
            for _ in range(20):
                await one.send(voice(0.02))
            await one.send({"type": "end"})
            return await one.closed(), [event["samples"] for event in one.events if event["type"] == "ended"]

    with served(load=load) as address:
        assert asyncio.run(run(address)) == (1000, [20 * 320])
