"""Measure the delay of a live face glass to glass: from a click at Chromium's microphone to its sound and picture."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from kdtalker.core.errors import InputError
from kdtalker.core.pcm import encode_wav
from kdtalker.core.rates import FRAME_RATE_HZ
from train.bench.inputs import PORTRAIT
from train.bench.live.marks import BITS, ClickTaken, MarkingService
from train.bench.live.network import JITTER_MS, LOSS, Namespace, emulated_network
from train.bench.live.subject import Measured, Pipeline, percentiles, serve

TRANSPORTS = ("websocket", "webrtc")
CLICKS, EVERY_S, WARM_UP_S = 25, 2.3, 14.0  # idle motion is drawn after the warm-up
WITHIN_MS = 1000 * EVERY_S - 100  # a sound or picture later than this could belong to the next click
MICROPHONE_RATE_HZ = 48_000
SCRIPT = Path(__file__).with_name("browser.js")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--disable-features=WebRtcHideLocalIpsWithMdns",  # nothing resolves mDNS names here
]  # fmt: skip


def find_chromium() -> str:
    """Return the path of Chromium: that of the system, or Playwright's. Raises InputError where there is none."""
    program = shutil.which("chromium")
    if program is None:
        with sync_playwright() as playwright:
            program = playwright.chromium.executable_path
    if not Path(program).exists():
        raise InputError(
            "There is no Chromium, which the parts browser and network want; `make browser` (tests/browser.sh) gets it."
        )
    return program


def measure_browser(pipeline: Pipeline, clicks: int = CLICKS) -> Measured:
    """Measure both transports on this machine."""
    return _measure_transports(pipeline, clicks, None)


def measure_browser_behind_network(pipeline: Pipeline, clicks: int = CLICKS) -> Measured:
    """Measure both transports with the browser behind a network that delays and loses packets."""
    with emulated_network() as space:
        figures, raw = _measure_transports(pipeline, clicks, space)
    name = f"{100 * LOSS:g} % loss, {JITTER_MS:g} ms jitter"
    return {f"{name}, {figure}": value for figure, value in figures.items()}, {"network": name, **raw}


def _measure_transports(pipeline: Pipeline, clicks: int, space: Namespace | None) -> Measured:
    figures: dict[str, float] = {}
    raw: dict[str, Any] = {}
    for transport in TRANSPORTS:
        more, raw[transport] = _measure(pipeline, transport, clicks, space)
        figures |= {f"{transport}: {name}": value for name, value in more.items()}
    return figures, raw


def _measure(pipeline: Pipeline, transport: str, clicks: int, space: Namespace | None) -> Measured:
    """Play clicks into Chromium's fake microphone; note when each was taken in and heard, and when the picture of each
    frame was seen, all on the page's clock."""
    service, program = MarkingService(lambda: pipeline, PORTRAIT), find_chromium()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(serve(service, space.host if space else "127.0.0.1"))
        _write_clicks(folder / "clicks.wav")
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=space.write_wrapper(program, folder) if space else program,
            args=[*ARGUMENTS, f"--use-file-for-fake-audio-capture={folder / 'clicks.wav'}",
                  f"--unsafely-treat-insecure-origin-as-secure={address.rstrip('/')}"],
        )  # fmt: skip
        stack.callback(browser.close)
        page = browser.new_page(bypass_csp=True)  # for the worklet of the script
        page.add_init_script(SCRIPT.read_text("utf-8"))
        page.goto(f"{address}live")
        raw = _call(page, transport, WARM_UP_S + clicks * EVERY_S)
        raw["chromium"] = browser.version
    events = match_clicks(raw, service.clicks)
    return _summarise(events, raw), {**raw, "events": events, "clicks": [asdict(click) for click in service.clicks]}


def _call(page: Page, transport: str, seconds: float) -> dict[str, Any]:
    if transport == "websocket":
        page.get_by_role("button", name="Talk").click()
    else:
        page.evaluate("window.call()")
    page.wait_for_timeout(1000 * seconds)
    raw: dict[str, Any] = page.evaluate("window.bench")
    if not raw["taken"] or not raw["seen"]:
        told = page.locator("#alert").text_content()
        raise InputError(f"Nothing was measured by {transport}: {told or 'no click was taken in, or no picture came'}.")
    return raw


def _write_clicks(path: Path) -> None:
    """Write clicks of 5 ms in silence; Chromium repeats the file."""
    samples = np.zeros(int(EVERY_S * MICROPHONE_RATE_HZ), np.float32)
    samples[20_000:20_240] = 0.9 * np.sin(2 * np.pi * 1000 * np.arange(240) / MICROPHONE_RATE_HZ)
    path.write_bytes(encode_wav(samples, MICROPHONE_RATE_HZ))


def match_clicks(raw: dict[str, Any], clicks: Sequence[ClickTaken]) -> list[dict[str, float | None]]:
    """Find for each click that was taken in after the warm-up when it was heard, and when the picture of its frame was
    seen, or a later one where that was lost: delays in ms from the click; skew_ms is the picture after its sound. A
    picture is in time where it is seen when the first sample of its frame is heard. None: not found."""
    events: list[dict[str, float | None]] = []
    for taken in raw["taken"]:
        if taken < raw["taken"][0] + 1000 * (WARM_UP_S - EVERY_S):
            continue
        heard = next((time for time in raw["heard"] if 0 < time - taken < WITHIN_MS), None)
        served = [1000 * click.taken_s - raw["origin"] for click in clicks]
        click = next((c for c, time in zip(clicks, served, strict=True) if 0 < time - taken < WITHIN_MS), None)
        seen = None if click is None else _find_picture(raw["seen"], click, taken)
        event: dict[str, float | None] = dict.fromkeys(("engine_ms", "sound_ms", "picture_ms", "skew_ms"))
        if click is not None:
            event["engine_ms"] = 1000 * click.taken_s - raw["origin"] - taken
        if heard is not None:
            event["sound_ms"] = heard - taken
        if seen is not None:
            event["picture_ms"] = seen - taken
        if heard is not None and seen is not None:
            event["skew_ms"] = seen - heard
        events.append(event)
    return events


def _find_picture(seen: Sequence[tuple[int, float]], click: ClickTaken, taken: float) -> float | None:
    """Return the time in ms at which the place of a click in the picture of its frame was seen, or in the first one
    after that."""
    for number, time in seen:
        later = (number - click.index + 2 ** (BITS - 1)) % 2**BITS - 2 ** (BITS - 1)
        if 0 <= later <= FRAME_RATE_HZ and 0 < time - taken < WITHIN_MS:
            return time + 1000 * click.offset_s
    return None


def _summarise(events: Sequence[dict[str, float | None]], raw: dict[str, Any]) -> dict[str, float]:
    figures: dict[str, float] = {"clicks": float(len(events))}
    for key, name in (("engine_ms", "to the frame taken"), ("sound_ms", "to the sound heard"),
                      ("picture_ms", "to the picture seen"), ("skew_ms", "picture after sound")):  # fmt: skip
        found = [value for event in events if (value := event[key]) is not None]
        figures |= percentiles(name, found, (50, 95))
        figures[f"{name}, clicks found"] = float(len(found))
    skews = [abs(value) for event in events if (value := event["skew_ms"]) is not None]
    figures |= percentiles("skew, absolute", skews, (95,))
    times = [time for _, time in raw["seen"] if time > raw["taken"][0] + 1000 * WARM_UP_S]
    if len(times) > 1:
        figures["pictures a second"] = 1000 * (len(times) - 1) / (times[-1] - times[0])
        figures["longest gap between pictures, ms"] = float(np.diff(times).max())
    return figures
