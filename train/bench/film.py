"""Benchmark the command line: speed, memory, time in each stage: `python -m train.bench [--long]`.

Start-up is the time of a film of one frame, the median of several runs; it is subtracted from the time of longer films.
Memory is the peak resident set of the whole process tree, sampled (Linux).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kdtalker import TalkingPortraitPipeline
from kdtalker.core.protocols import Speech
from kdtalker.core.rates import SAMPLE_RATE_HZ
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.mesh.engine import MeshEngine
from kdtalker.renderers.mesh.source import MeshSource

ROOT = Path(__file__).parents[2]
PORTRAIT = ROOT / "examples" / "grace_hopper.jpg"
VOICE = ROOT / "examples" / "austen_0870.wav"
SHORT_S, LONG_S, STARTS = 10, 600, 5  # lengths of the films in s; runs for the start-up time


@dataclass(frozen=True)
class CommandRun:
    """Hold the result of one run of the command: wall-clock time in s, peak resident set of its process tree in MB."""

    wall_s: float
    peak_mb: float


def run_command(*arguments: object) -> CommandRun:
    """Run inference.py and sample its memory. Raises CalledProcessError where it fails."""
    command = [sys.executable, str(ROOT / "inference.py"), *map(str, arguments)]
    began, peak_mb = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak_mb = max(peak_mb, tree_mb(process.pid))
            time.sleep(0.05)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return CommandRun(time.perf_counter() - began, peak_mb)


def tree_mb(root: int) -> float:
    """Sum the resident set in MB of a process and its descendants from /proc; processes that have ended count 0."""
    children, resident = defaultdict(list), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        except OSError:
            continue
        children[int(status["PPid"])].append(int(folder.name))
        resident[int(folder.name)] = int(status.get("VmRSS", "0 kB").split()[0]) / 1024
    waiting, total = [root], 0.0
    while waiting:
        process = waiting.pop()
        total += resident.get(process, 0.0)
        waiting += children[process]
    return total


def write_voice(path: Path, seconds: float) -> None:
    """Write the bundled voice as WAV, repeated to that length in s."""
    samples = np.concatenate(list(read_sound(VOICE)))
    samples = np.resize(samples, max(1, int(seconds * SAMPLE_RATE_HZ)))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def write_full_hd(path: Path) -> None:
    """Write the bundled portrait, 1080 px high, on a grey 1920x1080 background."""
    portrait = cv2.imread(str(PORTRAIT))
    assert portrait is not None
    factor = 1080 / len(portrait)
    portrait = cv2.resize(portrait, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    picture = np.full((1080, 1920, 3), 128, np.uint8)
    left = (1920 - portrait.shape[1]) // 2
    picture[:, left : left + portrait.shape[1]] = portrait
    cv2.imwrite(str(path), picture)


class StageTimer:
    """Sum the time spent in each stage; `watch` and `watch_frames` wrap a function or a generator of a stage."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = defaultdict(float)

    def watch(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function; its time counts for the stage."""

        def watched(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.spent_s[stage] += time.perf_counter() - began

        return watched

    def watch_frames(self, stage: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """Wrap a generator; the time of each of its steps counts for the stage."""

        def watched(*arguments: Any, **named: Any) -> Iterator[Any]:
            following = self.watch(stage, function(*arguments, **named).__next__)
            while True:
                try:
                    frame = following()
                except StopIteration:
                    return
                yield frame

        return watched


@dataclass(frozen=True)
class Proxy:
    """Wrap an object and replace some of its attributes."""

    _object: Any
    _methods: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._object, name)


def profile_stages(voice: Path, folder: Path) -> dict[str, float]:
    """Measure the seconds in each stage of one film at the portrait's own size, models loaded before."""
    clock = StageTimer()
    engine = MeshEngine.load()
    speech, renderer = engine.load_speech(), engine.renderer
    encoder = Proxy(speech.audio_encoder, {"encode": clock.watch("audio encoder", speech.audio_encoder.encode)})
    model = Proxy(speech.motion_model, {"advance": clock.watch("motion model", speech.motion_model.advance)})
    watched = Proxy(renderer, {"render": clock.watch_frames("renderer", renderer.render)})
    proxy: Any = Proxy(engine, {"speech": Speech(encoder, model), "renderer": watched})
    pipeline: TalkingPortraitPipeline[MeshSource] = TalkingPortraitPipeline(proxy)
    portrait = clock.watch("portrait", pipeline.portrait)(read_image(PORTRAIT))
    canvas = Proxy(portrait.canvas, {"paste": clock.watch("paste", portrait.canvas.paste)})
    frames = pipeline.animate(replace(portrait, canvas=canvas), clock.watch_frames("sound", read_sound)(voice))
    height, width = portrait.canvas.paste(portrait.canvas.face).shape[:2]
    with VideoWriter(folder / "stages.mp4", width, height, sound=voice) as film:
        write = clock.watch("waiting for the film's encoder", film.write)
        for frame in frames:
            write(frame)
    return clock.spent_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="also ten minutes of sound, for speed and memory")
    wants_long = parser.parse_args().long
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output, full_hd = folder / "film.mp4", folder / "full_hd.png"
        write_full_hd(full_hd)
        voices = {seconds: folder / f"{seconds}.wav" for seconds in (0, SHORT_S, LONG_S)}
        for seconds, voice in voices.items():
            write_voice(voice, seconds)
        films = {"512x512": (PORTRAIT, "--crop"), "1920x1080": (full_hd,)}
        for film, picture in films.items():
            begin = ("--image", *picture, "--output", output, "--audio")
            run_command(*begin, voices[0])  # warms the caches
            start_s = statistics.median(run_command(*begin, voices[0]).wall_s for _ in range(STARTS))
            print(f"{film}: start-up {start_s:.2f} s (process start to a film of one frame, median of {STARTS})")
            for seconds in (SHORT_S, LONG_S) if wants_long else (SHORT_S,):
                run = run_command(*begin, voices[seconds])
                share = (run.wall_s - start_s) / seconds
                print(f"{film}: {seconds} s of sound: {share:.2f} of its length beyond start-up, {run.peak_mb:.0f} MB")
        for stage, spent_s in sorted(profile_stages(voices[SHORT_S], folder).items(), key=lambda row: -row[1]):
            print(f"  {stage:32} {1000 * spent_s / SHORT_S:6.0f} ms a second of film")


if __name__ == "__main__":
    main()
