"""Measure sessions by WebSocket on loopback: the first voiced frame, skew, two sessions, and disturbing clients."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np

from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.wire import FrameHeader
from kdtalker.core.errors import InputError
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLES_PER_FRAME
from train.bench.inputs import PORTRAIT
from train.bench.live.marks import MarkingService
from train.bench.live.socket_client import FULL_RATE, LiveClient, gaps_ms, new_pictures, open_client
from train.bench.live.subject import Measured, Pipeline, load_voice, percentiles, serve

REPLIES, REPLY_S = 20, 1.0
SETTLE_S = 14.0  # idle motion is drawn by then
SKEW_S = 30.0
SPAN_S = 15.0  # of one session alone, of both, and of the disturbed one
BEGINNING_S = 5.0  # of the second session, in which it hurts the first most


def measure_first_frame(pipeline: Pipeline) -> Measured:
    """Send replies, all at once as a text-to-speech engine may, and at the speed of speech; measure the time from the
    first byte sent to the first frame that sounds and moves with it. A voice begins with the first sample."""
    voice, delays = load_voice(REPLY_S), dict[str, list[float]]()

    async def run(address: str) -> None:
        async with open_client(address) as client:
            await client.event("ready")
            await asyncio.sleep(SETTLE_S)
            for way in ("at once", "as spoken"):
                delays[way] = [await _reply(client, voice, way) for _ in range(REPLIES)]

    with serve(LiveService(lambda: pipeline, PORTRAIT)) as address:
        asyncio.run(run(address))
    figures: dict[str, float] = {}
    for way, values in delays.items():
        figures |= percentiles(f"first voiced frame, sound sent {way}", values)
    return figures, {"first_frame_ms": delays}


async def _reply(client: LiveClient, voice: Any, way: str) -> float:
    await asyncio.sleep(random.uniform(0.6, 0.64))  # anywhere between two ticks
    frames, events, began = len(client.frames), len(client.events), time.monotonic()
    speaking = asyncio.ensure_future(client.push(voice) if way == "at once" else client.speak(voice, REPLY_S))
    first = await client.frame(_is_speech, frames)
    await speaking
    await client.command("flush")
    await client.event("ended", events)
    return 1000 * (first.at_s - began)


def measure_skew(pipeline: Pipeline) -> Measured:
    """Speak for a while and read from each picture which frame it was drawn for: its distance to the frame whose sound
    comes with it is the skew. Timestamps and positions must count on without a gap."""

    async def run(address: str) -> tuple[list[float], int]:
        async with open_client(address, source="microphone", reads_numbers=True) as client:
            await client.event("ready")
            await asyncio.sleep(1.0)
            begin = len(client.frames)
            async with client.speaking(load_voice()):
                await client.frame(_is_speech)
                await asyncio.sleep(SKEW_S)
            frames = client.frames[begin:]
        skews, number = [], None
        for frame in frames:
            number = frame.number if frame.number is not None else number
            if number is not None and _is_speech(frame.header):
                skews.append(1000.0 / FRAME_RATE_HZ * ((frame.header.index - number) % 2**16))
        gaps = sum(b.header.timestamp - a.header.timestamp != SAMPLES_PER_FRAME for a, b in pairwise(frames))
        return skews, gaps

    with serve(MarkingService(lambda: pipeline, PORTRAIT)) as address:
        skews, gaps = asyncio.run(run(address))
    figures = percentiles("picture after its sound, as received", skews)
    return figures | {"gaps in timestamps": float(gaps), "frames of speech": float(len(skews))}, {"skews_ms": skews}


def measure_two_sessions(pipeline: Pipeline) -> Measured:
    """Let a second client come while the first one speaks: with as many places as this machine gives, and with two. It
    is either refused, or both have their 25 frames a second; how frames came to the first one before, at the beginning
    of the second and beside it tells what that cost."""
    figures: dict[str, float] = {}
    raw: dict[str, Any] = {}
    for places, most in (("places by cores", None), ("two places", 2)):
        with serve(LiveService(lambda: pipeline, PORTRAIT, most=most)) as address:
            more, raw[places] = asyncio.run(_two_sessions(address))
        figures |= {f"{places}: {name}": value for name, value in more.items()}
    return figures, raw


async def _two_sessions(address: str) -> Measured:
    voice, figures = load_voice(), dict[str, float]()
    async with open_client(address, source="microphone") as first:
        await first.event("ready")
        async with first.speaking(voice):
            await asyncio.sleep(SETTLE_S + SPAN_S)
            came = time.monotonic()
            async with open_client(address, source="microphone") as second:
                refused = await _is_refused(second)
                async with second.speaking(voice):
                    await asyncio.sleep(SPAN_S)
                end = time.monotonic()
    figures["second session refused"] = float(refused)
    figures |= _describe(first, "first, alone", came - SPAN_S, came)
    if refused:
        figures |= _describe(first, "first, the second refused", came, end)
    else:
        figures |= _describe(first, "first, the second begins", came, came + BEGINNING_S)
        for name, client in (("first", first), ("second", second)):
            figures |= _describe(client, f"{name}, both", end - SPAN_S / 2, end)
    return figures, {**_raw(first, second), "refusals": [e for e in second.events if e["type"] == "error"]}


async def _is_refused(client: LiveClient) -> bool:
    """Wait until a session has begun, or was refused."""
    try:
        await client.event("ready")
    except InputError:
        return True
    return False


def measure_disturbance(pipeline: Pipeline) -> Measured:
    """Speak while another process sends 4 MB a second of garbage, holds half-open sockets, and has a session whose
    frames it does not read."""

    async def run(address: str) -> Measured:
        async with open_client(address, source="microphone") as good:
            await good.event("ready")
            async with good.speaking(load_voice()):
                await asyncio.sleep(SETTLE_S + SPAN_S)
                came = time.monotonic()
                command = [sys.executable, "-m", "train.bench.live.disturb", address, str(SPAN_S)]
                disturber = await asyncio.create_subprocess_exec(
                    *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
                )
                told, _ = await disturber.communicate()
                end = time.monotonic()
        figures = _describe(good, "good session, alone", came - SPAN_S, came)
        figures |= _describe(good, "good session, disturbed", came, end)
        figures["errors told to the good session"] = float(len(good.errors))
        figures["garbage, MB a second"] = float((told.split() or [b"0"])[-1]) / 1e6 / SPAN_S
        return figures, _raw(good)

    with serve(LiveService(lambda: pipeline, PORTRAIT, most=2)) as address:
        return asyncio.run(run(address))


def _is_speech(header: FrameHeader) -> bool:
    return header.activity == "speech"


def _describe(client: LiveClient, name: str, begin_s: float, end_s: float) -> dict[str, float]:
    gaps, fps = gaps_ms(client.frames, begin_s, end_s), new_pictures(client.frames, begin_s, end_s)
    return {
        f"{name}: frames a second": (len(gaps) + 1) / (end_s - begin_s),
        f"{name}: new pictures a second": fps,
        f"{name}: at full rate": float(fps >= FULL_RATE),
        f"{name}: gap between frames p95, ms": float(np.percentile(gaps, 95)),
        f"{name}: longest gap between frames, ms": max(gaps),
    }


def _raw(*clients: LiveClient) -> dict[str, Any]:
    return {
        "arrivals_s": [[frame.at_s for frame in client.frames] for client in clients],
        "pictures": [[frame.header.picture for frame in client.frames] for client in clients],
        "stats": [[event for event in client.events if event["type"] != "ready"] for client in clients],
    }
