"""Decide who may open a live session: the origin of a browser's page, the host that it asked for, and a token where the
page has a password."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kdtalker.apps.live.wire import POLICY, ProtocolError

TOKEN_S = 12 * 3600  # a token of the page is good for so long


class Access:
    """Check origin and token. password: None for a server that anyone may use; origins: other pages that may."""

    def __init__(self, password: str | None = None, origins: Collection[str] = ()) -> None:
        self._password, self._origins = password, frozenset(origins)
        self._secret = secrets.token_bytes(32)  # tokens end with the process

    @property
    def hosts(self) -> frozenset[str]:
        """Return the hosts of the other pages that may open sessions."""
        return frozenset(host for origin in self._origins if (host := urlsplit(origin).hostname))

    def issue_token(self) -> str:
        """Issue a token for a visitor who has given the password: the time when it ends, and its signature."""
        ends = str(int(time.time()) + TOKEN_S)
        return f"{ends}.{self._sign(ends)}"

    def check(self, headers: Mapping[str, str], token: str | None = None) -> None:
        """Raise ProtocolError for a page of another origin, and where a password is set and neither a token nor
        `Authorization: Bearer PASSWORD` is given."""
        origin = headers.get("origin")
        if origin and origin not in self._origins and _netloc(origin) != headers.get("host"):
            raise ProtocolError(
                "origin", f"A page of {origin[:100]} asks, wanted one of this server; start that with --origin.", POLICY
            )
        if self._password is None or self._is_token(token or ""):
            return
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._password.encode()):
            raise ProtocolError(
                "not_allowed", "This server has a password, wanted `Authorization: Bearer PASSWORD` or a token.", POLICY
            )

    def _is_token(self, token: str) -> bool:
        ends, _, signature = token.partition(".")
        is_signed = hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(ends).encode())
        return is_signed and int(ends) > time.time()

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _netloc(origin: str) -> str:
    """Return host and port of an origin, "" for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:  # brackets that hold no IPv6 address
        return ""


class HostCheck:
    """Answer only requests that name this computer, or one of the hosts, as their host: a page of elsewhere whose name
    was made to lead here (DNS rebinding) does not. An ASGI middleware."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it by 403."""
        host = dict(scope.get("headers", ())).get(b"host", b"").decode("latin-1")
        if not host or self._is_allowed(host):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})  # HTTP 403
        else:
            text = f"{host[:100]} is no name of this server, wanted localhost; start it with --origin https://NAME.\n"
            await PlainTextResponse(text, 403)(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self._hosts or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this computer alone: localhost and names under it (RFC 6761), 127.0.0.1 and the like, or
    ::1."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
