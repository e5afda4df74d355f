"""Encode and decode the messages of the WebSocket `/v1/live`; docs/live-protocol.md describes them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, KDTalkerError, quote
from kdtalker.core.options import Options
from kdtalker.core.pcm import decode_pcm
from kdtalker.live.options import RATES_HZ, LiveOptions, check_live_option

VERSION = 1
MAGIC = b"KDLF"
HEADER = struct.Struct("<4sBBBBIQQiIII")  # magic, version, activity, picture, 0, then FrameHeader; 44 bytes
ACTIVITIES = ("speech", "pause", "idle")
PICTURE_STATES = ("new", "repeated", "degraded")
MAX_MESSAGE_BYTES = 12 * 2**20  # 120 s at 48 kHz; a larger message is refused before it is read
MAX_CONTROL_CHARS = 64 * 1024
POLICY, TOO_LARGE, FAILED, TRY_LATER = 1008, 1009, 1011, 1013  # close codes of RFC 6455

_HELLO = {"type", "version", "rate", "channels", "portrait", "source", "lookahead", "options", "token"}
_LIVE_FIELDS = {"rate": "sample_rate", "source": "source", "lookahead": "lookahead"}
_CONTROLS = {"flush": set[str](), "clear": set[str](), "end": set[str](), "say": {"text", "voice"}}


class ProtocolError(InputError):
    """Report a message that breaks the protocol: `code` names the error, `close` is the close code where it ends the
    session."""

    def __init__(self, code: str, message: str, close: int | None = None) -> None:
        super().__init__(message)
        self.code, self.close = code, close


def error_fields(error: KDTalkerError) -> dict[str, Any]:
    """Format an error as the event that a client is sent."""
    code, fatal = "refused", False
    if isinstance(error, ProtocolError):
        code, fatal = error.code, error.close is not None
    return {"type": "error", "code": code, "message": str(error), "fatal": fatal}


def close_reason(text: str) -> str:
    """Cut a text to what a close frame takes: 123 bytes of UTF-8 (RFC 6455, 5.5)."""
    return text.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")


@dataclass(frozen=True)
class FrameHeader:
    """Hold the header of a frame: JPEG and sound follow it. timestamp: the number of the frame's first sample since
    the connection was made, the one clock of both; position: samples of the segment played before this frame."""

    activity: str
    picture: str
    index: int
    timestamp: int
    position: int
    segment: int  # -1: of none
    generation: int
    jpeg_bytes: int = 0  # 0: the picture before stays
    sound_bytes: int = 0


@dataclass(frozen=True)
class Hello:
    """Hold the first message of a client."""

    options: LiveOptions
    portrait: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class Command:
    """Hold a control message: flush, clear, end, or say with its text and voice."""

    type: str
    text: str = ""
    voice: str | None = None


def pack_frame(header: FrameHeader, jpeg: bytes, sound: bytes) -> bytes:
    """Encode one frame: header, JPEG, then s16le sound."""
    activity, picture = ACTIVITIES.index(header.activity), PICTURE_STATES.index(header.picture)
    numbers = header.index, header.timestamp, header.position, header.segment, header.generation
    return HEADER.pack(MAGIC, VERSION, activity, picture, 0, *numbers, len(jpeg), len(sound)) + jpeg + sound


def unpack_frame(message: bytes) -> tuple[FrameHeader, bytes, bytes]:
    """Decode one frame: header, JPEG, sound. Raises InputError for what is no frame."""
    if len(message) < HEADER.size or message[:4] != MAGIC:
        raise InputError(f"The message is no frame, wanted at least {HEADER.size} bytes that begin with {MAGIC!r}.")
    _, version, activity, picture, _, *numbers = HEADER.unpack_from(message)
    jpeg, sound = numbers[-2:]
    if version != VERSION or len(message) != HEADER.size + jpeg + sound:
        raise InputError(f"The frame has version {version} and {len(message)} bytes, wanted version {VERSION} and all.")
    header = FrameHeader(ACTIVITIES[activity], PICTURE_STATES[picture], *numbers)
    middle = HEADER.size + jpeg
    return header, message[HEADER.size : middle], message[middle:]


def decode_sound(message: bytes, rate_hz: int = RATES_HZ[1]) -> Array:
    """Decode s16le sound to float32 samples (N,), -1..1. Raises ProtocolError for an odd number of bytes, and for more
    sound than may wait."""
    if len(message) > 2 * LiveOptions.buffer_s * rate_hz:
        raise ProtocolError(
            "refused", f"The message has {len(message) / 2 / rate_hz:.1f} s of sound, wanted at most "
            f"{LiveOptions.buffer_s:g} s; send it in smaller pieces.",
        )  # fmt: skip
    if len(message) % 2:
        raise ProtocolError(
            "odd_bytes", f"The sound has {len(message)} bytes, wanted an even number: 16 bits a sample, little-endian."
        )
    return decode_pcm(message)


def parse_hello(text: str) -> Hello:
    """Read the first message of a client. Raises ProtocolError, which ends the session, for any other message."""
    try:
        message = _parse(text)
        if message.get("type") != "hello":
            kind = quote(message.get("type"))
            raise ProtocolError("no_hello", f"The first message has the type {kind}, wanted 'hello'.")
        return _hello(message)
    except ProtocolError as error:
        raise ProtocolError(error.code, str(error), POLICY) from None


def _hello(message: Mapping[str, Any]) -> Hello:
    _refuse_unknown(message, _HELLO)
    if message.get("version") != VERSION:
        raise ProtocolError(
            "version", f"The protocol version is {quote(message.get('version'))}, wanted {VERSION} "
            "(docs/live-protocol.md).",
        )  # fmt: skip
    if message.get("channels", 1) != 1:
        channels = quote(message["channels"])
        raise ProtocolError("channels", f"The sound has {channels} channels, wanted 1; mix it down first.")
    for name in ("portrait", "token"):
        if not isinstance(message.get(name), str | None):
            raise ProtocolError(name, f"The {name} is {quote(message[name])}, wanted a string, or none of it.")
    fields = {"rate": None, **message}
    if fields.get("lookahead", 0) is None:
        del fields["lookahead"]
    options = live_options(fields, _options(message.get("options", {})))
    return Hello(options, message.get("portrait"), message.get("token"))


def live_options(fields: Mapping[str, Any], options: Options | None = None) -> LiveOptions:
    """Read the options of a session from the fields of a message. Raises ProtocolError, whose code is the field."""
    values = {}
    for field, name in _LIVE_FIELDS.items():
        if field in fields:
            try:
                check_live_option(name, fields[field])
            except InputError as error:
                raise ProtocolError(field, str(error)) from None
            values[name] = fields[field]
    return LiveOptions(options=options or Options(), **values)


def _options(values: object) -> Options:
    if not isinstance(values, dict):
        raise ProtocolError("options", 'The options are no object, wanted names and values, such as {"seed": 3}.')
    try:
        return Options(**values)
    except InputError as error:
        raise ProtocolError("options", str(error)) from None
    except TypeError:
        unknown = sorted(set(values) - set(Options.__dataclass_fields__))
        raise ProtocolError(
            "options", f"There is no option {quote(unknown[0])}, wanted those of docs/api.md."
        ) from None


def parse_command(text: str) -> Command:
    """Read a control message. Raises ProtocolError."""
    message = _parse(text)
    kind = message.get("type")
    if kind == "hello":
        raise ProtocolError("second_hello", "This session has had its hello; wanted sound or a control message.")
    if not isinstance(kind, str) or kind not in _CONTROLS:
        raise ProtocolError("unknown_type", f"The message is of the type {quote(kind)}, wanted {', '.join(_CONTROLS)}.")
    _refuse_unknown(message, {"type", *_CONTROLS[kind]})
    text, voice = message.get("text", ""), message.get("voice")
    if not isinstance(text, str) or not isinstance(voice, str | None):
        raise ProtocolError("say", 'Text or voice is no string, wanted {"type": "say", "text": "Hello."}.')
    return Command(kind, text, voice)


def _refuse_unknown(message: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(message) - known):
        raise ProtocolError(
            "unknown_field",
            f"The message has the unknown field {quote(unknown[0])}, known are {', '.join(sorted(known))}.",
        )


def _parse(text: str) -> dict[str, Any]:
    if len(text) > MAX_CONTROL_CHARS:
        raise ProtocolError(
            "not_json", f"The text has {len(text)} characters, wanted {MAX_CONTROL_CHARS} at most; sound is binary."
        )
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise ProtocolError("not_json", "The text is no JSON object; send sound as binary messages, control as JSON.")
    return message
