"""A motion model in the middle of its training: figures on people held out, and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.motion import MESH_SPACE, Motion, from_head_frame, project, to_head_frame
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.renderers.mesh.geometry import FaceModel
from train.harness.curves import best_lag, correlation
from train.harness.figures import Figure
from train.motion.dataset import Clip

SEEDS, STEPS = 4, 10
STRIP = 8  # faces in the picture of sampled motion
HEAD = ("yaw", "pitch", "roll")


@dataclass(frozen=True)
class Sampled:
    """A take and what the model makes of its sound: vectors (seeds, T, 70) as in a Clip."""

    take: Clip
    vectors: Array


def sample(model: DiffusionMotionModel, takes: list[Clip], silence: Array) -> list[Sampled]:
    """Every take said by its own first frame, all of them and all seeds side by side."""
    states, features = [], []
    for take in takes:
        rest = Motion.from_vector(take.motion[:1], model.space)
        if model.config.relative:
            rest = Motion(rest.scale, 0 * rest.pose, 0 * rest.shift, rest.expression, model.space)
        states += [
            model.start(take.canonical, rest, silence, seed=seed, sampling=Sampling(STEPS)) for seed in range(SEEDS)
        ]
        features += [np.asarray(take.features, np.float32)] * SEEDS
    made = model.advance_many(states, features, last=True)
    motions = [to_head_frame(motion) if model.config.relative else motion for motion, _ in made]
    return [
        Sampled(take, np.stack([motion.vector() for motion in motions[SEEDS * index : SEEDS * (index + 1)]]))
        for index, take in enumerate(takes)
    ]


def figures_of(sampled: list[Sampled], mouth: Array) -> dict[str, float]:
    """Means over takes; mouth (63,) tells how far it is open. r, r_best, amplitude: a single seed's mouth against the
    real one, at lag 0, at its best lag, and its deviation over the real one's; lag: how many frames that lag is away
    from 0; r_mean_of_4: the mean of the seeds' mouths at lag 0; yaw, pitch, roll: deviation over the real one's."""
    figures: dict[str, list[float]] = {}
    for one in sampled:
        real, real_head = one.take.motion[:, 7:] @ mouth, one.take.motion[:, 1:4].std(0) + 1e-3
        mouths, heads = one.vectors[..., 7:] @ mouth, one.vectors[..., 1:4].std(1).mean(0)
        lags = [best_lag(row, real) for row in mouths]
        told = {
            "r": np.mean([correlation(row, real) for row in mouths]),
            "r_best": np.mean([correlation(row, real, lag) for row, lag in zip(mouths, lags, strict=True)]),
            "lag": np.mean(np.abs(lags)),
            "amplitude": mouths.std(1).mean() / (real.std() + 1e-6),
            "r_mean_of_4": correlation(mouths.mean(0), real),
        } | dict(zip(HEAD, heads / real_head, strict=True))
        for name, value in told.items():
            figures.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in figures.items()}


def draw_motion(one: Sampled, mouth: Array, model: DiffusionMotionModel) -> Figure:
    """Mouth and head of a take, real (black) and sampled, and its faces as they pass by."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9))
    rows = figure.subplots(4, 1, height_ratios=(2, 2, 1.6, 1.6))
    rows[0].plot(one.vectors[:, :, 7:].dot(mouth).T, alpha=0.6)
    rows[0].plot(one.take.motion[:, 7:] @ mouth, "k")
    rows[0].set(title=f"mouth opening, {one.take.film}", xlabel="frame")
    for column, name in enumerate(HEAD, 1):
        (line,) = rows[1].plot(one.vectors[0, :, column], label=f"{name}, sampled")
        rows[1].plot(one.take.motion[:, column], "--", color=line.get_color(), label=f"{name}, real")
    rows[1].set(title="head, degrees", xlabel="frame")
    rows[1].legend(ncols=3, fontsize=7)
    for axis, name, vectors in ((rows[2], "real", one.take.motion), (rows[3], "sampled", one.vectors[0])):
        chosen = np.linspace(0, len(vectors) - 1, STRIP).astype(int)
        for place, points in enumerate(_points(vectors[chosen], one.take.canonical, model)):
            size = np.ptp(points[:, 1]) or 1.0
            axis.plot(points[:, 0] / size + 1.1 * place, -points[:, 1] / size, "k.", markersize=1.5)
        axis.set(title=f"faces, {name}", aspect="equal")
        axis.axis("off")
    figure.tight_layout()
    return figure


def _points(vectors: Array, canonical: Array, model: DiffusionMotionModel) -> Array:
    """(T, N, 2) places of a face: the mean face in the mesh space, bare keypoints elsewhere; each frame's own middle is
    its origin."""
    motion = Motion.from_vector(vectors, model.space)
    motion = from_head_frame(motion) if model.config.relative else motion
    face = FaceModel.load() if model.space == MESH_SPACE else None
    points = project(canonical, motion) if face is None else face.pose_vertices(face.mean, motion)
    centred: Array = (points - points.mean(1, keepdims=True))[..., :2]
    return centred
