"""Serve `/v1/whep`: a call by WebRTC, which an SDP offer opens and its answer describes (extra [webrtc])."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

from aiortc import RTCDataChannel, RTCDtlsFingerprint, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from aiortc.sdp import SessionDescription
from fastapi import APIRouter, Request
from fastapi.responses import Response

from kdtalker.apps.live.control import SessionControl
from kdtalker.apps.live.portraits import error_response, read_body
from kdtalker.apps.live.service import LiveService, Place
from kdtalker.apps.live.webrtc_tracks import CALL_RATE_HZ, PictureTrack, SoundTrack48, read_samples
from kdtalker.apps.live.wire import FrameHeader, Hello, ProtocolError, live_options, parse_command
from kdtalker.core.errors import KDTalkerError
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.pacing import ticks
from kdtalker.live.session import LiveSession

_log = logging.getLogger(__name__)

CONNECTS_WITHIN_S = 20.0
MAX_OFFER_BYTES = 200_000
_NO_OFFER = "The body is no SDP offer that can be answered, wanted audio in Opus or video in VP8 or H.264 (WebRTC)."
_DIGEST_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}  # of the fingerprints that aiortc compares
CODECS = ("video/VP8", "video/H264")  # in the order of preference
_CODECS = {"audio": ("opus",), "video": tuple(name.removeprefix("video/") for name in CODECS)}  # that an offer needs


def webrtc_router(service: LiveService) -> APIRouter:
    """Build the routes `/v1/whep` and `/v1/whep/{call}`."""
    calls = dict[str, Call]()

    @asynccontextmanager
    async def close_calls(_: Any) -> AsyncIterator[None]:
        yield
        await asyncio.gather(*(call.close() for call in list(calls.values())), return_exceptions=True)

    router = APIRouter(lifespan=close_calls)

    @router.post("/v1/whep")
    async def offer(request: Request) -> Response:
        """Answer an SDP offer: 201, with the address of the call, which DELETE ends."""
        try:
            query = request.query_params
            service.access.check(request.headers, query.get("token"))
            description = (await read_body(request, MAX_OFFER_BYTES)).decode("utf-8", "replace")
            call = await Call.open(service, description, _hello(query))
        except Exception as error:
            return error_response(error)
        key = uuid4().hex
        calls[key] = call
        call.on_close = lambda: calls.pop(key, None)
        headers = {"Location": f"/v1/whep/{key}", "Cache-Control": "no-store"}
        return Response(call.answer, 201, headers, "application/sdp")

    @router.delete("/v1/whep/{key}")
    async def end(key: str) -> Response:
        """End a call."""
        if key not in calls:
            return error_response(ProtocolError("not_found", "There is no such call; it may have ended."))
        await calls[key].close()
        return Response(status_code=200)

    return router


def _hello(query: Mapping[str, str]) -> Hello:
    fields = {"rate": CALL_RATE_HZ, "source": query.get("source", "microphone")}
    return Hello(live_options(fields), query.get("portrait"))


def check_offer(text: str) -> None:
    """Check an SDP offer before a place is taken for it. Raises ProtocolError where no call can come of it."""
    try:
        offer = SessionDescription.parse(text)
    except Exception:  # the parser raises anything over what is no SDP
        raise ProtocolError("offer", _NO_OFFER) from None
    played = [media for media in offer.media if media.kind in _CODECS]
    if not played or not all(any(codec.name in _CODECS[media.kind] for codec in media.rtp.codecs) for media in played):
        raise ProtocolError("offer", _NO_OFFER)
    if not all(media.rtcp_mux for media in played):
        raise ProtocolError("offer", "The offer keeps RTP and RTCP apart, wanted lines `a=rtcp-mux`.")
    if not all(media.dtls and any(map(_is_usable, media.dtls.fingerprints)) for media in offer.media):
        raise ProtocolError(
            "offer", f"The offer has no fingerprint of a certificate, wanted {', '.join(_DIGEST_BYTES)} in a line "
            "`a=fingerprint`.",
        )  # fmt: skip
    if not all(media.ice and media.ice.usernameFragment and media.ice.password for media in offer.media):
        raise ProtocolError("offer", "The offer has no ICE credentials, wanted lines `a=ice-ufrag` and `a=ice-pwd`.")


def _is_usable(fingerprint: RTCDtlsFingerprint) -> bool:
    """Tell whether a fingerprint can be compared with that of a certificate (RFC 8122, 5)."""
    pairs = fingerprint.value.split(":")
    count = _DIGEST_BYTES.get(fingerprint.algorithm.lower())
    return len(pairs) == count and all(re.fullmatch("[0-9A-Fa-f]{2}", pair) for pair in pairs)


class Call:
    """Run one session over one peer connection. A data channel of the peer takes commands and tells events."""

    def __init__(self, service: LiveService, session: LiveSession, place: Place, held: AsyncExitStack) -> None:
        """place: of the session; held: is left when the call ends."""
        self._service, self._session, self._place, self._held = service, session, place, held
        self._picture, self._sound, self._peer = PictureTrack(), SoundTrack48(), RTCPeerConnection()
        self._channel: RTCDataChannel | None = None
        self._control = SessionControl(service, session, CALL_RATE_HZ, self._send_event, self._drop)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_connected = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self.on_close: Any = lambda: None
        self._peer.on("track", self._on_track)
        self._peer.on("datachannel", self._on_data_channel)
        self._peer.on("connectionstatechange", self._on_state_change)

    @classmethod
    async def open(cls, service: LiveService, offer: str, hello: Hello) -> Call:
        """Open a session for an offer. Raises ProtocolError for an offer that is none, or where there is no place."""
        check_offer(offer)
        held = AsyncExitStack()
        place = await held.enter_async_context(service.admit())
        try:
            session = await service.open(hello)
        except BaseException:
            await held.aclose()
            raise
        held.push_async_callback(service.close, session)
        call = cls(service, session, place, held)
        try:
            await call._answer(offer)
        except BaseException:
            await call.close()
            raise
        if call._closing is not None:
            raise ProtocolError("offer", "The call ended while it was answered; call again.")
        call._start(call._play())
        return call

    @property
    def answer(self) -> str:
        """Return the SDP of the answer, with all addresses of this host."""
        return str(self._peer.localDescription.sdp)

    async def _answer(self, offer: str) -> None:
        await self._peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        kinds = {transceiver.kind for transceiver in self._peer.getTransceivers()}
        if "video" in kinds:
            self._peer.addTrack(self._picture)
        if "audio" in kinds:
            self._peer.addTrack(self._sound)
        known = RTCRtpSender.getCapabilities("video").codecs
        for transceiver in self._peer.getTransceivers():
            if transceiver.kind == "video":
                transceiver.setCodecPreferences([codec for name in CODECS for codec in known if codec.mimeType == name])
        await self._peer.setLocalDescription(await self._peer.createAnswer())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and self._closing is None:
            if not isinstance(task.exception(), KDTalkerError):
                _log.error("A call failed.", exc_info=task.exception())
            self._begin_close()

    async def _play(self) -> None:
        """Take a frame at each tick of the clock, from the moment that the peers are connected."""
        try:
            await asyncio.wait_for(self._is_connected.wait(), CONNECTS_WITHIN_S)
        except asyncio.TimeoutError:  # there is no way to tell it
            self._begin_close()
            return
        async for index in ticks():
            frame, _ = self._control.take()
            self._picture.show(frame)
            self._sound.play(frame)
            self._control.send_ended()
            if index % FRAME_RATE_HZ == 0:
                self._control.report(pictures_dropped=self._picture.dropped)
            if self._control.has_ended:
                break
        self._begin_close()

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._start(self._receive(track))

    async def _receive(self, track: MediaStreamTrack) -> None:
        async for samples in read_samples(track):
            if self._control.is_ending:  # a microphone that is still open is no fault
                continue
            await self._control.receive(self._control.push_audio(samples))

    def _on_data_channel(self, channel: RTCDataChannel) -> None:
        self._channel = channel

        def on_message(message: str | bytes) -> None:
            text = message if isinstance(message, str) else ""
            self._start(self._control.receive(self._handle_command(text)))

        channel.on("message", on_message)

    async def _handle_command(self, text: str) -> None:
        await self._control.handle_command(parse_command(text))

    def _send_event(self, event: Mapping[str, Any]) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(json.dumps(event))

    def _drop(self) -> list[FrameHeader]:
        """Drop what the encoders have not taken: 40 ms at most, which the position played does not leave out."""
        self._picture.clear()
        self._sound.clear()
        return []

    async def _on_state_change(self) -> None:
        if self._peer.connectionState == "connected":
            self._is_connected.set()
        elif self._peer.connectionState in ("failed", "closed"):
            await self.close()

    async def close(self) -> None:
        """End the call, and wait until it has ended."""
        await asyncio.shield(self._begin_close())

    def _begin_close(self) -> asyncio.Task[None]:
        if self._closing is None:
            self._place.is_ending = True
            self._closing = asyncio.ensure_future(self._close_all())
            self.on_close()
        return self._closing

    async def _close_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        try:
            await self._control.close()
            await self._peer.close()
        finally:
            await self._held.aclose()
