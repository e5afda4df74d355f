"""A hub of weight files on this machine that answers as the first part of the path says: /404, /loop, /html ..."""

from __future__ import annotations

import hashlib
import io
import threading
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """Serves one small `.pth` file under every name."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.closing = threading.Event()
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()


@cache
def _good() -> bytes:
    """What a file of the table must hold at least: see `contents` there."""
    import torch

    buffer = io.BytesIO()
    torch.save({"model": {}, "state_dict": {}, "detector.fc_kp.weight": torch.ones(3)}, buffer)
    return buffer.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        _, manner, *_ = self.path.split("/")
        good = _good()
        if manner.isdigit():
            self._answer(int(manner))
        elif manner == "loop":
            self._answer(302, {"Location": self.path})
        elif manner == "away":
            self._answer(302, {"Location": "ftp://127.0.0.1/a"})
        elif manner == "html":
            self._answer(200, {"Content-Type": "text/html"}, b"<!doctype html><title>Sign in to the network</title>")
        elif manner == "garbage":
            self.wfile.write(b"\x00\xff this is no HTTP\r\n" * 8)
            self.close_connection = True
        elif manner == "silent":
            self.close_connection = True
        elif manner == "nothing":
            self._answer(200, self._headers(b""))
        elif manner == "slow":
            self._answer(200, self._headers(good), good[: len(good) // 2], pause_s=20)
        elif manner == "short":
            self._answer(200, self._headers(good), good[: len(good) // 2])
        elif manner == "damaged":
            self._answer(200, self._headers(good), b"\x00" * len(good))
        else:
            self._answer(200, self._headers(good), good)

    def _headers(self, content: bytes) -> dict[str, str]:
        digest = hashlib.sha256(content).hexdigest()
        return {"X-Repo-Commit": "0" * 40, "ETag": f'"{digest}"', "Content-Length": str(len(content))}

    def _answer(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"",
                pause_s: float = 0) -> None:  # fmt: skip
        self.send_response(status)
        headers = {"Content-Length": str(len(content)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and content:
            with suppress(OSError):  # the other side is gone
                self.wfile.write(content)
                self.server.closing.wait(pause_s)
        self.close_connection = len(content) != int(headers["Content-Length"])
