"""A hub of a few lines on this machine: HEAD and GET of /OWNER/NAME/resolve/main/PATH, and what can go wrong."""

import hashlib
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """files: content by 'OWNER/NAME/PATH'. As on the real hub a file's own address tells its sha256 and sends on to
    another host, which knows ranges. `requests` holds (method, path, range) of all that was asked."""

    def __init__(self, files):
        self.files = files
        self.requests = []
        self.tokens = []  # (path, token) of those that came with one
        self.etag = {}  # what the hub says of a file instead of its sha256
        self.size = {}  # and instead of its size
        self.cuts = []  # after so many bytes the next answers break off; None: not even begun, 503
        self.knows_ranges = True
        self.pause_s = 0.0  # between pieces of 64 KiB

    def loads(self):
        """The ranges of the requests for content, None for a whole file."""
        return [range_ for method, path, range_ in self.requests if method == "GET" and path.startswith("/cdn/")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub = self.server.hub
        hub.requests.append((self.command, self.path, self.headers.get("Range")))
        if "Authorization" in self.headers:
            hub.tokens.append((self.path, self.headers["Authorization"]))
        name = re.sub(r"^(/mirror)?/(cdn/)?|(?<=/)(resolve/)?main/", "", self.path)
        content = hub.files.get(name)
        if content is None:
            self.head(404)
        elif "/cdn/" in self.path:
            self.send_content(hub, content)
        else:
            self.head(302, {
                "Location": f"http://localhost:{self.server.server_port}/cdn/{name}",
                "X-Repo-Commit": "0" * 40,
                "X-Linked-Etag": f'"{hub.etag.get(name, hashlib.sha256(content).hexdigest())}"',
                "X-Linked-Size": str(hub.size.get(name, len(content))),
            })  # fmt: skip

    def send_content(self, hub, content):
        cut = hub.cuts.pop(0) if hub.cuts else len(content)
        if cut is None:
            self.head(503)
            return
        begin, headers = 0, {"Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and hub.knows_ranges:
            begin = int(asked[1])
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self.head(206 if begin else 200, headers, len(content) - begin)
        end = min(len(content), begin + cut)
        try:
            for start in range(begin, end, 1 << 16):
                self.wfile.write(content[start : min(end, start + (1 << 16))])
                time.sleep(hub.pause_s)
        except OSError:  # the other side is gone
            pass
        self.close_connection = end < len(content)

    def head(self, status, headers=(), length=0):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


@contextmanager
def serve(files):
    """Yields the hub and its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
