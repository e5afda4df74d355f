"""One reply by the real engine: the bundled portrait speaks a bundled voice."""

import asyncio
import wave
from pathlib import Path

import numpy as np
from livekit import rtc
from livekit.agents import AgentSession
from livekit.plugins.kdtalker import KDTalkerAvatar, LiveFace
from stub_room import StubRoom

EXAMPLES = Path(__file__).parents[3] / "examples"


async def test_a_portrait_speaks():
    with wave.open(str(EXAMPLES / "austen_0870.wav")) as voice:
        rate = voice.getframerate()
        pcm = voice.readframes(rate)  # a second
    face = await asyncio.to_thread(LiveFace.load, EXAMPLES / "grace_hopper.jpg", max_side=256)
    avatar, session, pushed = KDTalkerAvatar(face, sample_rate=rate), AgentSession(), []
    await avatar.start(session, StubRoom())
    push, sync = avatar._runner.av_sync.push, avatar._runner.av_sync

    async def note(frame, timestamp=None):
        pushed.append(frame)
        await push(frame, timestamp)

    sync.push = note
    output = session.output.audio
    for start in range(0, len(pcm), 1998):
        piece = pcm[start : start + 1998]
        await output.capture_frame(rtc.AudioFrame(piece, rate, 1, len(piece) // 2))
    output.flush()
    event = await asyncio.wait_for(output.wait_for_playout(), 120)
    assert not event.interrupted and round(event.playback_position, 6) == len(pcm) / 2 / rate
    await avatar.aclose()
    assert b"".join(bytes(frame.data) for frame in pushed if isinstance(frame, rtc.AudioFrame)) == pcm
    pictures = [frame for frame in pushed if isinstance(frame, rtc.VideoFrame)]
    assert {(frame.width, frame.height) for frame in pictures} == {face.size}
    arrays = [np.frombuffer(frame.data, np.uint8).astype(int) for frame in pictures]
    assert max(np.abs(one - two).max() for one, two in zip(arrays, arrays[1:], strict=False)) > 30  # lips
