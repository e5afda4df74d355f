"""Serve the face that is measured, and summarise what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kdtalker import TalkingPortraitPipeline, read_image, read_sound
from kdtalker.apps.live.server import PageServer, live_app
from kdtalker.apps.live.service import LiveService
from kdtalker.core.arrays import Array
from kdtalker.core.protocols import EncodedPortrait
from kdtalker.live.face import LIVE_SIDE_PX
from train.bench.inputs import PORTRAIT, VOICE

Pipeline = TalkingPortraitPipeline[Any]
Measured = tuple[dict[str, float], dict[str, Any]]  # figures by name with unit, and the raw values behind them


def load_portrait(pipeline: Pipeline) -> EncodedPortrait[Any]:
    """Encode the bundled portrait at the size of live pictures."""
    return pipeline.portrait(read_image(PORTRAIT), max_side=LIVE_SIDE_PX)


def load_voice(seconds: float = 0) -> Array:
    """Return the bundled voice (N,) at 16 kHz, from its first sound on; seconds: its length, 0 for all."""
    voice = np.concatenate(list(read_sound(VOICE)))
    voice = voice[int(np.argmax(np.abs(voice) > 0.02)) :]
    return voice[: int(seconds * 16_000)] if seconds else voice


@contextmanager
def serve(service: LiveService, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve live sessions for a while; yields the address, with a slash at its end."""
    server = PageServer(live_app(service), host)
    server.start()
    try:
        yield server.address
    finally:
        server.close()


def percentiles(name: str, values: Sequence[float], shares: Sequence[int] = (50, 95, 99)) -> dict[str, float]:
    """Return percentiles of values in ms, by name; none where there are no values."""
    return {f"{name} p{share}, ms": float(np.percentile(values, share)) for share in shares if len(values)}
