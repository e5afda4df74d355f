"""Serve `/v1/live`: sound in, frames of JPEG and sound out, control and events as JSON (docs/live-protocol.md)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from kdtalker.apps.live.control import SessionControl
from kdtalker.apps.live.outbox import Outbox, SlowReaderError
from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.wire import (
    FAILED,
    MAX_MESSAGE_BYTES,
    POLICY,
    TRY_LATER,
    VERSION,
    FrameHeader,
    Hello,
    ProtocolError,
    close_reason,
    decode_sound,
    error_fields,
    parse_command,
    parse_hello,
)
from kdtalker.core.arrays import Image
from kdtalker.core.errors import KDTalkerError
from kdtalker.core.pcm import encode_pcm
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.pacing import ticks
from kdtalker.live.session import LiveSession

_log = logging.getLogger(__name__)

HELLO_WITHIN_S = 10.0
WAITING_FOR_HELLO = 32  # sockets; more are refused before they are accepted
_SENT_WITHIN_S = 5.0  # the last messages of a session
_MESSAGE_BYTES = 256  # that a message takes beside its content


def websocket_router(service: LiveService) -> APIRouter:
    """Build the route `/v1/live`."""
    router, waiting = APIRouter(), set[WebSocket]()

    @router.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        if len(waiting) >= WAITING_FOR_HELLO:
            await socket.close()  # HTTP 403
            return
        waiting.add(socket)
        try:
            await socket.accept()
            hello = await _receive_hello(socket, service)
            waiting.discard(socket)
            if hello is not None:
                await _serve(socket, service, hello)
        except (WebSocketDisconnect, asyncio.TimeoutError):  # the other side has gone
            return
        finally:
            waiting.discard(socket)

    return router


async def _receive_hello(socket: WebSocket, service: LiveService) -> Hello | None:
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
        await _refuse(socket, ProtocolError("no_hello", f"No hello came within {HELLO_WITHIN_S:.0f} s.", POLICY))
    except ProtocolError as error:
        await _refuse(socket, error)
    return None


async def _refuse(socket: WebSocket, error: KDTalkerError) -> None:
    close = error.close if isinstance(error, ProtocolError) else None
    if not _has_gone(socket):
        await asyncio.wait_for(socket.send_text(json.dumps({**error_fields(error), "fatal": True})), _SENT_WITHIN_S)
        await asyncio.wait_for(socket.close(close or POLICY, close_reason(str(error))), _SENT_WITHIN_S)


def _has_gone(socket: WebSocket) -> bool:
    return WebSocketState.DISCONNECTED in (socket.client_state, socket.application_state)


def _describe_failure(error: BaseException) -> ProtocolError:
    """Log an error that nobody expected, and return what its client is told."""
    _log.error("A live session failed.", exc_info=error)
    return ProtocolError("failed", f"The engine failed ({type(error).__name__}).", FAILED)


async def _serve(socket: WebSocket, service: LiveService, hello: Hello) -> None:
    try:
        async with service.admit() as place:
            early = EarlyMessages(socket)
            receiving = asyncio.ensure_future(early.receive())
            try:
                session = await service.open(hello)
            finally:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
            try:
                ending = await SocketSession(socket, service, session, hello, early).run()
            finally:
                place.is_ending = True
                await asyncio.shield(service.close(session))
        if not _has_gone(socket):
            await asyncio.wait_for(socket.close(*ending), _SENT_WITHIN_S)  # the place is free by then
    except (WebSocketDisconnect, asyncio.TimeoutError):
        raise
    except Exception as error:
        await _refuse(socket, error if isinstance(error, KDTalkerError) else _describe_failure(error))


class EarlyMessages:
    """Receive while the engine is loaded: where nothing is read for long, pings are not answered either."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self.messages: list[Mapping[str, Any]] = []
        self._bytes = self._dropped = 0

    async def receive(self) -> None:
        """Receive until the client has gone, or this is cancelled. What is more than one message may be is dropped."""
        message: Mapping[str, Any] = {"type": ""}
        while message["type"] != "websocket.disconnect":
            message = await self._socket.receive()
            self._bytes += _MESSAGE_BYTES + len(message.get("bytes") or message.get("text") or "")
            if self._bytes <= MAX_MESSAGE_BYTES or message["type"] == "websocket.disconnect":
                self.messages.append(message)
            else:
                self._dropped += 1

    async def check(self) -> None:
        """Raise ProtocolError where messages were dropped."""
        if self._dropped:
            raise ProtocolError(
                "refused", f"{self._dropped} messages came before the session began and were dropped, wanted at most "
                f"{MAX_MESSAGE_BYTES // 2**20} MiB until `ready`.",
            )  # fmt: skip


class SocketSession:
    """Run one session on one socket: receive, play by the clock, send."""

    def __init__(
        self, socket: WebSocket, service: LiveService, session: LiveSession, hello: Hello, early: EarlyMessages
    ) -> None:
        self._socket, self._service, self._rate_hz, self._outbox = socket, service, hello.options.sample_rate, Outbox()
        self._early = early
        self._control = SessionControl(service, session, self._rate_hz, self._send_event, self._drop)
        self._encoding: list[FrameHeader] = []  # of the frame that is taken and not yet in the outbox
        self._close: tuple[int, str] = (1000, "")

    async def run(self) -> tuple[int, str]:
        """Run until one of both sides ends the session; return the code and reason to close the socket with."""
        tasks = [asyncio.ensure_future(work) for work in (self._receive(), self._play(), self._send())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            errors = [task.exception() for task in done]
            for error in errors:
                self._send_failure(error)
            if not any(isinstance(error, WebSocketDisconnect) for error in errors):
                await self._send_rest(tasks[2])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, self._control.close(), return_exceptions=True)
        return self._close

    def _send_failure(self, error: BaseException | None) -> None:
        """Turn what ended the session into an event and a close code."""
        if error is None or isinstance(error, WebSocketDisconnect):
            return
        if isinstance(error, SlowReaderError):
            error = ProtocolError(
                "slow_reader", "10 s of sound, or 256 events, wait to be read; read faster.", TRY_LATER
            )
        elif not isinstance(error, ProtocolError):
            is_told = isinstance(error, KDTalkerError)
            error = ProtocolError("failed", str(error), FAILED) if is_told else _describe_failure(error)
        self._close = error.close or FAILED, close_reason(str(error))
        self._outbox.put(error_fields(error), last=True)

    async def _send_rest(self, sending: asyncio.Future[None]) -> None:
        """Send what waits, for a short time."""
        clock = asyncio.get_running_loop().time
        ends = clock() + _SENT_WITHIN_S
        while not self._outbox.is_empty and not sending.done() and clock() < ends:
            await asyncio.sleep(0.01)

    def _drop(self) -> list[FrameHeader]:
        dropped = [*self._outbox.drop_frames(), *self._encoding]
        self._outbox.amend(lambda event: self._control.amend(event, dropped))
        return dropped

    def _send_event(self, event: dict[str, Any]) -> None:
        self._outbox.put(event)

    async def _send(self) -> None:
        while True:
            message = await self._outbox.get()
            if isinstance(message, str):
                await self._socket.send_text(message)
            else:
                await self._socket.send_bytes(message)

    async def _play(self) -> None:
        """Take a frame at each tick of the clock."""
        jpeg, encoded = b"", None
        sent: tuple[Image, int] | None = None  # the last picture, and its generation: a client drops older ones
        async for index in ticks():
            frame, header = self._control.take()
            if index == 0:
                height, width = frame.picture.shape[:2]
                self._send_event({"type": "ready", "version": VERSION, "rate": self._rate_hz, "fps": FRAME_RATE_HZ,
                            "width": width, "height": height})  # fmt: skip
            if frame.picture is not encoded:
                self._encoding = [header]
                jpeg, encoded = await self._service.encode_jpeg(frame.picture), frame.picture
                self._encoding = []
            if not self._control.is_stale(header):
                is_known = sent is not None and sent[0] is frame.picture and sent[1] == frame.generation
                self._outbox.put((header, b"" if is_known else jpeg, encode_pcm(frame.sound)))
                sent = frame.picture, frame.generation
            self._control.send_ended()
            if index % FRAME_RATE_HZ == 0:
                self._control.report(pictures_dropped=self._outbox.pictures_dropped)
            if self._control.has_ended:
                return

    async def _receive(self) -> None:
        await self._control.receive(self._early.check())
        early = iter(self._early.messages)
        while True:
            message = next(early, None) or await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            await self._control.receive(self._handle(message))

    async def _handle(self, message: Mapping[str, Any]) -> None:
        sound = message.get("bytes")
        if sound is None:
            await self._control.handle_command(parse_command(message["text"]))
        else:
            await self._control.push_audio(decode_sound(sound, self._rate_hz))
