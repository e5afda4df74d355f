"""KDTalkerAvatar in an AgentSession: the agent's audio goes through the face."""

import asyncio

import pytest
from livekit.agents import AgentSession
from livekit.plugins.kdtalker import KDTalkerAvatar, SegmentAudioOutput
from livekit.plugins.kdtalker import avatar as kdtalker_avatar
from stub_room import StubRoom
from stub_session import StubFace
from test_segments import speech


async def test_the_session_speaks_through_the_face_which_is_published_by_the_agent():
    face, room, session, metrics = StubFace(), StubRoom(), AgentSession(), []
    avatar = KDTalkerAvatar(face, sample_rate=16_000)
    avatar.on("metrics_collected", metrics.append)
    await avatar.start(session, room)
    assert isinstance(session.output.audio, SegmentAudioOutput) and session.output.audio.sample_rate == 16_000
    await session.output.audio.capture_frame(speech(0.2))
    session.output.audio.flush()
    event = await asyncio.wait_for(session.output.audio.wait_for_playout(), 60)
    assert not event.interrupted and round(event.playback_position, 6) == 0.2
    await avatar.wait_for_join(timeout=10)
    assert set(room.local_participant.track_publications) == {"avatar_audio", "avatar_video"}
    assert avatar.avatar_identity == "agent" and metrics[0].metadata.model_provider == "kdtalker"
    await avatar.aclose()
    await avatar.aclose()
    assert face.session.closed == 1 and avatar.avatar_identity == "agent"


async def test_what_a_runner_holds_is_released_where_it_does_not_start(monkeypatch):
    runners, make = [], kdtalker_avatar.make_runner

    def make_runner(*inputs):
        runners.append(make(*inputs))
        monkeypatch.setattr(StubRoom, "isconnected", refuse)  # which it asks once it listens
        return runners[0]

    def refuse(*_):
        raise ConnectionError("no room")

    monkeypatch.setattr(kdtalker_avatar, "make_runner", make_runner)
    face, room = StubFace(), StubRoom()
    with pytest.raises(ConnectionError, match="no room"):
        await KDTalkerAvatar(face, sample_rate=16_000).start(AgentSession(), room)
    (runner,) = runners
    assert runner._audio_source._ffi_handle.disposed and runner._video_source._ffi_handle.disposed
    assert not any(room._events.values()) and face.session.closed == 1


@pytest.mark.parametrize("method", ["isconnected", "on"])  # that the avatar calls first, and its runner
async def test_a_face_that_gets_no_room_is_closed(monkeypatch, method):
    def refuse(*_):
        raise ConnectionError("no room")

    monkeypatch.setattr(StubRoom, method, refuse)
    face, session = StubFace(), AgentSession()
    avatar = KDTalkerAvatar(face, sample_rate=16_000)
    with pytest.raises(ConnectionError, match="no room"):
        await avatar.start(session, StubRoom())
    assert face.session.closed == 1 and session.output.audio is None
    monkeypatch.undo()
    await avatar.start(session, StubRoom())  # another try
    await avatar.aclose()
    assert face.session.closed == 1
