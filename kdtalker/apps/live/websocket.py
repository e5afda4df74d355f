"""Serve `/v1/live`: sound in, frames of JPEG and sound out, control and events as JSON (docs/live-protocol.md)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from kdtalker.apps.live.outbox import Outbox, SlowReaderError
from kdtalker.apps.live.pacer import ticks
from kdtalker.apps.live.say import synthesise
from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.segments import SegmentTracker, count_sent
from kdtalker.apps.live.wire import (
    FAILED,
    POLICY,
    TRY_LATER,
    VERSION,
    Command,
    Hello,
    ProtocolError,
    decode_sound,
    encode_sound,
    parse_command,
    parse_hello,
)
from kdtalker.core.errors import InputError, KDTalkerError
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.frames import LiveFrame, PictureState, Played
from kdtalker.live.session import LiveSession

HELLO_WITHIN_S = 10.0
ERRORS_IN_A_ROW = 20  # of one client, which then is cut off
WAITING_FOR_HELLO = 32  # sockets; more are refused with 503
_DROP_WITHIN_S = 5.0  # for the last messages of a session to be taken


def websocket_router(service: LiveService) -> APIRouter:
    """Build the route `/v1/live`."""
    router, waiting = APIRouter(), set[WebSocket]()

    @router.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        if len(waiting) >= WAITING_FOR_HELLO:
            await socket.close()  # before it is accepted: HTTP 403
            return
        waiting.add(socket)
        try:
            await socket.accept()
            hello = await _greet(socket, service)
        except (WebSocketDisconnect, RuntimeError):
            return
        finally:
            waiting.discard(socket)
        if hello is not None:
            await _serve(socket, service, hello)

    return router


async def _greet(socket: WebSocket, service: LiveService) -> Hello | None:
    """Wait for the hello; None where the socket was closed with an error."""
    try:
        message = await asyncio.wait_for(socket.receive(), HELLO_WITHIN_S)
        if message["type"] == "websocket.disconnect":
            return None
        text = message.get("text")
        if text is None:
            raise ProtocolError("no_hello", "Sound came before the hello, wanted that first.", POLICY)
        hello = parse_hello(text)
        service.access.check(socket.headers, hello.token)
        return hello
    except asyncio.TimeoutError:
        error = ProtocolError("no_hello", f"No hello came within {HELLO_WITHIN_S:.0f} s.", POLICY)
    except ProtocolError as refused:
        error = refused
    await _refuse(socket, error)
    return None


async def _refuse(socket: WebSocket, error: ProtocolError) -> None:
    await socket.send_text(error_event(error))
    await socket.close(error.close or POLICY, str(error)[:100])


async def _serve(socket: WebSocket, service: LiveService, hello: Hello) -> None:
    try:
        async with service.admit():
            session = await service.open(hello)
            try:
                await SocketSession(socket, service, session, hello).run()
            finally:
                await asyncio.shield(service.close(session))
    except (WebSocketDisconnect, RuntimeError):
        return
    except KDTalkerError as error:
        told = error if isinstance(error, ProtocolError) else ProtocolError("refused", str(error), POLICY)
        await _refuse(socket, told)


def error_event(error: ProtocolError) -> str:
    """Format an error as the JSON event that a client is sent."""
    return json.dumps({"type": "error", "code": error.code, "message": str(error), "fatal": error.close is not None})


class SocketSession:
    """Run one session on one socket: receive, play by the clock, send."""

    def __init__(self, socket: WebSocket, service: LiveService, session: LiveSession, hello: Hello) -> None:
        self._socket, self._service, self._session, self._hello = socket, service, session, hello
        self._outbox, self._segments = Outbox(), SegmentTracker(hello.rate_hz)
        self._errors = 0
        self._is_ending = self._has_failed = False
        self._speaking: set[asyncio.Task[None]] = set()
        self._close: tuple[int, str] = (1000, "")

    async def run(self) -> None:
        """Run until one of both sides ends the session."""
        tasks = [asyncio.ensure_future(work) for work in (self._receive(), self._play(), self._send())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await self._settle(task)
            if not any(isinstance(task.exception(), WebSocketDisconnect) for task in done):
                await self._finish(tasks[2])
        finally:
            for task in (*tasks, *self._speaking):
                task.cancel()
            await asyncio.gather(*tasks, *self._speaking, return_exceptions=True)

    async def _settle(self, task: asyncio.Future[None]) -> None:
        """Turn what ended the session into an event and a close code."""
        error = task.exception()
        if error is None or isinstance(error, WebSocketDisconnect):
            return
        if isinstance(error, SlowReaderError):
            error = ProtocolError("slow_reader", "More than 10 s of sound wait to be read; read faster.", TRY_LATER)
        elif not isinstance(error, ProtocolError):
            text = str(error) if isinstance(error, KDTalkerError) else f"The engine failed ({type(error).__name__})."
            error = ProtocolError("failed", text, FAILED)
        self._close = error.close or FAILED, str(error)[:100]
        self._outbox.put(error_event(error))

    async def _finish(self, sending: asyncio.Future[None]) -> None:
        """Send what waits, for a short time, then close."""
        ends = asyncio.get_running_loop().time() + _DROP_WITHIN_S
        while not self._outbox.is_empty and not sending.done() and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await asyncio.wait_for(self._socket.close(*self._close), _DROP_WITHIN_S)

    async def _send(self) -> None:
        while True:
            message = await self._outbox.get()
            if isinstance(message, str):
                await self._socket.send_text(message)
            else:
                await self._socket.send_bytes(message)

    async def _play(self) -> None:
        """Take a frame at each tick of the clock."""
        jpeg, pictured = b"", None
        async for index in ticks():
            frame = self._session.take()
            if index == 0:
                self._tell("ready", version=VERSION, rate=self._hello.rate_hz, fps=FRAME_RATE_HZ,
                           height=frame.picture.shape[0], width=frame.picture.shape[1])  # fmt: skip
            if frame.picture is not pictured or frame.picture_state != PictureState.REPEATED:
                jpeg, pictured = await self._service.encode_jpeg(frame.picture), frame.picture
            self._outbox.put((self._segments.header(frame), jpeg, encode_sound(frame.sound)))
            for played in frame.ended:
                self._tell_ended(played)
            if index % FRAME_RATE_HZ == 0:
                self._report()
            if self._is_ending and not self._segments.is_waiting and not self._speaking:
                return

    def _report(self) -> None:
        """Tell counts, and once that no more pictures will be drawn."""
        self._tell("stats", **asdict(self._session.stats), pictures_dropped=self._outbox.pictures_dropped)
        if self._session.error is not None and not self._has_failed:
            self._has_failed = True
            self._outbox.put(error_event(ProtocolError("engine", "The engine failed; the sound goes on.")))

    def _tell_ended(self, played: Played) -> None:
        self._segments.end(played)
        seconds = round(played.samples / self._hello.rate_hz, 3)
        self._tell("ended", segment=played.segment, samples=played.samples, seconds=seconds,
                   interrupted=played.interrupted)  # fmt: skip

    def _tell(self, kind: str, **fields: Any) -> None:
        self._outbox.put(json.dumps({"type": kind, **fields}))

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            try:
                sound = message.get("bytes")
                await (self._obey(parse_command(message["text"])) if sound is None else self._hear(sound))
                self._errors = 0
            except InputError as error:
                self._refuse(error if isinstance(error, ProtocolError) else ProtocolError("refused", str(error)))

    def _refuse(self, error: ProtocolError) -> None:
        """Tell an error of one message; the session goes on until there were too many in a row."""
        self._outbox.put(error_event(error))
        self._errors += 1
        if self._errors >= ERRORS_IN_A_ROW:
            raise ProtocolError("too_many_errors", f"{self._errors} messages in a row were refused.", POLICY)

    async def _hear(self, message: bytes) -> None:
        if self._is_ending:
            raise ProtocolError("ended", "Sound came after the end of the session; it was dropped.")
        samples = decode_sound(message)
        if len(samples) > self._hello.rate_hz:  # long sound is copied beside the clock
            segment = await self._service.run(lambda: self._session.push(samples))
        else:
            segment = self._session.push(samples)
        self._segments.open(segment, len(samples))

    async def _obey(self, command: Command) -> None:
        if command.type == "say":
            self._start(self._say(command))
        elif command.type == "clear":
            self._clear()
        else:
            self._session.end_segment()
            self._is_ending = self._is_ending or command.type == "end"

    def _clear(self) -> None:
        for task in self._speaking:
            task.cancel()
        reports, dropped = self._session.interrupt(), self._outbox.drop_frames()
        for played in reports:
            self._tell_ended(count_sent(played, dropped))
        self._tell("cleared", generation=self._session.stats.interrupts)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._speaking.add(task)
        task.add_done_callback(self._speaking.discard)

    async def _say(self, command: Command) -> None:
        """Speak a text as one segment."""
        try:
            samples = await self._service.run(lambda: synthesise(command.text, command.voice, self._hello.rate_hz))
            self._segments.open(self._session.push(samples), len(samples))
            self._session.end_segment()
        except KDTalkerError as error:
            self._outbox.put(error_event(ProtocolError("say", str(error))))
