"""Serve one ASGI app: the live routes, and the page that is mounted on it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from kdtalker.apps.live.access import HostCheck, is_loopback
from kdtalker.apps.live.portraits import error_response, portrait_router
from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.tab import tab_router
from kdtalker.apps.live.websocket import websocket_router
from kdtalker.apps.live.wire import MAX_MESSAGE_BYTES, ProtocolError
from kdtalker.core.errors import OutputError

PORTS = range(7860, 7960)  # tried in turn where none is named
PING_S = 10.0  # a socket that answers no ping for so long is half open, and dropped
LINGER_S = 2.0  # for a client to read why it was refused
_STARTS_WITHIN_S = 60.0
_ERRORS = {
    1007: ("not_utf8", "The text is not UTF-8, wanted JSON in UTF-8."),
    1009: ("too_large", f"The message has more than {MAX_MESSAGE_BYTES // 2**20} MiB; send sound in smaller pieces."),
}


def live_app(service: LiveService) -> FastAPI:
    """Build the app with the live routes; those of WebRTC where its extra is installed."""

    @asynccontextmanager
    async def preload(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.ensure_future(service.preload())
        yield
        loading.cancel()

    app = FastAPI(title="kdtalker", docs_url=None, redoc_url=None, openapi_url=None, lifespan=preload)
    routers = [build(service) for build in (websocket_router, portrait_router, tab_router)]
    if find_spec("aiortc"):
        from kdtalker.apps.live.webrtc import webrtc_router

        routers.append(webrtc_router(service))
    for router in routers:
        app.include_router(router)
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    every = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    app.add_api_route("/v1/{path:path}", partial(_refuse, routes), methods=every)
    return app


async def _refuse(routes: list[APIRoute], request: Request) -> Response:
    """Answer a request that no route of the protocol takes."""
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = sorted({method for route in fitting for method in route.methods or ()})
    if request.url.path == "/v1/live":
        error = ProtocolError("no_websocket", "This is the address of a WebSocket, wanted a request to upgrade to one.")
    elif methods:
        text = f"{request.url.path[:100]} takes {', '.join(methods)}, not {request.method}."
        answer = error_response(ProtocolError("method", text))
        answer.headers["Allow"] = ", ".join(methods)
        return answer
    else:
        lacking = "" if find_spec("aiortc") else ", for which the extra [webrtc] is missing here"
        error = ProtocolError(
            "not_found", f"There is no {request.method} {request.url.path[:100]}, wanted the WebSocket /v1/live, "
            f"POST /v1/portraits or POST /v1/whep{lacking}.",
        )  # fmt: skip
    return error_response(error)


class _Socket(WebSocketsSansIOProtocol):
    """Tell a JSON error before closing for a message that is too large or no UTF-8; drop half-open sockets at once."""

    def handle_parser_exception(self) -> None:
        if self.close_sent:  # what still comes is discarded
            return
        closing = self.conn.close_sent
        assert closing is not None
        if closing.code in _ERRORS and self.handshake_complete:
            code, message = _ERRORS[closing.code]
            event = json.dumps({"type": "error", "code": code, "message": message, "fatal": True}).encode()
            self.transport.write(b"\x81" + _length(len(event)) + event)  # RFC 6455, 5.2: one text frame
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason})
        self.close_sent = True
        # Closed at once, the answer would be lost with what is unread.
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()  # closing would wait for what the other side never reads


def _length(count: int) -> bytes:
    return bytes([count]) if count < 126 else b"\x7e" + count.to_bytes(2, "big")


class PageServer:
    """Run an app in a thread of this process."""

    def __init__(
        self, app: FastAPI, host: str = "127.0.0.1", port: int | None = None, names: Collection[str] = ()
    ) -> None:
        """port: None for the first free one from 7860. names: other names that requests may give this server, where it
        listens to this computer alone (see `HostCheck`). Raises OutputError where no port can be had."""
        self._listener = _listen(host, port)
        self.port: int = self._listener.getsockname()[1]
        shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self.port}/"
        checked = HostCheck(app, names) if is_loopback(host) else app
        config = uvicorn.Config(
            checked, log_level="warning", ws=_Socket, ws_max_size=MAX_MESSAGE_BYTES, ws_per_message_deflate=False,
            ws_ping_interval=PING_S, ws_ping_timeout=PING_S, timeout_graceful_shutdown=2,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), daemon=True)

    def start(self) -> None:
        """Start to serve; returns once requests are answered. Raises OutputError where it does not start."""
        try:
            self._thread.start()
            ends = time.monotonic() + _STARTS_WITHIN_S
            while not self._server.started:
                if not self._thread.is_alive() or time.monotonic() > ends:
                    raise OutputError(f"The server at {self.address} did not start; see its log.")
                time.sleep(0.001)
        except BaseException:  # Ctrl+C too
            self.close()
            raise

    def wait(self) -> None:
        """Wait until the server is closed."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Stop serving; sessions end."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._listener.close()


def _listen(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reason = ""
    for number in PORTS if port is None else [port]:
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            return listener
        except OSError as error:
            listener.close()
            reason = error.strerror or str(error)
    wanted = f"port {port}" if port is not None else f"no port from {PORTS[0]} to {PORTS[-1]}"
    raise OutputError(f"{wanted} of {host} cannot be used ({reason}); choose another by --host and --port.")
