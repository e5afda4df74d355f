"""Serve `/v1/portraits`: a picture is sent once, encoded once, and named by a hash of its content."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.wire import ProtocolError
from kdtalker.core.errors import KDTalkerError

UPLOAD_WITHIN_S = 60.0
DISCARD_WITHIN_S = 5.0
UPLOADS_WAITING = 8  # at most, those that are read or encoded among them
BODIES_WAITING = 2  # as many of the largest size may be held in memory
_STATUS = {
    "not_allowed": 401, "origin": 403, "not_found": 404, "portrait": 404, "method": 405, "too_slow": 408,
    "too_large": 413, "no_websocket": 426, "failed": 500, "busy": 503,
}  # fmt: skip
_HEADERS = {"busy": {"Retry-After": "30"}, "no_websocket": {"Upgrade": "websocket"}}

_log = logging.getLogger(__name__)


def portrait_router(service: LiveService) -> APIRouter:
    """Build the route `/v1/portraits`."""
    most = service.limits.file_megabytes * 1_000_000
    router, queue = APIRouter(), UploadQueue(BODIES_WAITING * most)

    @router.post("/v1/portraits")
    async def add(request: Request) -> JSONResponse:
        """Take a picture as the body; answer with its id."""
        try:
            service.access.check(request.headers, request.query_params.get("token"))
            with queue.admit(_expected_bytes(request, most)):
                key = await service.add_portrait(await read_body(request, most))
            width, height = (await service.face(key)).size
        except Exception as error:
            await _discard_body(request)
            return error_response(error)
        return JSONResponse({"portrait": key, "width": width, "height": height}, 201)

    return router


class UploadQueue:
    """Bound the bodies that are held in memory, by number and bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._count = self._bytes = 0

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """Keep a place for a body of so many bytes. Raises ProtocolError where there is none."""
        if self._count >= UPLOADS_WAITING or self._bytes + size > self._most_bytes:
            raise ProtocolError(
                "busy", f"{self._count} pictures wait here, at most {UPLOADS_WAITING} may, of "
                f"{self._most_bytes // 1_000_000} MB in all; send this one again in 30 s.",
            )  # fmt: skip
        self._count += 1
        self._bytes += size
        try:
            yield
        finally:
            self._count -= 1
            self._bytes -= size


def _expected_bytes(request: Request, most: int) -> int:
    """Return the length that a request tells for its body; `most` where it tells none, or more."""
    told = request.headers.get("content-length", "")
    return min(int(told), most) if told.isascii() and told.isdecimal() else most


async def _discard_body(request: Request) -> None:
    """Read what is left of a body, for a short time: the answer to who still sends would be lost."""
    with suppress(Exception):
        await asyncio.wait_for(_skip(request), DISCARD_WITHIN_S)


async def _skip(request: Request) -> None:
    async for _ in request.stream():
        pass


async def read_body(request: Request, most: int) -> bytes:
    """Read the body of a request. Raises ProtocolError as soon as it is longer than `most` bytes, and for one that
    does not come within a minute."""
    try:
        return await asyncio.wait_for(_read_body(request, most), UPLOAD_WITHIN_S)
    except asyncio.TimeoutError:
        raise ProtocolError(
            "too_slow", f"The body did not come within {UPLOAD_WITHIN_S:.0f} s; send it again."
        ) from None


async def _read_body(request: Request, most: int) -> bytes:
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > most:
            raise ProtocolError("too_large", f"The body has more than {most / 1_000_000:g} MB, wanted at most that.")
    return bytes(content)


def error_response(error: Exception) -> JSONResponse:
    """Format an error as a JSON answer with its HTTP status; one that nobody expected is logged."""
    if not isinstance(error, KDTalkerError):
        if not isinstance(error, ClientDisconnect):
            _log.error("A request failed.", exc_info=error)
        error = ProtocolError("failed", f"The server failed ({type(error).__name__}).")
    code = error.code if isinstance(error, ProtocolError) else "refused"
    fields = {"type": "error", "code": code, "message": str(error)}
    return JSONResponse(fields, _STATUS.get(code, 400), _HEADERS.get(code))
