"""Measure rendered videos against their source image: `python -m train.appearance DATA`, DATA a folder with clips.csv.

One line for each clip of the validation split, animated from its first frame: identity, the mean distance of dlib
embeddings to the source image's (lower is better), and that of the real video; loss of skin texture when the head moves
(dB, 0 is best, two octaves of the power spectrum up to half of Nyquist); flicker of skin that should not move (still
head, silent sound), the mean difference of neighbouring frames in the encoded video, and that of the same video with
frozen skin, which is the encoder's own.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdtalker import Options, TalkingPortraitPipeline
from kdtalker.core.arrays import Array, Image
from kdtalker.core.motion import from_head_frame, to_head_frame
from kdtalker.core.protocols import EncodedPortrait
from kdtalker.core.rates import SAMPLE_RATE_HZ
from kdtalker.face.portrait import Portrait
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.mesh.geometry import to_pixels
from kdtalker.renderers.mesh.renderer import MeshRenderer
from kdtalker.renderers.mesh.source import MeshSource
from train.evaluate.held_out import HeldOutClip, read_held_out
from train.evaluate.identity import FaceRecogniser, identity_distance
from train.harness.command import command

EVERY_FRAMES, MOST_FRAMES = 10, 300  # identity: every tenth of the first 300 frames is compared
SKIN = (
    10,
    151,
    9,
    108,
    337,
    50,
    280,
    101,
    330,
    36,
    266,
    118,
    347,
)  # vertices on forehead and cheeks, where flicker is measured
CHEEKS = (50, 280, 205, 425, 101, 330)  # vertices where texture is measured
PATCH_PX = 32  # side of the patches whose spectrum is taken
OCTAVES = ((1 / 16, 1 / 8), (1 / 8, 1 / 4))  # frequency bands in cycles per pixel; Nyquist is 1/2
POSES_DEG = (
    (3, 1, 0.5),
    (-3, -1, 1),
    (2, -2, -1),
    (-2, 2, -0.7),
    (4, 0, 0.3),
    (-4, 0.5, -0.3),
)  # turns of the head: yaw, pitch, roll
SILENT_S = 3  # length of the still video
SETTLED = 25  # frames of ease-in from the source pose to rest, not measured
Frames = Iterable[Image]
Patch = tuple[slice, slice]


def mean_identity_distance(frames: Frames, tracker: FaceTracker, recogniser: FaceRecogniser, wanted: Array) -> float:
    """Compute the mean identity distance of a video to an embedding (128,)."""
    distances = []
    for frame in itertools.islice(frames, 0, MOST_FRAMES, EVERY_FRAMES):
        for face in tracker.find(frame)[:1]:
            distances.append(identity_distance(recogniser.embed(frame, face.landmarks), wanted))
    return float(np.mean(distances))


def power_spectrum(picture: Image, place: Array) -> Array | None:
    """Compute the power spectrum (PATCH_PX, PATCH_PX) of the detrended luma around a place in px; None at a border."""
    (left, top), reach = np.round(place - PATCH_PX / 2).astype(int), PATCH_PX
    patch = picture[max(top, 0) : top + reach, max(left, 0) : left + reach].astype(float).mean(-1)
    if patch.shape != (reach, reach):
        return None
    rows, columns = np.mgrid[:reach, :reach]
    plane = np.c_[rows.ravel(), columns.ravel(), np.ones(reach * reach)]
    flat = patch.ravel() - plane @ np.linalg.lstsq(plane, patch.ravel(), rcond=None)[0]
    window = np.hanning(reach)[:, None] * np.hanning(reach)[None]
    return np.asarray(np.abs(np.fft.fft2(flat.reshape(reach, reach) * window)) ** 2)


def grain_db(portrait: EncodedPortrait[MeshSource], pipeline: TalkingPortraitPipeline[MeshSource]) -> list[float]:
    """Compute the texture power of moved cheeks over that of the source image in dB, for each of OCTAVES."""
    source, renderer = portrait.source, pipeline.engine.renderer
    assert isinstance(renderer, MeshRenderer)
    model = renderer.model
    side = len(source.picture)
    still, moved = [], []
    for angles in POSES_DEG:
        turned = replace(to_head_frame(source.rest), pose=np.asarray(source.rest.pose + [angles]))
        motion = from_head_frame(turned)
        frame = next(iter(renderer.render(source, motion)))
        places = [to_pixels(model.pose_vertices(source.identity, one)[0], side) for one in (source.rest, motion)]
        for point in CHEEKS:
            before, after = (
                power_spectrum(source.picture, places[0][point, :2]),
                power_spectrum(frame, places[1][point, :2]),
            )
            if before is not None and after is not None:
                still.append(before)
                moved.append(after)
    ratio = np.sum(moved, 0), np.sum(still, 0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(PATCH_PX)] * 2))
    inside = [(frequency >= low) & (frequency < high) for low, high in OCTAVES]
    return [float(10 * np.log10(ratio[0][octave].sum() / ratio[1][octave].sum())) for octave in inside]


def flicker(
    portrait: EncodedPortrait[MeshSource], pipeline: TalkingPortraitPipeline[MeshSource], folder: Path
) -> tuple[float, float]:
    """Compute the mean difference of neighbouring frames over skin, in levels, in a still, silent video, and in the
    same video with frozen skin."""
    silence = np.zeros(SILENT_S * SAMPLE_RATE_HZ, np.float32)
    canvas = portrait.canvas
    assert isinstance(canvas, Portrait)
    corner = np.array([canvas.left, canvas.top])
    places = np.round(portrait.source.landmarks[list(SKIN), :2] + corner).astype(int)
    patches = [np.s_[y - 3 : y + 4, x - 3 : x + 4] for x, y in places]
    made = list(pipeline.animate(portrait, [silence], Options(still=True)))[SETTLED:]
    return _mean_difference(made, patches, folder), _mean_difference(_freeze(made, patches), patches, folder)


def _freeze(frames: list[Image], patches: list[Patch]) -> Frames:
    """Replace the patches of each frame by those of the first one."""
    for frame in frames:
        held = frame.copy()
        for patch in patches:
            held[patch] = frames[0][patch]
        yield held


def _mean_difference(frames: Frames, patches: list[Patch], folder: Path) -> float:
    """Encode frames as a video and compute the mean difference of neighbouring frames over patches."""
    path = folder / "film.mp4"
    path.unlink(missing_ok=True)
    frames = iter(frames)
    first = next(frames)
    with VideoWriter(path, first.shape[1], first.shape[0]) as film:
        for frame in itertools.chain([first], frames):
            film.write(frame)
    shown = [np.stack([frame[patch].astype(float) for patch in patches]) for frame in read_video(path)]
    return float(np.mean([np.abs(now - last).mean() for last, now in itertools.pairwise(shown)]))


def measure_appearance(
    film: HeldOutClip, pipeline: TalkingPortraitPipeline[MeshSource], folder: Path
) -> dict[str, float]:
    """Compute the metrics of one clip."""
    tracker, recogniser = FaceTracker(), FaceRecogniser()
    first = next(iter(read_video(film.path)))
    portrait = pipeline.portrait(first)
    wanted = recogniser.embed(first, tracker.find(first)[0].landmarks)
    low, high = grain_db(portrait, pipeline)
    still, encoder = flicker(portrait, pipeline, folder)
    return {
        "identity": mean_identity_distance(
            pipeline.animate(portrait, read_sound(film.sound)), tracker, recogniser, wanted
        ),
        "real": mean_identity_distance(read_video(film.path), tracker, recogniser, wanted),
        "grain dB": low,
        "fine grain dB": high,
        "flicker": still,
        "encoder": encoder,
    }


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Identity, grain and flicker of films made from photographs.")
    parser.add_argument("data", type=Path, help="folder with clips.csv")
    pipeline = TalkingPortraitPipeline.mesh()
    rows: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for film in read_held_out(parser.parse_args().data, ("val",)):
            row = measure_appearance(film, pipeline, Path(folder))
            if not rows:
                print(" | ".join(["film", *row]))
            rows.append(list(row.values()))
            print(" | ".join([film.path.name, *(f"{value:.3f}" for value in row.values())]), flush=True)
    print(" | ".join(["median", *(f"{value:.3f}" for value in np.median(rows, axis=0))]))


if __name__ == "__main__":
    main()
