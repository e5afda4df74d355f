"""Measure the delay of a live face glass to glass: from a click at Chromium's microphone to its sound and picture."""

from __future__ import annotations

import shutil
import tempfile
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from kdtalker import TalkingPortraitPipeline
from kdtalker.apps.live.server import PageServer, live_app
from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.wire import Hello
from kdtalker.live.frames import LiveFrame
from kdtalker.live.session import LiveSession

CLICKS, EVERY_S, WARM_UP_S = 20, 1.7, 6.0
CLICK_LEVEL = 0.5  # of full scale; the rest of the sound stays below a tenth
MARK_PX = 32  # side of the square in the corner that is white while the click sounds
WITHIN_MS = 3000  # a sound or picture later than this belongs to no click
SCRIPT = Path(__file__).with_name("live_browser.js")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--disable-features=WebRtcHideLocalIpsWithMdns",  # nothing resolves mDNS names here
]  # fmt: skip


class MarkedSession:
    """Draw a white square into the corner of each picture whose own sound holds a click, a black one into others."""

    def __init__(self, session: LiveSession) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def take(self) -> LiveFrame:
        """Take a frame and mark it."""
        frame = self._session.take()
        picture = frame.picture.copy()
        picture[:MARK_PX, :MARK_PX] = 255 * (np.abs(frame.sound).max() > CLICK_LEVEL / 2)
        return replace(frame, picture=picture)


class MarkingService(LiveService):
    """Open sessions whose pictures are marked."""

    async def open(self, hello: Hello) -> LiveSession:
        """Open a session."""
        return MarkedSession(await super().open(hello))  # type: ignore[return-value]

    async def close(self, session: LiveSession) -> None:
        """Close a session."""
        await super().close(session._session)  # type: ignore[attr-defined]


def measure_browser(
    pipeline: TalkingPortraitPipeline[Any], transport: str, picture: Path
) -> tuple[dict[str, float], dict[str, Any]]:
    """Play clicks into Chromium's fake microphone; note when each click was taken in, when its sound is played and when
    its picture is drawn, all on the page's clock."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _served(pipeline, picture) as address,
        sync_playwright() as playwright,
    ):
        clicks = Path(folder) / "clicks.wav"
        _write_clicks(clicks)
        arguments = [*ARGUMENTS, f"--use-file-for-fake-audio-capture={clicks}"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(bypass_csp=True)  # for the worklet of the script
        page.add_init_script(SCRIPT.read_text("utf-8"))
        page.goto(f"{address}live")
        if transport == "websocket":
            page.get_by_role("button", name="Talk").click()
        else:
            page.evaluate("window.call()")
        page.wait_for_timeout(1000 * (WARM_UP_S + CLICKS * EVERY_S))
        raw = page.evaluate("window.bench")
        browser.close()
    sounds, pictures, skews = _match(raw)
    figures: dict[str, float] = {}
    for name, values in (("sound", sounds), ("picture", pictures), ("picture after sound", skews)):
        for share in (50, 95):
            figures[f"{transport}: {name} p{share}, ms"] = float(np.percentile(values, share)) if values else np.nan
    figures[f"{transport}: clicks"] = float(len(pictures))
    return figures, {
        "clock": "glass to glass",
        "transport": transport,
        **raw,
        "sound_ms": sounds,
        "picture_ms": pictures,
    }


@contextmanager
def _served(pipeline: TalkingPortraitPipeline[Any], picture: Path) -> Iterator[str]:
    server = PageServer(live_app(MarkingService(lambda: pipeline, picture)))
    server.start()
    try:
        yield server.address
    finally:
        server.close()


def _write_clicks(path: Path) -> None:
    """Write clicks of 5 ms in silence, at 48 kHz; Chromium repeats the file."""
    samples = np.zeros(int(EVERY_S * 48_000), np.float32)
    samples[20_000:20_240] = 0.9 * np.sin(2 * np.pi * 1000 * np.arange(240) / 48_000)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def _match(raw: dict[str, list[float]]) -> tuple[list[float], list[float], list[float]]:
    """Find for each click the first sound and picture after it; return their delays and skew in ms."""
    sounds, pictures, skews = [], [], []
    for taken in raw["taken"]:
        if taken < raw["taken"][0] + 1000 * WARM_UP_S:
            continue
        heard = next((time for time in raw["heard"] if 0 < time - taken < WITHIN_MS), None)
        seen = next((time for time in raw["seen"] if 0 < time - taken < WITHIN_MS), None)
        if heard is not None:
            sounds.append(heard - taken)
        if seen is not None:
            pictures.append(seen - taken)
        if heard is not None and seen is not None:
            skews.append(seen - heard)
    return sounds, pictures, skews
