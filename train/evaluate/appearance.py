"""How a film looks beside its photograph: `python -m train.appearance DATA`, DATA a folder with clips.csv.

For the first frame of each film held out, one line: how far the spoken film's face is from the photograph's (identity,
Euclidean distance of dlib embeddings, lower is better) and the real film's own; what a moving head leaves of the skin's
grain (dB, 0 is best, two octaves of the power spectrum up to half of Nyquist); and how skin flickers that should not
move (still head, silent sound; mean difference of neighbouring frames in the encoded film, beside that of the same film
whose skin was held before it was encoded, which is the encoder's own).
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker import Options, TalkingPortraitPipeline
from kdtalker.core.arrays import Array
from kdtalker.core.motion import from_head_frame, to_head_frame
from kdtalker.core.protocols import EncodedPortrait
from kdtalker.core.rates import SAMPLE_RATE_HZ
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.mesh.geometry import to_pixels
from train.evaluate.held_out import Film, real_films
from train.evaluate.identity import FaceRecogniser, identity_distance
from train.harness.command import command

EVERY_FRAMES, MOST_FRAMES = 10, 300  # of a film are compared
SKIN = (10, 151, 9, 108, 337, 50, 280, 101, 330, 36, 266, 118, 347)  # forehead and cheeks
CHEEKS = (50, 280, 205, 425, 101, 330)
PATCH_PX = 32
OCTAVES = ((1 / 16, 1 / 8), (1 / 8, 1 / 4))  # cycles per pixel; Nyquist is 1/2
POSES_DEG = ((3, 1, 0.5), (-3, -1, 1), (2, -2, -1), (-2, 2, -0.7), (4, 0, 0.3), (-4, 0.5, -0.3))  # yaw, pitch, roll
SILENT_S = 3
SETTLED = 25  # frames in which a silent film goes over from the photograph to rest
Frames = Iterable[NDArray[np.uint8]]
Patch = tuple[slice, slice]


def identity(frames: Frames, tracker: FaceTracker, recogniser: FaceRecogniser, wanted: Array) -> float:
    """Mean distance of a film's face to an embedding."""
    distances = []
    for frame in itertools.islice(frames, 0, MOST_FRAMES, EVERY_FRAMES):
        for face in tracker.find(frame)[:1]:
            distances.append(identity_distance(recogniser.embed(frame, face.landmarks), wanted))
    return float(np.mean(distances))


def power(picture: NDArray[np.uint8], place: Array) -> Array | None:
    """(PATCH_PX, PATCH_PX) power spectrum of the light around a place in px, its slope taken away; None at a border."""
    (left, top), reach = np.round(place - PATCH_PX / 2).astype(int), PATCH_PX
    patch = picture[max(top, 0) : top + reach, max(left, 0) : left + reach].astype(float).mean(-1)
    if patch.shape != (reach, reach):
        return None
    rows, columns = np.mgrid[:reach, :reach]
    plane = np.c_[rows.ravel(), columns.ravel(), np.ones(reach * reach)]
    flat = patch.ravel() - plane @ np.linalg.lstsq(plane, patch.ravel(), rcond=None)[0]
    window = np.hanning(reach)[:, None] * np.hanning(reach)[None]
    return np.asarray(np.abs(np.fft.fft2(flat.reshape(reach, reach) * window)) ** 2)


def grain_db(portrait: EncodedPortrait, pipeline: TalkingPortraitPipeline) -> list[float]:
    """Power of cheeks that have moved over that of the photograph's, one number for each of OCTAVES."""
    source, model = portrait.source, pipeline.engine.renderer.model
    side = len(source.picture)
    still, moved = [], []
    for angles in POSES_DEG:
        turned = replace(to_head_frame(source.rest), pose=source.rest.pose + [angles])
        motion = from_head_frame(turned)
        frame = next(iter(pipeline.engine.renderer.render(source, motion)))
        places = [to_pixels(model.pose_vertices(source.identity, one)[0], side) for one in (source.rest, motion)]
        for point in CHEEKS:
            before, after = power(source.picture, places[0][point, :2]), power(frame, places[1][point, :2])
            if before is not None and after is not None:
                still.append(before)
                moved.append(after)
    ratio = np.sum(moved, 0), np.sum(still, 0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(PATCH_PX)] * 2))
    inside = [(frequency >= low) & (frequency < high) for low, high in OCTAVES]
    return [float(10 * np.log10(ratio[0][octave].sum() / ratio[1][octave].sum())) for octave in inside]


def flicker(portrait: EncodedPortrait, pipeline: TalkingPortraitPipeline, folder: Path) -> tuple[float, float]:
    """Mean difference of neighbouring frames over skin, in levels: of a still, silent film; of the same with the skin
    held."""
    silence = np.zeros(SILENT_S * SAMPLE_RATE_HZ, np.float32)
    corner = np.array([portrait.canvas.left, portrait.canvas.top])
    places = np.round(portrait.source.landmarks[list(SKIN), :2] + corner).astype(int)
    patches = [np.s_[y - 3 : y + 4, x - 3 : x + 4] for x, y in places]
    made = list(pipeline.animate(portrait, [silence], Options(still=True)))[SETTLED:]
    return _unrest(made, patches, folder), _unrest(_held(made, patches), patches, folder)


def _held(frames: list[NDArray[np.uint8]], patches: list[Patch]) -> Frames:
    """The frames, each with the first one's patches."""
    for frame in frames:
        held = frame.copy()
        for patch in patches:
            held[patch] = frames[0][patch]
        yield held


def _unrest(frames: Frames, patches: list[Patch], folder: Path) -> float:
    path = folder / "film.mp4"
    path.unlink(missing_ok=True)
    frames = iter(frames)
    first = next(frames)
    with VideoWriter(path, first.shape[1], first.shape[0]) as film:
        for frame in itertools.chain([first], frames):
            film.write(frame)
    shown = [np.stack([frame[patch].astype(float) for patch in patches]) for frame in read_video(path)]
    return float(np.mean([np.abs(now - last).mean() for last, now in itertools.pairwise(shown)]))


def figures(film: Film, pipeline: TalkingPortraitPipeline, folder: Path) -> dict[str, float]:
    """The figures of one film."""
    tracker, recogniser = FaceTracker(), FaceRecogniser()
    first = next(iter(read_video(film.path)))
    portrait = pipeline.portrait(first)
    wanted = recogniser.embed(first, tracker.find(first)[0].landmarks)
    low, high = grain_db(portrait, pipeline)
    still, encoder = flicker(portrait, pipeline, folder)
    return {
        "identity": identity(pipeline.animate(portrait, read_sound(film.sound)), tracker, recogniser, wanted),
        "real": identity(read_video(film.path), tracker, recogniser, wanted),
        "grain dB": low,
        "fine grain dB": high,
        "flicker": still,
        "encoder": encoder,
    }


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Identity, grain and flicker of films made from photographs.")
    parser.add_argument("data", type=Path, help="folder with clips.csv")
    pipeline, rows = TalkingPortraitPipeline.mesh(), []
    with tempfile.TemporaryDirectory() as folder:
        for film in real_films(parser.parse_args().data, ("val",)):
            row = figures(film, pipeline, Path(folder))
            if not rows:
                print(" | ".join(["film", *row]))
            rows.append(list(row.values()))
            print(" | ".join([film.path.name, *(f"{value:.3f}" for value in row.values())]), flush=True)
    print(" | ".join(["median", *(f"{value:.3f}" for value in np.median(rows, axis=0))]))


if __name__ == "__main__":
    main()
