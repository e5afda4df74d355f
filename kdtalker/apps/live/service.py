"""Hold what all live sessions share: the engine, encoded portraits, and the number of sessions that may run."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from kdtalker.apps.live.access import Access
from kdtalker.apps.live.wire import TRY_LATER, Hello, ProtocolError
from kdtalker.apps.uploads import UploadLimits, read_picture
from kdtalker.core.arrays import Array, Image
from kdtalker.core.options import Options
from kdtalker.core.protocols import EncodedPortrait
from kdtalker.live.idle import IdleLoop
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession
from kdtalker.media.picture import encode_jpeg
from kdtalker.pipeline import TalkingPortraitPipeline
from kdtalker.tts.speak import synthesise_text

ResultT = TypeVar("ResultT")

SIDE_PX = 512  # longer side of a live picture
PORTRAITS_KEPT = 8
JPEG_QUALITY = 85
CORES_A_SESSION = 2
RETRY_AFTER_S = 30
FRAME_BUDGET_MS = 32.0  # of 40 ms, that the frames of all sessions may take together


class LiveService:
    """Open live sessions, as many as there is headroom for."""

    def __init__(
        self,
        load: Callable[[], TalkingPortraitPipeline[Any]],
        portrait: Path,
        *,
        limits: UploadLimits | None = None,
        most: int | None = None,
        access: Access | None = None,
    ) -> None:
        """load: returns the engine, loading it at the first call; portrait: the picture of who names none; most:
        sessions at a time (default: one for each two cores)."""
        self.limits, self.access = limits or UploadLimits(), access or Access()
        self.most = most or max(1, (os.cpu_count() or 1) // CORES_A_SESSION)
        self._load, self._default = load, portrait
        self._portraits: OrderedDict[str, asyncio.Task[EncodedPortrait[Any]]] = OrderedDict()
        self._idle: dict[tuple[str | None, Options], IdleLoop] = {}
        self._pictures = ThreadPoolExecutor(2, "kdtalker-jpeg")  # whose clock goes on while the others are at work
        self._pool = ThreadPoolExecutor(4, "kdtalker-live")
        self._voices = ThreadPoolExecutor(2, "kdtalker-say")  # texts hold up no session that opens or closes
        self._running: list[LiveSession] = []
        self._places = self._closing = 0

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Keep a place for a session. Raises ProtocolError where there is none, before any work is done."""
        while self._places >= self.most and self._closing:  # of who comes back at once
            await asyncio.sleep(0.01)
        if self._places >= self.most:
            raise ProtocolError(
                "busy", f"All {self.most} live sessions are taken; try again in {RETRY_AFTER_S} s.", TRY_LATER
            )
        spent_ms = sum(stats.hear_ms + stats.draw_ms for stats in (session.stats for session in self._running))
        if self._running and spent_ms * (len(self._running) + 1) / len(self._running) > FRAME_BUDGET_MS:
            raise ProtocolError(
                "busy", f"The sessions that run need {spent_ms:.0f} of each 40 ms, which leaves none for another; "
                f"try again in {RETRY_AFTER_S} s.", TRY_LATER,
            )  # fmt: skip
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1

    async def add_portrait(self, content: bytes) -> str:
        """Encode an uploaded picture; return its id, a hash of its content. Raises InputError for what is none."""
        key = hashlib.sha256(content).hexdigest()[:32]
        await self._portrait(key, lambda: self._read_upload(content))
        return key

    async def open(self, hello: Hello) -> LiveSession:
        """Open a session. Raises ProtocolError for a portrait that is not here, InputError as LiveSession."""
        portrait = await self.portrait(hello.portrait)
        more = {} if hello.lookahead is None else {"lookahead": hello.lookahead}
        options = LiveOptions(options=hello.options, sample_rate=hello.rate_hz, source=hello.source, **more)
        life = hello.portrait, hello.options
        session = await self.run(lambda: LiveSession(self._load(), portrait, options, idle=self._idle.get(life)))
        self._idle[life] = session.idle  # of the same face and options it is drawn once
        for old in list(self._idle)[:-PORTRAITS_KEPT]:
            del self._idle[old]
        self._running.append(session)
        return session

    async def close(self, session: LiveSession) -> None:
        """Close a session that `open` returned."""
        if session in self._running:
            self._running.remove(session)
        self._closing += 1
        try:
            await self.run(session.close)
        finally:
            self._closing -= 1

    async def portrait(self, key: str | None) -> EncodedPortrait[Any]:
        """Return an encoded portrait by its id; None: that of the server. Raises ProtocolError for an unknown id."""
        if key is None:
            return await self._portrait("", lambda: read_picture(self._default, self.limits))
        if key not in self._portraits:
            raise ProtocolError("portrait", f"There is no portrait '{key[:40]}' here; send it to /v1/portraits first.")
        return await self._portraits[key]

    async def _portrait(self, key: str, read: Callable[[], Image]) -> EncodedPortrait[Any]:
        if key not in self._portraits:
            encode = self.run(lambda: self._load().portrait(read(), max_side=SIDE_PX))
            self._portraits[key] = asyncio.ensure_future(encode)
        self._portraits.move_to_end(key)
        task = self._portraits[key]
        try:
            return await asyncio.shield(task)
        except BaseException:
            if task.done():
                self._portraits.pop(key, None)  # the next visitor tries again
            raise
        finally:
            for old in list(self._portraits)[:-PORTRAITS_KEPT]:
                del self._portraits[old]

    def _read_upload(self, content: bytes) -> Image:
        with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
            path = Path(folder) / "picture"
            path.write_bytes(content)
            return read_picture(path, self.limits)

    async def run(self, work: Callable[[], ResultT]) -> ResultT:
        """Run work in a thread of the service, so that the sessions' clock goes on meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def synthesise(self, text: str, voice: str | None, rate_hz: int) -> Array:
        """Synthesise a text: float32 samples (N,). Raises InputError as `synthesise_text`."""
        return await asyncio.get_running_loop().run_in_executor(self._voices, synthesise_text, text, voice, rate_hz)

    async def encode_jpeg(self, picture: Image) -> bytes:
        """Encode a picture (H, W, 3) as JPEG."""
        loop = asyncio.get_running_loop()
        content: bytes = await loop.run_in_executor(self._pictures, encode_jpeg, picture, JPEG_QUALITY)
        return content
