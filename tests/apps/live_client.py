"""Clients of the live routes for tests, and the server over the toy engine."""

import asyncio
import json
import urllib.error
import urllib.request
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import numpy as np
import toy
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from kdtalker.apps.live.access import Access
from kdtalker.apps.live.server import PageServer, live_app
from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.wire import unpack_frame
from kdtalker.core.protocols import SlidingSpeech, Speech

HOP_FRAMES = 2
ROOT = Path(__file__).parents[2]
PORTRAIT = ROOT / "examples" / "grace_hopper.jpg"
HELLO = {"type": "hello", "version": 1, "rate": 16000}
TIMEOUT_S = 60.0  # for machines that are busy


class SlidingToyEncoder:
    """State: loudness of the frames so far."""

    lookahead = 4

    def start(self):
        return toy.NOTHING

    def slide(self, state, samples):
        state = np.concatenate([state, toy._loudness(samples)])[-HOP_FRAMES - self.lookahead :]
        return state, state


class SlidingToyModel(toy.ToyModel):
    def slide(self, state, features):
        motion, state = self.advance(state, features[:HOP_FRAMES], last=True)
        return motion, state


def live_pipeline():
    """The toy engine with motion that looks ahead by frames."""
    sliding = SlidingSpeech(SlidingToyEncoder(), SlidingToyModel(), HOP_FRAMES, SlidingToyEncoder.lookahead)
    return toy.pipeline(toy.ToyEngine(speech=Speech(toy.ToyEncoder(), toy.ToyModel(), lambda lookahead: sliding)))


@contextmanager
def served(password=None, most=2, load=live_pipeline):
    """Its address, with a slash at its end."""
    service = LiveService(load, PORTRAIT, most=most, access=Access(password))
    server = PageServer(live_app(service))
    server.start()
    try:
        yield server.address
    finally:
        server.close()


class Client:
    """One socket: what came is sorted into events and frames."""

    def __init__(self, socket):
        self.socket, self.events, self.frames = socket, [], []

    async def send(self, message):
        await self.socket.send(json.dumps(message) if isinstance(message, dict) else message)

    async def until(self, is_found):
        """Receive until an event or (header, jpeg, sound) is found; returns it, None where the socket was closed."""
        return await asyncio.wait_for(self._until(is_found), TIMEOUT_S)

    async def _until(self, is_found):
        with suppress(ConnectionClosed):
            async for message in self.socket:
                if isinstance(message, str):
                    found = json.loads(message)
                    self.events.append(found)
                else:
                    found = unpack_frame(message)
                    self.frames.append(found)
                if is_found(found):
                    return found
        return None

    async def event(self, kind):
        return await self.until(lambda found: isinstance(found, dict) and found["type"] == kind)

    async def closed(self):
        """Receive to the end; returns the close code."""
        await self.until(lambda found: False)
        return self.socket.close_code

    def errors(self):
        return [event["code"] for event in self.events if event["type"] == "error"]


@asynccontextmanager
async def client(address, hello=HELLO, **how):
    async with connect(address.replace("http", "ws") + "v1/live", max_size=None, **how) as socket:
        one = Client(socket)
        if hello is not None:
            await one.send(hello)
        yield one


def voice(seconds=0.5, rate_hz=16_000):
    """s16le."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return (12_000 * np.sin(2 * np.pi * 220 * time_s)).astype("<i2").tobytes()


def post(address, content, **headers):
    """Send a portrait; returns status and answer."""
    request = urllib.request.Request(f"{address}v1/portraits", content, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
