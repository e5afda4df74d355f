"""Avatar of an agent session: the agent itself publishes the voice and the face that speaks it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Protocol

from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.voice.avatar import AvatarOptions, AvatarRunner, AvatarSession

from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.face import LiveFace
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession

from .audio_output import SegmentAudioOutput
from .generator import KDTalkerVideoGenerator


class Face(Protocol):
    """Start live sessions; see `kdtalker.live.face.LiveFace`."""

    @property
    def size(self) -> tuple[int, int]: ...

    def start(self, sample_rate: int) -> LiveSession: ...


class KDTalkerAvatar(AvatarSession[str]):
    """Give an agent a face in its own process: its audio goes through the face, and the agent publishes both."""

    def __init__(
        self, face: Face | Path | str, *, sample_rate: int = 24_000, options: LiveOptions | None = None
    ) -> None:
        """face: a `LiveFace` that was loaded before, which any number of jobs may share, or the path of a picture,
        which `start` loads with these options. sample_rate: Hz of the published sound, a multiple of 25."""
        super().__init__()
        self._face, self._rate, self._options = face, sample_rate, options or LiveOptions()
        self._identity = ""
        self._generator: KDTalkerVideoGenerator | None = None
        self._runner: AvatarRunner | None = None

    @property
    def avatar_identity(self) -> str:
        """Return the identity of the participant that publishes the face: the agent's own."""
        return self._room.local_participant.identity if self._room is not None else self._identity

    @property
    def provider(self) -> str:
        """Return the name of the provider in metrics."""
        return "kdtalker"

    async def start(self, agent_session: AgentSession[Any], room: rtc.Room) -> None:
        """Load the face and let the agent speak through it. Call it before `agent_session.start`.

        Raises InputError where the picture has no face; the agent then has its voice alone."""
        face = self._face
        if isinstance(face, (str, Path)):
            face = await asyncio.to_thread(LiveFace.load, face, self._options)
        buffer_s = face.options.buffer_s if isinstance(face, LiveFace) else self._options.buffer_s
        session = await asyncio.to_thread(face.start, self._rate)
        self._generator = KDTalkerVideoGenerator(session, sample_rate=self._rate, buffer_s=buffer_s)
        output = SegmentAudioOutput(sample_rate=self._rate)
        try:
            await super().start(agent_session, room)
            runner = make_runner(room, self._generator, output, face.size)
            try:
                await runner.start()
            except BaseException:
                await close_unstarted(runner, room, output)
                raise
            self._runner = runner
        except BaseException:
            await self.aclose()
            raise
        agent_session.output.replace_audio_tail(output)

    async def aclose(self) -> None:
        """End the face; may be called again. The agent stays in the room."""
        generator, self._generator = self._generator, None
        runner, self._runner = self._runner, None
        if generator is not None:
            await generator.aclose()
        if runner is not None:
            await runner.aclose()
        if self._room is not None:  # else the base class would remove the avatar, the agent itself, from the room
            self._identity = self._room.local_participant.identity
            self._room.off("connection_state_changed", self._on_connection_state_changed)
            self._room = None
        await super().aclose()


def make_runner(
    room: rtc.Room, generator: KDTalkerVideoGenerator, output: SegmentAudioOutput, size: tuple[int, int]
) -> AvatarRunner:
    """Make the runner that publishes what a generator makes of an output's audio. When the buffer is cleared it also
    drops what waits in the room's sources, and the output is told how much sound that was.

    size: width and height of the pictures in px."""
    rate = generator.sample_rate
    options = AvatarOptions(
        video_width=size[0],
        video_height=size[1],
        video_fps=FRAME_RATE_HZ,
        audio_sample_rate=rate,
        audio_channels=1,
    )
    runner = AvatarRunner(room, audio_recv=output, video_gen=generator, options=options)

    async def drop_queued() -> None:
        output.dropped_s = runner._audio_source.queued_duration
        await runner.av_sync.clear_queue()

    generator.drop_queued = drop_queued
    return runner


async def close_unstarted(runner: AvatarRunner, room: rtc.Room, output: SegmentAudioOutput) -> None:
    """Close a runner that failed to start: its own `aclose` raises where there are no tasks yet."""
    with contextlib.suppress(KeyError):  # it does not listen yet
        room.off("connection_state_changed", runner._on_connection_state_changed)
    await output.aclose()
    await runner.av_sync.aclose()
    await runner._audio_source.aclose()
    await runner._video_source.aclose()
