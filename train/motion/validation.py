"""Validate the motion model on the validation split: sample, compute metrics, plot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import MESH_SPACE, Motion, from_head_frame, project, to_head_frame
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.renderers.mesh.geometry import FaceModel
from train.harness.curves import best_lag, correlation
from train.harness.figures import Figure
from train.motion.dataset import Clip

SEEDS = 4  # samples of each clip
STRIP_FACES = 8  # faces in a row of the plot
HEAD = ("yaw", "pitch", "roll")


@dataclass(frozen=True)
class SampledClip:
    """Hold a clip and the motion sampled from its sound: vectors (seeds, T, 70) as in `Clip`."""

    clip: Clip
    vectors: Array


def sample_clips(model: DiffusionMotionModel, clips: list[Clip], silence: Array) -> list[SampledClip]:
    """Sample motion for every clip from its own first frame, all clips and seeds in one batch."""
    states, features = [], []
    for clip in clips:
        rest = Motion.from_vector(clip.motion[:1], model.space)
        if model.config.relative:
            rest = Motion(rest.scale, 0 * rest.pose, 0 * rest.shift, rest.expression, model.space)
        states += [model.start(clip.canonical, rest, silence, seed=seed) for seed in range(SEEDS)]
        features += [np.asarray(clip.features, np.float32)] * SEEDS
    made = model.advance_many(states, features, last=True)
    motions = [to_head_frame(motion) if model.config.relative else motion for motion, _ in made]
    return [
        SampledClip(clip, np.stack([motion.vector() for motion in motions[SEEDS * index : SEEDS * (index + 1)]]))
        for index, clip in enumerate(clips)
    ]


def motion_metrics(sampled: list[SampledClip], mouth: Array) -> dict[str, float]:
    """Compute metrics, means over clips; mouth (63,) maps an expression to the mouth opening.

    r, r_best: correlation of one seed's mouth opening with the real one at lag 0 and at its best lag; amplitude: its
    standard deviation over the real one's; lag: absolute best lag in frames; r_mean_of_4: correlation of the mean over
    seeds at lag 0; yaw, pitch, roll: standard deviation over the real one's."""
    metrics: dict[str, list[float]] = {}
    for one in sampled:
        real, real_head = one.clip.motion[:, 7:] @ mouth, one.clip.motion[:, 1:4].std(0) + 1e-3
        mouths, heads = one.vectors[..., 7:] @ mouth, one.vectors[..., 1:4].std(1).mean(0)
        lags = [best_lag(row, real) for row in mouths]
        values = {
            "r": np.mean([correlation(row, real) for row in mouths]),
            "r_best": np.mean([correlation(row, real, lag) for row, lag in zip(mouths, lags, strict=True)]),
            "lag": np.mean(np.abs(lags)),
            "amplitude": mouths.std(1).mean() / (real.std() + 1e-6),
            "r_mean_of_4": correlation(mouths.mean(0), real),
        } | dict(zip(HEAD, heads / real_head, strict=True))
        for name, value in values.items():
            metrics.setdefault(name, []).append(float(value))
    return {name: float(np.mean(all_values)) for name, all_values in metrics.items()}


def plot_motion(one: SampledClip, mouth: Array, model: DiffusionMotionModel) -> Figure:
    """Plot mouth opening and head pose of a clip, real and sampled, above a row of faces of both."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9))
    rows = figure.subplots(4, 1, height_ratios=(2, 2, 1.6, 1.6))
    rows[0].plot(one.vectors[:, :, 7:].dot(mouth).T, alpha=0.6)
    rows[0].plot(one.clip.motion[:, 7:] @ mouth, "k")
    rows[0].set(title=f"mouth opening, {one.clip.film}", xlabel="frame")
    for column, name in enumerate(HEAD, 1):
        (line,) = rows[1].plot(one.vectors[0, :, column], label=f"{name}, sampled")
        rows[1].plot(one.clip.motion[:, column], "--", color=line.get_color(), label=f"{name}, real")
    rows[1].set(title="head, degrees", xlabel="frame")
    rows[1].legend(ncols=3, fontsize=7)
    for axis, name, vectors in ((rows[2], "real", one.clip.motion), (rows[3], "sampled", one.vectors[0])):
        chosen = np.linspace(0, len(vectors) - 1, STRIP_FACES).astype(int)
        for place, points in enumerate(_points(vectors[chosen], one.clip.canonical, model)):
            size = np.ptp(points[:, 1]) or 1.0
            axis.plot(points[:, 0] / size + 1.1 * place, -points[:, 1] / size, "k.", markersize=1.5)
        axis.set(title=f"faces, {name}", aspect="equal")
        axis.axis("off")
    figure.tight_layout()
    return figure


def _points(vectors: Array, canonical: Array, model: DiffusionMotionModel) -> Array:
    """Project a face to points (T, N, 2) around each frame's centre: the mean face in the mesh space, keypoints in
    other spaces."""
    motion = Motion.from_vector(vectors, model.space)
    motion = from_head_frame(motion) if model.config.relative else motion
    face = FaceModel.load() if model.space == MESH_SPACE else None
    points = project(canonical, motion) if face is None else face.pose_vertices(face.mean, motion)
    centred: Array = (points - points.mean(1, keepdims=True))[..., :2]
    return centred
