"""Film service behind the web page: one engine for all requests, one Session and one folder for each film."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np

from kdtalker.apps.arguments import ENGINES, Backdrop
from kdtalker.apps.chart import draw_chart, loudness
from kdtalker.apps.uploads import UploadLimits, copy_film, copy_sound, read_picture
from kdtalker.apps.watermark import Watermark
from kdtalker.core.arrays import Image
from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.motion import Motion
from kdtalker.core.options import Options
from kdtalker.core.protocols import EncodedPortrait, Square
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ, frame_count
from kdtalker.face.background import replace_background
from kdtalker.media.sound import read_sound
from kdtalker.media.video import VideoFrames
from kdtalker.media.video_writer import VideoWriter
from kdtalker.pipeline import TalkingPortraitPipeline
from kdtalker.tts.line import Line
from kdtalker.tts.speak import speak

Load = Callable[[], TalkingPortraitPipeline[Any]]


@dataclass(frozen=True)
class Request:
    """Hold the request of a visitor. voice: a sound file or a text; face: its number by size from 0; crop: film the
    face's square alone; background: replaces the portrait's own; pose_from: a driving video for the head."""

    picture: Path | None
    voice: Path | Line | None
    options: Options
    face: int | None = None
    crop: bool = False
    mark: bool = True
    engine: str = ENGINES[0]
    background: Backdrop | None = None
    pose_from: Path | None = None


@dataclass(frozen=True)
class Preview:
    """Hold a frame (H, W, 3) of a film in the making: number `done` of `total`, about `left_s` before the last one."""

    frame: Image
    done: int
    total: int
    left_s: float


@dataclass(frozen=True)
class Result:
    """Hold a finished film and its motion, `film_s` long, made in `took_s`; chart: an SVG of voice, mouth and head."""

    film: Path
    motion: Path
    chart: str
    film_s: float
    took_s: float


class FilmService:
    """Make films on request. The engine is loaded in a background thread; requests that come earlier wait for it."""

    def __init__(
        self, load: Load, limits: UploadLimits | None = None, warm_up: Path | None = None, published: Load | None = None
    ) -> None:
        """warm_up: a portrait to run the engine on once, so that the first request is not slow. published: loads the
        published engine, at the first request for it."""
        self.limits = limits or UploadLimits()
        self._loads = dict(zip(ENGINES, (load, published), strict=True))
        self._warm_up = warm_up
        self._engines: dict[str, TalkingPortraitPipeline[Any]] = {}
        self._is_closed = False
        self._loading = Lock()  # one engine at a time
        Thread(target=self._load_first, daemon=True).start()

    def _load_first(self) -> None:
        with suppress(Exception):  # the first request tries again and reports the error
            self.engine(ENGINES[0])

    def engine(self, name: str) -> TalkingPortraitPipeline[Any]:
        """Return an engine, loading it first if need be. Raises InputError where it cannot be loaded."""
        load = self._loads.get(name)
        if load is None:
            raise InputError(f"There is no engine '{name}' on this page, wanted '{ENGINES[0]}'.")
        if name not in self._engines:
            with self._loading:
                if name not in self._engines:
                    self._engines[name] = self._load(load, self._warm_up if name == ENGINES[0] else None)
        return self._engines[name]

    def _load(self, load: Load, warm_up: Path | None) -> TalkingPortraitPipeline[Any]:
        pipeline = load()
        pipeline.engine.speech.warm_up()
        if warm_up:
            portrait = pipeline.portrait(read_picture(warm_up, self.limits))
            next(pipeline.animate(portrait, [np.zeros(SAMPLE_RATE_HZ, np.float32)]))
        return pipeline

    def is_ready(self, engine: str) -> bool:
        """Tell whether the engine of that name is loaded."""
        return engine in self._engines

    def close(self) -> None:
        """Stop films in the making: each raises OutputError at its next frame."""
        self._is_closed = True

    def film(self, request: Request, folder: Path) -> Iterator[Preview | Result]:
        """Make a film in `folder`: yield each frame, then the Result. Closing the iterator early stops everything and
        leaves no film; the caller removes the folder. Raises KDTalkerError."""
        began = time.perf_counter()
        picture, voice, film_s = self._receive(request, folder)
        pipeline = self.engine(request.engine)
        portrait = pipeline.portrait(picture, face=request.face, crop=request.crop)
        recorded: list[Motion] = []
        head = pipeline.engine.track(VideoFrames(folder / "head.mp4")) if request.pose_from else None
        frames = pipeline.animate(portrait, read_sound(voice), request.options, recorded.append, head=head)
        yield from self._write(request, frames, portrait, folder, film_s)
        motion = Motion.concatenate(recorded)
        motion.save(folder / "motion.npz")
        openings = pipeline.engine.measure_openings(portrait.source, motion)
        svg = draw_chart(loudness(read_sound(voice)), motion.pose, openings)
        yield Result(folder / "film.mp4", folder / "motion.npz", svg, film_s, time.perf_counter() - began)

    def faces(self, picture: Path) -> tuple[Image, list[Square]]:
        """Find faces: return the picture and the squares around them, by number. Raises InputError."""
        image = read_picture(picture, self.limits)
        return image, self.engine(ENGINES[0]).engine.find_faces(image)

    def _receive(self, request: Request, folder: Path) -> tuple[Image, Path, float]:
        """Check and copy the inputs: return the picture, a copy of the voice, and its length in s."""
        if request.picture is None:
            raise InputError("There is no portrait yet: choose a picture of a face first.")
        if request.voice is None:
            raise InputError("There is no voice yet: choose a sound or record one first.")
        picture, voice, spoken = read_picture(request.picture, self.limits), folder / "voice.wav", request.voice
        if isinstance(spoken, Line):
            speak(spoken, folder / "spoken.wav")
            spoken = folder / "spoken.wav"
        film_s = copy_sound(spoken, voice, self.limits)
        if request.pose_from:
            copy_film(request.pose_from, folder / "head.mp4", self.limits, film_s)
        if isinstance(request.background, Path):
            picture = replace_background(picture, read_picture(request.background, self.limits))
        elif request.background:
            picture = replace_background(picture, request.background)
        return picture, voice, film_s

    def _write(
        self, request: Request, frames: Iterator[Image], portrait: EncodedPortrait[Any], folder: Path, film_s: float
    ) -> Iterator[Preview]:
        height, width = portrait.canvas.paste(portrait.canvas.face).shape[:2]
        mark = Watermark(height, width) if request.mark else None
        total = frame_count(round(film_s * SAMPLE_RATE_HZ))
        began = time.perf_counter()
        voice = folder / "voice.wav"
        with VideoWriter(folder / "film.mp4", width, height, FRAME_RATE_HZ, sound=voice, duration_s=film_s) as film:
            for done, frame in enumerate(frames, 1):
                if self._is_closed:
                    raise OutputError("The server is being stopped, no film was made; try again later.")
                shown = mark.on(frame) if mark else frame
                film.write(shown)
                yield Preview(shown, done, total, (time.perf_counter() - began) / done * (total - done))
