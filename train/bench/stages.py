"""Profile the stages of a film in a warm process, then encode its very frames alone.

`python train/bench/stages.py RESULT.json ARGUMENTS OF THE FILM COMMAND` imports only kdtalker, the one that PYTHONPATH
names, so that another commit can be profiled.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from kdtalker.apps.film_command import load_engine, make_film
from kdtalker.apps.job import parse
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.media.video_writer import VideoWriter

WARM_UP_S = 1.0  # length of the film that is made first
WINDOW = "a window of the denoiser"
PORTRAIT = "the portrait"
# The stage of each function; PARTS run within stages, the renderer's also in a thread beside it.
STAGES = {
    "kdtalker.pipeline:TalkingPortraitPipeline.portrait": PORTRAIT,
    "kdtalker.audio.blocks:BlockEncoder.encode": "hearing",
    "kdtalker.audio.blocks:BlockEncoder.flush": "hearing",
    "kdtalker.diffusion.fir_smoothing:FIRSmoothedModel.advance": "motion",
    "kdtalker.renderers.mesh.renderer:MeshRenderer.render": "renderer",
    "kdtalker.face.portrait:Portrait.paste": "paste",
    "kdtalker.media.video_writer:VideoWriter.write": "waiting for the encoder",
    "kdtalker.media.video_writer:VideoWriter.finish": "waiting for the encoder",
}
PARTS = {
    "kdtalker.diffusion.model:sample_window": WINDOW,  # within the motion model
    "kdtalker.renderers.mesh.renderer:MeshRenderer.warp": "renderer: warp",
    "kdtalker.renderers.mesh.eyes.parts:SourcePart.repaint": "renderer: lids",
    "kdtalker.renderers.mesh.mouth.source:SourceMouth.shade": "renderer: light around the mouth",
    "kdtalker.renderers.mesh.mouth.source:SourceMouth.paint": "renderer: inside of the mouth",
}

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def find(name: str) -> tuple[Any, str] | None:
    """Find the module or class that holds a function "module:function" or "module:Class.method", and its name there;
    None where this commit has no such function."""
    module, path = name.split(":")
    *classes, attribute = path.split(".")
    try:
        owner: Any = import_module(module)
        for part in classes:
            owner = getattr(owner, part)
    except (ModuleNotFoundError, AttributeError):
        return None
    return (owner, attribute) if hasattr(owner, attribute) else None


@contextmanager
def wrapped(wrappers: Mapping[str, Wrap]) -> Iterator[None]:
    """Wrap functions, by their names as in `find`, for a while; those that this commit does not have are left out."""
    with ExitStack() as stack:
        for name, wrap in wrappers.items():
            if found := find(name):
                function = getattr(*found)
                setattr(*found, wrap(function))
                stack.callback(setattr, *found, function)
        yield


@contextmanager
def stage_times() -> Iterator[dict[str, list[float]]]:
    """Time the functions of STAGES and PARTS in s: each call, of a generator each step."""
    times: dict[str, list[float]] = defaultdict(list)

    def timed(stage: str) -> Wrap:
        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            def watched(*arguments: Any, **named: Any) -> Any:
                began = time.perf_counter()
                try:
                    result = function(*arguments, **named)
                finally:
                    times[stage].append(time.perf_counter() - began)
                return steps(result) if isinstance(result, Iterator) else result

            return watched

        def steps(generator: Iterator[Any]) -> Iterator[Any]:
            following = wrap(lambda: next(generator, None))
            while (item := following()) is not None:
                yield item

        return wrap

    with wrapped({name: timed(stage) for name, stage in (STAGES | PARTS).items()}):
        yield times


@contextmanager
def kept_frames() -> Iterator[tuple[list[Any], list[Any]]]:
    """Keep the arguments that make a VideoWriter and copies of all frames that are written."""
    settings: list[Any] = []
    frames: list[Any] = []

    def keep_settings(function: Callable[..., Any]) -> Callable[..., Any]:
        def begin(writer: VideoWriter, *arguments: Any, **named: Any) -> None:
            settings.append((arguments, named))
            function(writer, *arguments, **named)

        return begin

    def keep_frame(function: Callable[..., Any]) -> Callable[..., Any]:
        def write(writer: VideoWriter, frame: Any) -> None:
            frames.append(frame.copy())
            function(writer, frame)

        return write

    name = "kdtalker.media.video_writer:VideoWriter"
    with wrapped({f"{name}.__init__": keep_settings, f"{name}.write": keep_frame}):
        yield settings, frames


def profile(arguments: list[str]) -> dict[str, Any]:
    """Make a short film, then profile one; returns ms by stage and the time in s of encoding its frames alone."""
    job = parse(arguments)
    pipeline = load_engine(job)
    with stage_times() as cold:
        make_film(replace(job, duration=WARM_UP_S), lambda _: pipeline)
    with stage_times() as warm, kept_frames() as (settings, frames):
        began = time.perf_counter()
        make_film(job, lambda _: pipeline)
        film_s = time.perf_counter() - began
    began = time.perf_counter()
    (positional, named), *_ = settings
    with VideoWriter(*positional, **named) as film:
        for frame in frames:
            film.write(frame)
    encoding_s = time.perf_counter() - began
    once = {PORTRAIT: sum(warm[PORTRAIT])}
    if warm[WINDOW]:
        once |= {f"{WINDOW}, the first of a process": cold[WINDOW][0], f"{WINDOW}, warm": median(warm[WINDOW])}
    seconds = len(frames) / FRAME_RATE_HZ
    stages = [stage for stage in dict.fromkeys((STAGES | PARTS).values()) if stage not in once and stage != WINDOW]
    spent = {"all": (film_s - once[PORTRAIT]) / seconds}
    spent |= {stage: sum(warm[stage]) / seconds for stage in stages if stage in warm}
    return {"encoding_s": encoding_s, "once_ms": _in_ms(once), "second_of_film_ms": _in_ms(spent)}


def _in_ms(seconds: dict[str, float]) -> dict[str, float]:
    return {name: 1000 * value for name, value in seconds.items()}


if __name__ == "__main__":
    result, *rest = sys.argv[1:]
    Path(result).write_text(json.dumps(profile([*rest, "--quiet"])), "utf-8")
