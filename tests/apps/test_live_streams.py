"""`kdtalker live` over the toy engine: what arrives at files, pipes and servers, decoded again; and WebRTC calls."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest
import toy
from fastapi import FastAPI, Request
from fastapi.responses import Response
from live_client import PORTRAIT, ROOT, served
from test_cli import write_wav

from kdtalker.apps.live import command
from kdtalker.apps.live.command import _summary
from kdtalker.apps.live.outputs import open_output
from kdtalker.apps.live.server import PageServer
from kdtalker.core.errors import InputError, OutputError
from kdtalker.live.frames import Activity, LiveFrame, PictureState
from kdtalker.media.video import read_video
from kdtalker.media.video_writer import TAG

SOUND_S = 1.0
WITHIN_S = 60.0


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    write_wav(path, toy.sound(SOUND_S))
    return path


def live(voice, target, *more):
    return [
        sys.executable, str(ROOT / "tests" / "toy.py"), "live", "--image", str(PORTRAIT), "--audio", str(voice), "--to",
        str(target), "--lookahead", "-1", *more,
    ]  # fmt: skip


def run(voice, target, *more, **how):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(
        live(voice, target, *more), env=environment, capture_output=True, timeout=120, check=False, **how
    )


def decode(where):
    """Pictures (H, W), samples and the codecs' names of a stream."""
    with av.open(where) as container:
        codecs = [stream.codec.name for stream in container.streams]
        pictures, samples = [], []
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                pictures.append(frame.to_ndarray(format="gray"))
            else:
                samples.append(frame.to_ndarray()[0])
    return pictures, np.concatenate(samples), codecs


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_a_file_holds_the_sound_with_a_picture_for_each_40_ms(voice, tmp_path, suffix):
    done = run(voice, tmp_path / f"live{suffix}")
    assert done.returncode == 0 and b"s sent" in done.stdout, done.stderr
    pictures, samples, codecs = decode(str(tmp_path / f"live{suffix}"))
    assert codecs == ["h264", "aac"] and pictures[0].shape == (512, 436)
    assert len(pictures) >= SOUND_S * 25 and abs(len(samples) / 48_000 - len(pictures) / 25) < 0.06
    loud = np.abs(samples) > 0.05
    assert loud.sum() > 1000 and (len(loud) - np.argmax(loud)) / 48_000 == pytest.approx(SOUND_S, abs=0.25)
    assert [path.name for path in tmp_path.iterdir()] == [f"live{suffix}"]
    with av.open(str(tmp_path / f"live{suffix}")) as container:
        comments = [value for name, value in container.metadata.items() if name.lower() == "comment"]
    assert suffix == ".ts" or comments == [TAG]  # MPEG-TS holds none


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_colours_are_those_of_films(tmp_path, suffix):
    colour, sound = (200, 60, 40), np.zeros(1920, np.float32)
    picture = np.full((48, 64, 3), colour, np.uint8)
    output = open_output(str(tmp_path / f"live{suffix}"))
    for index in range(5):
        output.write(LiveFrame(index, picture, sound, Activity.IDLE, PictureState.NEW, None, 0))
    output.close()
    with av.open(str(tmp_path / f"live{suffix}")) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
    np.testing.assert_allclose(next(read_video(tmp_path / f"live{suffix}")).mean((0, 1)), colour, atol=4)


def test_what_was_sent_is_told_in_sentences():
    new, degraded, repeated = PictureState
    assert _summary(Counter({new: 50}), 0) == "2.0 s sent, 50 frames. Each has a picture of its own, drawn in full."
    told = _summary(Counter({new: 46, degraded: 1, repeated: 3}), 2)
    assert told == (
        "2.0 s sent, 50 frames. Among them are 46 with a picture of their own, drawn in full, 1 with one that was "
        "drawn without the details of the mouth, or came late, 3 with the picture of the frame before. Pictures of "
        "speech that could not be drawn in time: 2."
    )


def test_a_pipe_takes_mpeg_ts_and_nothing_else(voice, tmp_path):
    done = run(voice, "-", "--duration", "1")
    assert done.returncode == 0, done.stderr
    (tmp_path / "piped.ts").write_bytes(done.stdout)
    pictures, _, codecs = decode(str(tmp_path / "piped.ts"))
    assert len(pictures) == 25 and codecs == ["h264", "aac"]
    assert b"-: 1.0 s sent, 25 frames." in done.stderr


def test_a_pipe_that_is_closed_ends_the_command_in_one_line(voice):
    command_line = live(voice, "-")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(command_line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        told = process.stderr.read().decode()
        assert process.wait(timeout=60) == 1
    assert told.startswith("kdtalker: The target '-' takes no stream") and told.count("\n") == 1


def test_udp_arrives(voice):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    receiver = (
        "import sys, av; film = av.open(sys.argv[1], timeout=60.0).decode(video=0); [next(film) for _ in range(20)]"
    )
    address = f"udp://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-c", receiver, address]) as other:
        time.sleep(1)  # nothing tells that it listens
        done = run(voice, address)
        assert done.returncode == 0, done.stderr
        assert other.wait(timeout=WITHIN_S) == 0


def test_an_interrupted_file_is_whole(voice, tmp_path):
    target = tmp_path / "live.mkv"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    write_wav(tmp_path / "long.wav", toy.sound(60.0))
    with subprocess.Popen(live(tmp_path / "long.wav", target), env=environment, stdout=subprocess.PIPE) as process:
        ends = time.monotonic() + WITHIN_S
        while time.monotonic() < ends and not any(path.stat().st_size > 50_000 for path in tmp_path.glob(".kd*.part")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=WITHIN_S) == 0 and b"s sent" in process.stdout.read()
    assert len(decode(str(target))[0]) > 5


BAD_TARGETS = {
    "live.avi": (InputError, "is not known, wanted - .MPEG-TS"),
    "ftp://x/y": (InputError, "is not known"),
    "": (InputError, "is not known"),
    "/nowhere/live.mp4": (InputError, "nowhere"),
    "rtmp://127.0.0.1:1/x": (OutputError, "does it listen?"),
    "whip+http://127.0.0.1:1/x": (OutputError, "does it listen?"),
}


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_targets_that_cannot_be_are_told(voice, tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    error, told = BAD_TARGETS[target]
    with pytest.raises(error, match=told):
        command.run(live(voice, target)[3:], lambda job: toy.pipeline())
    assert list(tmp_path.iterdir()) == []


def test_a_microphone_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    arguments = ["--image", str(PORTRAIT), "--microphone", "--to", str(tmp_path / "live.mp4"), "--lookahead", "-1"]
    with pytest.raises(InputError, match=r"kdtalker\[microphone\]"):
        command.run(arguments, lambda job: toy.pipeline())
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(InputError, match=r"kdtalker\[camera\]"):
        command.run([*arguments[:2], "--audio", str(PORTRAIT), "--to", "camera"], lambda job: toy.pipeline())
    assert list(tmp_path.iterdir()) == []


@contextmanager
def whip_server(received):
    """A WHIP endpoint that counts what it decodes."""
    aiortc = pytest.importorskip("aiortc")
    app, peers = FastAPI(), []

    async def count(track):
        while True:
            await track.recv()
            received[track.kind] += 1

    @app.post("/whip")
    async def publish(request: Request):
        peer = aiortc.RTCPeerConnection()
        peers.append(peer)
        peer.on("track", lambda track: peers.append(asyncio.ensure_future(count(track))))
        offer = aiortc.RTCSessionDescription((await request.body()).decode(), "offer")
        await peer.setRemoteDescription(offer)
        await peer.setLocalDescription(await peer.createAnswer())
        return Response(peer.localDescription.sdp, 201, {"Location": "/whip/1"}, "application/sdp")

    @app.delete("/whip/1")
    async def end():
        return Response()

    server = PageServer(app)
    server.start()
    try:
        yield f"whip+{server.address}whip"
    finally:
        server.close()


def test_whip_reaches_a_server_and_leaves_no_certificate(voice, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    received = {"audio": 0, "video": 0}
    with whip_server(received) as address:
        done = run(voice, address)
    assert done.returncode == 0, done.stderr
    assert received["video"] > 15 and received["audio"] > 30
    assert list(tmp_path.glob("kdtalker-*")) == []


def microphone():
    """A track of noise at 48 kHz, in packets of 20 ms."""
    mediastreams = pytest.importorskip("aiortc.mediastreams")

    class Noise(mediastreams.MediaStreamTrack):
        kind, count = "audio", 0

        async def recv(self):
            await asyncio.sleep(0.02)
            frame = av.AudioFrame(format="s16", layout="mono", samples=960)
            frame.planes[0].update((3000 * np.random.default_rng(0).standard_normal(960)).astype("<i2").tobytes())
            frame.pts, frame.sample_rate, frame.time_base = 960 * self.count, 48_000, Fraction(1, 48_000)
            self.count += 1
            return frame

    return Noise()


def ask(address, method, content=None):
    request = urllib.request.Request(address, content, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


async def call(address, frames=60):
    """Call; returns time stamps of pictures and sounds, the loudness heard, events, and the call's answers."""
    import aiortc

    peer, tracks, events = aiortc.RTCPeerConnection(), {}, []
    peer.addTrack(microphone())
    peer.addTransceiver("video", direction="recvonly")
    channel = peer.createDataChannel("control")
    channel.on("message", lambda message: events.append(json.loads(message)))
    channel.on("open", lambda: channel.send("nonsense"))
    peer.on("track", lambda track: tracks.update({track.kind: track}))
    await peer.setLocalDescription(await peer.createOffer())
    status, headers, answer = await asyncio.to_thread(
        ask, f"{address}v1/whep", "POST", peer.localDescription.sdp.encode()
    )
    assert status == 201, answer
    second = await asyncio.to_thread(ask, f"{address}v1/whep", "POST", peer.localDescription.sdp.encode())
    await peer.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))

    async def read(kind, count):
        return [await tracks[kind].recv() for _ in range(count)]

    pictures, sounds = await asyncio.wait_for(
        asyncio.gather(read("video", frames), read("audio", 2 * frames)), WITHIN_S
    )
    ended = await asyncio.to_thread(ask, f"{address}{headers['Location'][1:]}", "DELETE")
    again = await asyncio.to_thread(ask, f"{address}{headers['Location'][1:]}", "DELETE")
    await peer.close()
    return pictures, sounds, events, second, (ended[0], again[0])


def test_a_call_answers_in_the_callers_voice_at_25_frames_a_second():
    pytest.importorskip("aiortc")
    with served(most=1) as address:
        pictures, sounds, events, second, ended = asyncio.run(call(address))
    steps = np.diff([frame.pts for frame in pictures])
    assert (steps % 3600 == 0).all() and np.diff([frame.pts for frame in sounds]).min() == 960
    assert max(np.abs(frame.to_ndarray()).max() for frame in sounds) > 1000
    assert [event["code"] for event in events if event["type"] == "error"] == ["not_json"]
    assert any(event["type"] == "stats" for event in events)
    assert second[0] == 503 and second[1]["Retry-After"] == "30" and json.loads(second[2])["code"] == "busy"
    assert ended == (200, 404)


async def end_call(address):
    """Call, end it by the data channel while the microphone goes on; returns events once the server has closed."""
    import aiortc

    peer, events, has_closed = aiortc.RTCPeerConnection(), [], asyncio.Event()
    peer.addTrack(microphone())
    channel = peer.createDataChannel("control")
    channel.on("message", lambda message: events.append(json.loads(message)))
    channel.on("close", has_closed.set)
    channel.on("open", lambda: asyncio.get_running_loop().call_later(0.5, channel.send, '{"type": "end"}'))
    await peer.setLocalDescription(await peer.createOffer())
    offer = peer.localDescription.sdp.encode()
    _, _, answer = await asyncio.to_thread(ask, f"{address}v1/whep", "POST", offer)
    await peer.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(has_closed.wait(), WITHIN_S)
    await peer.close()
    return events


def test_a_call_ends_without_an_error_though_its_microphone_goes_on():
    pytest.importorskip("aiortc")
    with served(most=1) as address:
        events = asyncio.run(end_call(address))
    assert [event for event in events if event["type"] == "error"] == []


@pytest.mark.parametrize("duration", ["nan", "-1", "0"])
def test_a_duration_that_is_none_is_refused(duration):
    with pytest.raises(InputError, match="above 0"):
        command.run(["--image", "a.png", "--audio", "a.wav", "--to", "-", "--duration", duration])


MEDIA = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n"
    b"a=mid:0\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=setup:actpass\r\na=recvonly\r\n"
)
ICE = b"a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"
FINGERPRINT = b"a=fingerprint:sha-256 " + b":".join([b"AB"] * 32) + b"\r\n"
NO_OFFERS = {
    b"": "no SDP offer", b"words": "no SDP offer", b"v=0\r\nm=nothing": "no SDP offer",
    b"v=0\r\n" + bytes(300_000): "wanted at most", MEDIA + ICE: "no fingerprint",
    MEDIA + ICE + FINGERPRINT.replace(b":AB", b"", 1): "no fingerprint",
    MEDIA + ICE + FINGERPRINT.replace(b"sha-256", b"sha-1"): "no fingerprint",
    MEDIA + FINGERPRINT: "no ICE credentials", MEDIA.replace(b"opus", b"speex") + ICE + FINGERPRINT: "no SDP offer",
}  # fmt: skip


def test_what_is_no_offer_is_told_in_a_sentence_and_takes_no_place():
    pytest.importorskip("aiortc")
    with served(most=1) as address:
        for offer, reason in NO_OFFERS.items():
            status, _, answer = ask(f"{address}v1/whep", "POST", offer)
            told = json.loads(answer)["message"]
            assert status in (400, 413) and reason in told and "wanted" in told and "Error" not in told
