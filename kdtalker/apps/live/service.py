"""Hold what all live sessions share: the engine, encoded faces, and the threads that work beside their clock."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Generic, TypeVar

from kdtalker.apps.live.access import Access
from kdtalker.apps.live.admission import Admission, rehearse
from kdtalker.apps.live.wire import Hello, ProtocolError
from kdtalker.apps.uploads import UploadLimits, read_picture
from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import KDTalkerError
from kdtalker.core.options import Options
from kdtalker.live.face import LiveFace
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession
from kdtalker.media.picture import encode_jpeg
from kdtalker.pipeline import TalkingPortraitPipeline
from kdtalker.tts.speak import synthesise_text

KeyT = TypeVar("KeyT", bound=Hashable)
ResultT = TypeVar("ResultT")

FACES_KEPT = 8
ENDS_WITHIN_S = 5.0  # a session that is ending is waited for so long
FREE_WITHIN_S = 0.3  # a place that becomes free within so long is waited for: its session may just have ended
JPEG_QUALITY = 85
_IDLE_POLL_S = 1.0

_log = logging.getLogger(__name__)


class FaceCache(Generic[KeyT]):
    """Make faces once and keep them; the least recently used goes first, but none that is held."""

    def __init__(self, most: int = FACES_KEPT) -> None:
        """most: faces that are kept, beside those that are held."""
        self._most = most
        self._tasks: OrderedDict[KeyT, asyncio.Task[LiveFace]] = OrderedDict()
        self._holds = Counter[KeyT]()

    def __contains__(self, key: KeyT) -> bool:
        return key in self._tasks

    async def get(self, key: KeyT, make: Callable[[], Awaitable[LiveFace]]) -> LiveFace:
        """Return a face, which is made where it is not kept; all who ask meanwhile wait for the same one. Raises what
        `make` raises; who asks next tries again."""
        if key not in self._tasks:
            self._tasks[key] = asyncio.ensure_future(make())
            self._tasks[key].add_done_callback(lambda task: self._forget_failed(key, task))
        with self.hold(key):
            return await asyncio.shield(self._tasks[key])

    def _forget_failed(self, key: KeyT, task: asyncio.Task[LiveFace]) -> None:
        if (task.cancelled() or task.exception() is not None) and self._tasks.get(key) is task:
            del self._tasks[key]

    @contextmanager
    def hold(self, key: KeyT) -> Iterator[None]:
        """Keep a face for so long."""
        self._holds[key] += 1
        try:
            yield
        finally:
            self._holds[key] -= 1
            if key in self._tasks:
                self._tasks.move_to_end(key)
            self._evict()

    def _evict(self) -> None:
        """Drop faces until no more than the most are kept beside those that are held, the least recently used first."""
        self._holds = +self._holds  # without those that are zero
        free = [key for key in self._tasks if key not in self._holds]
        for key in free[: max(0, len(free) - self._most)]:
            del self._tasks[key]


@dataclass(eq=False)
class Place:
    """Hold the place of one session. is_ending: it will be free in a moment, and who asks for one waits."""

    is_ending: bool = False


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
        """load: loads the engine; portrait: the picture of who names none; most: sessions at a time (default: one for
        each two cores)."""
        self.limits, self.access, self.admission = limits or UploadLimits(), access or Access(), Admission(most)
        self._load, self._default = load, portrait
        self._loading = Lock()
        self._loaded: TalkingPortraitPipeline[Any] | None = None
        self._portraits = FaceCache[str | None]()  # by id; None: that of the server
        self._variants = FaceCache[tuple[str | None, Options]]()  # with the options of a session
        self._one_encoding = asyncio.Semaphore(1)
        self._pictures = ThreadPoolExecutor(2, "kdtalker-jpeg")  # whose clock goes on while the others are at work
        self._pool = ThreadPoolExecutor(4, "kdtalker-live")
        self._voices = ThreadPoolExecutor(2, "kdtalker-say")  # texts hold up no session that opens or closes
        self._running: dict[LiveSession, ExitStack] = {}  # with what they hold
        self._own = ExitStack()  # which is always held
        self._own.enter_context(self._portraits.hold(None))
        self._own.enter_context(self._variants.hold((None, Options())))
        self._places: set[Place] = set()

    async def preload(self) -> None:
        """Load the engine and the server's own face, and measure what its frames cost, so that the first session begins
        at once. Errors are left to that session, which tries again."""
        is_stopped = Event()
        loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def load() -> None:
            error: Exception | None = None
            try:
                self._pipeline()
            except Exception as raised:
                error = raised
            with suppress(RuntimeError):  # the loop was closed
                loaded.get_loop().call_soon_threadsafe(settle, error)

        def settle(error: Exception | None) -> None:
            if not loaded.done():  # it was cancelled
                loaded.set_exception(error) if error else loaded.set_result(None)

        Thread(target=load, daemon=True).start()  # which keeps no process alive that is ended meanwhile
        try:
            await loaded
            face = await self.face(None)
            cost_ms = 0.0
            while not cost_ms:  # it gives way to sessions
                while self._places:
                    await asyncio.sleep(_IDLE_POLL_S)
                rehearsal = self.run(lambda: rehearse(face, lambda: not self._places and not is_stopped.is_set()))
                cost_ms = await rehearsal
            self.admission.learn(cost_ms)
        except Exception as error:
            text = "The server's own face could not be loaded, the first session tries again: %s"
            _log.warning(text, error, exc_info=not isinstance(error, KDTalkerError))
        finally:
            is_stopped.set()

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[Place]:
        """Keep a place for a session. Raises ProtocolError where there is none, before any work is done."""
        refused_s = time.monotonic() + FREE_WITHIN_S
        while not self._has_place(time.monotonic() - refused_s):
            await asyncio.sleep(0.01)
        place = Place()
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.remove(place)

    def _has_place(self, late_s: float) -> bool:
        """Tell whether there is a place; False while one may become free. Raises ProtocolError where there is none, so
        many seconds after a place that is kept would have been."""
        running = [session.stats for session in self._running]
        try:
            self.admission.check(running, len(self._places) - len(running))
        except ProtocolError:
            ends_soon = late_s < ENDS_WITHIN_S and any(place.is_ending for place in self._places)
            if late_s >= 0 and not ends_soon:
                raise
            return False
        return True

    async def add_portrait(self, content: bytes) -> str:
        """Encode an uploaded picture; return its id, a hash of its content. Raises InputError for what is none."""
        key = hashlib.sha256(content).hexdigest()[:32]
        await self._portraits.get(key, lambda: self._encode(lambda: self._read_upload(content)))
        return key

    async def open(self, hello: Hello) -> LiveSession:
        """Open a session. Raises ProtocolError for a portrait that is not here, InputError as LiveSession."""
        options = hello.options
        variant = hello.portrait, options.options
        with ExitStack() as held:
            held.enter_context(self._portraits.hold(hello.portrait))
            held.enter_context(self._variants.hold(variant))
            portrait = await self.face(hello.portrait)

            async def vary() -> LiveFace:
                return portrait.with_options(LiveOptions(options=options.options))

            face = (await self._variants.get(variant, vary)).with_options(options)
            session = await self.run(lambda: face.start(options.sample_rate))
            self._running[session] = held.pop_all()
        return session

    async def close(self, session: LiveSession) -> None:
        """Close a session that `open` returned."""
        if session in self._running:
            self._running.pop(session).close()
        await self.run(session.close)

    async def face(self, key: str | None) -> LiveFace:
        """Return an encoded portrait by its id; None: that of the server. Raises ProtocolError for an unknown id."""
        if key is not None and key not in self._portraits:
            raise ProtocolError("portrait", f"There is no portrait '{key[:40]}' here; send it to /v1/portraits first.")
        return await self._portraits.get(key, lambda: self._encode(lambda: read_picture(self._default, self.limits)))

    async def _encode(self, read: Callable[[], Image]) -> LiveFace:
        async with self._one_encoding:  # those who speak meanwhile need the other cores
            return await self.run(lambda: LiveFace.encode(self._pipeline(), read()))

    def _pipeline(self) -> TalkingPortraitPipeline[Any]:
        with self._loading:
            self._loaded = self._loaded or self._load()
            return self._loaded

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
        return await asyncio.get_running_loop().run_in_executor(self._pictures, self._encode_jpeg, picture)

    def _encode_jpeg(self, picture: Image) -> bytes:
        began_s = time.perf_counter()
        content = encode_jpeg(picture, JPEG_QUALITY)
        self.admission.learn_encoding(1000 * (time.perf_counter() - began_s))
        return content
