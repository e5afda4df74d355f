"""What a page does for its visitors, without the page: one engine for all, one Session and one folder for each film."""

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
from kdtalker.apps.chart import chart, loudness
from kdtalker.apps.uploads import Limits, copy_film, copy_sound, read_picture
from kdtalker.apps.watermark import Mark
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
class Wish:
    """What a visitor asks for. `voice`: a file or words to be spoken; `face` counts by size from 0; `crop`: the film
    shows the face's square alone; `background` stands behind the person, `pose_from` is a film whose head leads."""

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
class Progress:
    """A frame (H, W, 3) on its way into the film: the `done`th of `total`, `left_s` before the last one."""

    frame: Image
    done: int
    total: int
    left_s: float


@dataclass(frozen=True)
class Take:
    """A finished film and its motion, `film_s` long, made in `took_s`; `chart` (SVG) shows what happened in it."""

    film: Path
    motion: Path
    chart: str
    film_s: float
    took_s: float


class Studio:
    """Loads the engine behind the caller's back; whoever wants a film before it is there waits for it."""

    def __init__(
        self, load: Load, limits: Limits | None = None, warm_up: Path | None = None, published: Load | None = None
    ) -> None:
        """warm_up: a portrait to try the engine on, so that the first visitor does not wait for what is slow once.
        published: loads the published engine, when it is first asked for."""
        self.limits = limits or Limits()
        self._loads = dict(zip(ENGINES, (load, published), strict=True))
        self._warm_up = warm_up
        self._engines: dict[str, TalkingPortraitPipeline[Any]] = {}
        self._is_closed = False
        self._opening = Lock()  # one engine at a time
        Thread(target=self._open_first, daemon=True).start()

    def _open_first(self) -> None:
        with suppress(Exception):  # the first visitor tries again and is told
            self._engine(ENGINES[0])

    def _engine(self, name: str) -> TalkingPortraitPipeline[Any]:
        """Raises InputError where it cannot be opened."""
        load = self._loads.get(name)
        if load is None:
            raise InputError(f"There is no engine '{name}' on this page, wanted '{ENGINES[0]}'.")
        if name not in self._engines:
            with self._opening:
                if name not in self._engines:
                    self._engines[name] = self._opened(load, self._warm_up if name == ENGINES[0] else None)
        return self._engines[name]

    def _opened(self, load: Load, warm_up: Path | None) -> TalkingPortraitPipeline[Any]:
        pipeline = load()
        pipeline.engine.speech.warm_up()
        if warm_up:
            portrait = pipeline.portrait(read_picture(warm_up, self.limits))
            next(pipeline.animate(portrait, [np.zeros(SAMPLE_RATE_HZ, np.float32)]))
        return pipeline

    def is_ready(self, engine: str) -> bool:
        return engine in self._engines

    def close(self) -> None:
        """Films in the making end with their next frame, in an error."""
        self._is_closed = True

    def film(self, wish: Wish, folder: Path) -> Iterator[Progress | Take]:
        """Make a film in `folder`, a frame a step, and at last the Take. Whoever stops asking leaves nothing running
        and no film; the folder is the caller's to remove. Raises KDTalkerError."""
        began = time.perf_counter()
        picture, voice, film_s = self._receive(wish, folder)
        pipeline = self._engine(wish.engine)
        portrait = pipeline.portrait(picture, face=wish.face, crop=wish.crop)
        recorded: list[Motion] = []
        head = pipeline.engine.track(VideoFrames(folder / "head.mp4")) if wish.pose_from else None
        frames = pipeline.animate(portrait, read_sound(voice), wish.options, recorded.append, head=head)
        yield from self._write(wish, frames, portrait, folder, film_s)
        motion = Motion.concatenate(recorded)
        motion.save(folder / "motion.npz")
        openings = pipeline.engine.measure_openings(portrait.source, motion)
        drawn = chart(loudness(read_sound(voice)), motion.pose, openings)
        yield Take(folder / "film.mp4", folder / "motion.npz", drawn, film_s, time.perf_counter() - began)

    def faces(self, picture: Path) -> tuple[Image, list[Square]]:
        """The picture and the squares around its faces as they are numbered. Raises InputError."""
        image = read_picture(picture, self.limits)
        return image, self._engine(ENGINES[0]).engine.find_faces(image)

    def _receive(self, wish: Wish, folder: Path) -> tuple[Image, Path, float]:
        """The picture, our own copy of the voice, and how many seconds that lasts."""
        if wish.picture is None:
            raise InputError("There is no portrait yet: choose a picture of a face first.")
        if wish.voice is None:
            raise InputError("There is no voice yet: choose a sound or record one first.")
        picture, voice, heard = read_picture(wish.picture, self.limits), folder / "voice.wav", wish.voice
        if isinstance(heard, Line):
            speak(heard, folder / "spoken.wav")
            heard = folder / "spoken.wav"
        film_s = copy_sound(heard, voice, self.limits)
        if wish.pose_from:
            copy_film(wish.pose_from, folder / "head.mp4", self.limits, film_s)
        if isinstance(wish.background, Path):
            picture = replace_background(picture, read_picture(wish.background, self.limits))
        elif wish.background:
            picture = replace_background(picture, wish.background)
        return picture, voice, film_s

    def _write(
        self, wish: Wish, frames: Iterator[Image], portrait: EncodedPortrait[Any], folder: Path, film_s: float
    ) -> Iterator[Progress]:
        height, width = portrait.canvas.paste(portrait.canvas.face).shape[:2]
        mark = Mark(height, width) if wish.mark else None
        total = frame_count(round(film_s * SAMPLE_RATE_HZ))
        began = time.perf_counter()
        voice = folder / "voice.wav"
        with VideoWriter(folder / "film.mp4", width, height, FRAME_RATE_HZ, sound=voice, duration_s=film_s) as film:
            for done, frame in enumerate(frames, 1):
                if self._is_closed:
                    raise OutputError("The server is being stopped, no film was made; try again later.")
                shown = mark.on(frame) if mark else frame
                film.write(shown)
                yield Progress(shown, done, total, (time.perf_counter() - began) / done * (total - done))
