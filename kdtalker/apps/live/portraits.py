"""Serve `/v1/portraits`: a picture is sent once, encoded once, and named by a hash of its content."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.wire import ProtocolError
from kdtalker.core.errors import KDTalkerError

UPLOAD_WITHIN_S = 60.0
_STATUS = {"origin": 403, "not_allowed": 401, "busy": 503, "portrait": 404, "too_slow": 408, "failed": 500}

_log = logging.getLogger(__name__)


def portrait_router(service: LiveService) -> APIRouter:
    """Build the route `/v1/portraits`."""
    router, one_upload = APIRouter(), asyncio.Semaphore(1)  # bodies are held in memory

    @router.post("/v1/portraits")
    async def add(request: Request) -> JSONResponse:
        """Take a picture as the body; answer with its id."""
        try:
            service.access.check(request.headers, request.query_params.get("token"))
            async with one_upload:
                content = await read_body(request, service.limits.file_megabytes * 1_000_000)
                key = await service.add_portrait(content)
            portrait = await service.portrait(key)
        except Exception as error:
            return error_response(error)
        height, width = portrait.canvas.paste(portrait.canvas.face).shape[:2]
        return JSONResponse({"portrait": key, "width": width, "height": height}, 201)

    return router


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
            raise ProtocolError("too_large", f"The body has more than {most // 1_000_000} MB, wanted at most that.")
    return bytes(content)


def error_response(error: Exception) -> JSONResponse:
    """Format an error as a JSON answer with its HTTP status; one that nobody expected is logged."""
    if not isinstance(error, KDTalkerError):
        if not isinstance(error, ClientDisconnect):
            _log.error("A request failed.", exc_info=error)
        error = ProtocolError("failed", f"The server failed ({type(error).__name__}).")
    code = error.code if isinstance(error, ProtocolError) else "refused"
    status = 413 if code == "too_large" else _STATUS.get(code, 400)
    headers = {"Retry-After": "30"} if status == 503 else {}
    return JSONResponse({"type": "error", "code": code, "message": str(error)}, status, headers)
