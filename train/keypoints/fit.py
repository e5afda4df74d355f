"""Fit the 21 implicit keypoints to tracked films, unsupervised: `python -m train.keypoints CONFIG [--dry-run]`.

CONFIG is a TOML file over the recipe below. The fit takes a minute or two on the CPU, so there are no checkpoints: an
interrupted fit starts again, and ends in the same file to the last bit.

Canonical vertex offsets E (468 per frame and coordinate) are explained through 21 keypoints, E ~ B A E. Rows of A are
>= 0 and sum to 1, so that keypoints lie on the face; B is the least-squares map back, B = S A^T (A S A^T)^-1 with
S = mean E E^T; A is found by gradient descent on the weighted vertex error that is left. Keypoints come in mirrored
pairs, so that films can be mirrored. RUN/keypoints.safetensors gets the face model, RUN/keypoints.png a picture of it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from tqdm import tqdm

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.motion import KEYPOINTS
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.face.landmarks import EYE_CONTOURS, EYE_LOWER, EYE_UPPER, LANDMARKS, LIP_PAIRS
from kdtalker.renderers.mesh.geometry import RIGID, FaceModel
from train.data.shards import Shard, load_shards
from train.harness.command import command
from train.harness.config import read_config
from train.harness.figures import save_figure
from train.harness.plan import MB, difference_line
from train.harness.training import CheckedConfig, number
from train.keypoints.validation import LIPS, explained, plot_keypoints, unexplained

MIDLINE_KEYPOINTS = 5  # keypoints on the face's midline; the other 16 are 8 mirrored pairs
CLOSED_PERCENTILE = 10  # this percentile of a speaker's lip gaps counts as the gap of a closed mouth
UPPER_LID_SHARE = 0.85  # share of a blink that the upper eyelid moves; the lower lid moves the rest
BLINK_WEIGHT, BLINK_LIP_WEIGHT = 50.0, 500.0  # least-squares weights of lids and of lips; other vertices have 1
GENERALISED_PROCRUSTES_ROUNDS = 6

MODEL_FILE, PICTURE_FILE = "keypoints.safetensors", "keypoints.png"
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class KeypointsRecipe(CheckedConfig):
    """Hold the settings of a fit. shards: folder to read; run: folder to write. lip_weight, lid_weight: weights of
    their vertices' errors, others have 1; spread_penalty: on a keypoint's variance over the face, to keep it local."""

    shards: Path = Path("shards")
    run: Path = Path("runs/keypoints")
    steps: int = number(1500, 1)
    learning_rate: float = number(0.1, 0)
    lip_weight: float = number(2.0, 0)
    lid_weight: float = number(4.0, 0)
    spread_penalty: float = number(0.01, 0)


PRESETS = {"mesh": KeypointsRecipe()}


def mirrored_vertices(mean: Array) -> NDArray[np.intp]:
    """Pair each of the 468 vertices with its mirror image (linear assignment); the pairing is its own inverse."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(mean, mean * [-1, 1, 1])
    mirror: NDArray[np.intp] = linear_sum_assignment(cost + cost.T)[1]
    if not (mirror[mirror] == np.arange(LANDMARKS)).all():
        raise RuntimeError("The mean face is not symmetric enough to pair its vertices.")
    return mirror


def mean_face(shards: list[Shard]) -> tuple[Array, NDArray[np.intp]]:
    """Compute the generalised Procrustes mean (468, 3) of the middle frames, symmetric, frontal, outer eye corners 1
    apart, and the mirror pairing of its vertices."""
    faces = [shard.landmarks[len(shard.landmarks) // 2].astype(np.float32) for shard in shards]
    mean = _upright(faces[0])
    for _ in range(GENERALISED_PROCRUSTES_ROUNDS):
        model = _bare_model(mean)
        mean = _upright(np.mean([model.fit(face)[3] for face in faces], axis=0))
        mirror = mirrored_vertices(mean)
        mean = ((mean + mean[mirror] * [-1, 1, 1]) / 2).astype(np.float32)
    return mean, mirror


def _upright(face: Array) -> Array:
    """Align a face: eye line along x, forehead to chin along y, rigid part centred, outer eye corners 1 apart."""
    across = face[263] - face[33]
    across /= np.linalg.norm(across)
    down = face[152] - face[10]
    down -= down @ across * across
    down /= np.linalg.norm(down)
    turned = face @ np.stack([across, down, np.cross(across, down)], 1)
    turned -= turned[list(RIGID)].mean(0)
    upright: Array = turned / np.linalg.norm(turned[33] - turned[263])
    return upright


def _bare_model(mean: Array) -> FaceModel:
    """Create a face model without keypoints, for fitting poses."""
    none = np.zeros((KEYPOINTS, LANDMARKS), np.float32)
    unit = np.eye(3 * KEYPOINTS, dtype=np.float32)
    mirror = np.arange(KEYPOINTS)
    return FaceModel(mean, none, none.T, unit, mirror, none[:, :3], none[0, : len(LIP_PAIRS)])  # type: ignore[arg-type]


def film_offsets(shards: list[Shard], model: FaceModel) -> list[Array]:
    """Compute the canonical vertex offsets (T, 468, 3) of each clip from its own mean face."""
    films = []
    for shard in shards:
        canonical = model.unpose(shard.landmarks.astype(np.float32))[3]
        films.append(canonical - canonical.mean(0))
    return films


def second_moment(films: list[Array]) -> Matrix:
    """Compute S (468, 468), the mean of E E^T over clips, frames and coordinates."""
    total = np.zeros((LANDMARKS, LANDMARKS))
    for offsets in films:
        columns = offsets.transpose(1, 0, 2).reshape(LANDMARKS, -1).astype(np.float64)
        total += columns @ columns.T
    moment: Matrix = total / sum(offsets.shape[0] * 3 for offsets in films)
    return moment


def vertex_weights(recipe: KeypointsRecipe) -> Matrix:
    """Compute the weight of each vertex's error (468,)."""
    weights = np.ones(LANDMARKS)
    weights[list(LIPS)] = recipe.lip_weight
    weights[[vertex for contour in EYE_CONTOURS for vertex in contour]] = recipe.lid_weight
    return weights


def spread(moment: torch.Tensor, picks: torch.Tensor) -> torch.Tensor:
    """Solve for B (468, 21), the least-squares map from keypoint offsets back to vertex offsets."""
    gram = picks @ moment @ picks.T
    ridge = 1e-6 * gram.trace() / len(gram) * torch.eye(len(gram), dtype=gram.dtype)
    spreads: torch.Tensor = torch.linalg.solve(gram + ridge, picks @ moment)
    return spreads.T


def greedy_vertices(moment: Matrix, mirror: NDArray[np.intp], weights: Matrix) -> list[int]:
    """Select 21 initial vertices greedily by explained variance: midline ones alone, others in mirrored pairs."""
    middle, pairs = MIDLINE_KEYPOINTS, (KEYPOINTS - MIDLINE_KEYPOINTS) // 2
    residual = (moment * np.sqrt(np.outer(weights, weights))).copy()
    chosen: list[int] = []
    while middle or pairs:
        gain = (residual**2).sum(0) / (np.diag(residual) + 1e-12)
        own_mirror = mirror == np.arange(LANDMARKS)
        gain[own_mirror if not middle else np.zeros(0, int)] = -1
        gain[~own_mirror if not pairs else np.zeros(0, int)] = -1
        gain[chosen] = -1
        best = int(np.argmax(gain + np.where(own_mirror, 0, gain[mirror])))
        new = [best] if own_mirror[best] else [best, int(mirror[best])]
        middle, pairs = (middle - 1, pairs) if own_mirror[best] else (middle, pairs - 1)
        for vertex in new:
            column = residual[:, vertex]
            residual = residual - np.outer(column, column) / (column[vertex] + 1e-12)
        chosen += new
    return chosen


def learn_keypoints(
    moment: Matrix, mean: Array, mirror: NDArray[np.intp], recipe: KeypointsRecipe
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Learn picks A (21, 468) by gradient descent; return them, spreads B (468, 21) and the keypoints' mirror
    pairing."""
    weights = vertex_weights(recipe)
    vertices = greedy_vertices(moment, mirror, weights)
    pairing = np.array([vertices.index(int(mirror[vertex])) for vertex in vertices])
    distance = ((mean[vertices][:, None] - mean[None]) ** 2).sum(-1)
    logits = torch.tensor(np.maximum(-distance / (2 * 0.04**2), -6), dtype=torch.float64, requires_grad=True)
    moment_t, weights_t, mean_t = (torch.tensor(value, dtype=torch.float64) for value in (moment, weights, mean))
    optimiser = torch.optim.Adam([logits], recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    order, flip = torch.tensor(pairing), torch.tensor(mirror)
    for _ in tqdm(range(recipe.steps), desc="keypoints", disable=None):
        picks = torch.softmax((logits + logits[order][:, flip]) / 2, dim=1)
        spreads = spread(moment_t, picks)
        left = moment_t.diagonal() - (spreads * (picks @ moment_t).T).sum(1)  # B is least squares
        error = (weights_t * left).sum() / (weights_t * moment_t.diagonal()).sum()
        extent = (picks @ (mean_t**2).sum(1) - ((picks @ mean_t) ** 2).sum(1)).mean()
        optimiser.zero_grad()
        (error + recipe.spread_penalty * extent).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return picks.detach().numpy().astype(np.float32), spreads.detach().numpy().astype(np.float32), pairing


def closed_gaps(shards: list[Shard], model: FaceModel) -> Array:
    """Compute the gap of each inner lip pair of a closed mouth (pairs,) in canonical units: the median over
    speakers."""
    upper, lower = np.array(LIP_PAIRS).T
    by_speaker: dict[str, list[Array]] = {}
    for shard in shards:
        canonical = model.unpose(shard.landmarks.astype(np.float32))[3]
        by_speaker.setdefault(shard.speaker, []).append(canonical[:, lower, 1] - canonical[:, upper, 1])
    lowest = [np.percentile(np.concatenate(gaps), CLOSED_PERCENTILE, axis=0) for gaps in by_speaker.values()]
    return np.median(lowest, axis=0).astype(np.float32)


def blink_offset(picks: Array, spreads: Array, mean: Array) -> Array:
    """Solve for the keypoint offset (21, 3) that closes the lids by one unit of eye opening (gap over width) and moves
    lips and the rest of the face as little as possible: weighted least squares, then scaled to close the gap
    exactly."""
    wanted, weights = np.zeros((LANDMARKS, 3), np.float32), np.ones(LANDMARKS, np.float32)
    weights[list(LIPS)] = BLINK_LIP_WEIGHT
    for contour in EYE_CONTOURS:
        upper, lower = list(contour[9:]), list(contour[1:8])
        wanted[upper] = UPPER_LID_SHARE * (mean[lower] - mean[upper])
        wanted[lower] = (1 - UPPER_LID_SHARE) * (mean[upper] - mean[lower])
        weights[list(contour)] = BLINK_WEIGHT
    root = np.sqrt(weights)[:, None]
    offset = np.linalg.lstsq(root * spreads, root * wanted, rcond=None)[0]
    upper, lower = list(EYE_UPPER), list(EYE_LOWER)
    falls = ((spreads[upper] - spreads[lower]) @ offset)[:, 1].mean()
    width = np.linalg.norm(mean[EYE_CONTOURS[0][0]] - mean[EYE_CONTOURS[0][8]])
    scaled: Array = (offset * (width / falls)).astype(np.float32)
    return scaled


def train(recipe: KeypointsRecipe, shards: list[Shard]) -> dict[str, float]:
    """Fit the face model and write it; return the share of variance explained on the validation split. Raises
    InputError where the training split is empty, OutputError where the disk is full."""
    training, validation = ([shard for shard in shards if shard.split == split] for split in ("train", "val"))
    if not training:
        raise InputError(f"All shards in '{recipe.shards}' are of the split 'val'; there is nothing to learn from.")
    mean, mirror = mean_face(training)
    bare = _bare_model(mean)
    films = film_offsets(training, bare)
    moment = second_moment(films)
    moment = (moment + moment[np.ix_(mirror, mirror)]) / 2
    picks, spreads, pairing = learn_keypoints(moment, mean, mirror, recipe)
    keypoint_offsets = np.concatenate([picks @ offsets for offsets in films]).reshape(-1, 3 * KEYPOINTS)
    covariance = (keypoint_offsets.T @ keypoint_offsets / len(keypoint_offsets)).astype(np.float32)
    blink = blink_offset(picks, spreads, mean)
    closed = closed_gaps(training, bare)
    model = FaceModel(mean, picks, spreads, covariance, pairing, blink, closed)  # type: ignore[arg-type]
    left = unexplained(film_offsets(validation, bare), model)
    figures = {"all": explained(left), "lips": explained(left, LIPS)} if validation else {}
    tensors = {name: np.ascontiguousarray(value) for name, value in vars(model).items()}
    content = save(tensors, {"figures": json.dumps(figures)})
    recipe.run.mkdir(parents=True, exist_ok=True)
    write_atomically(recipe.run / MODEL_FILE, lambda file: file.write(content))
    save_figure(plot_keypoints(model, left), recipe.run / PICTURE_FILE)
    return figures


def plan(recipe: KeypointsRecipe, shards: list[Shard]) -> str:
    """Format data, size, memory and differences from the preset, as lines to print."""
    training, validation = ([shard for shard in shards if shard.split == split] for split in ("train", "val"))
    data = [
        f"{len(group)} shards, {sum(len(shard.landmarks) for shard in group) / FRAME_RATE_HZ / 60:.1f} minutes, "
        f"{len({shard.speaker for shard in group})} people"
        for group in (training, validation)
    ]
    held = sum(shard.landmarks.nbytes + shard.sound.nbytes for shard in shards)
    offsets = sum(shard.landmarks.nbytes for shard in training)
    lines = [
        f"learn from    {data[0]}",
        f"held out      {data[1]}",
        f"keypoints     {KEYPOINTS} of {LANDMARKS} vertices: {KEYPOINTS * LANDMARKS} numbers",
        f"steps         {recipe.steps}, each over all frames at once",
        f"memory        {(held + 2 * offsets) / MB:.0f} MB: shards {held / MB:.0f}, offsets {2 * offsets / MB:.0f}",
        f"writes        '{recipe.run / MODEL_FILE}', '{recipe.run / PICTURE_FILE}'",
        difference_line(recipe, PRESETS),
    ]
    return "\n".join(lines)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Learn the 21 implicit keypoints from tracked films.")
    parser.add_argument("config", type=Path, help="TOML file: shards, run, and whatever else is to differ")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done: data, sizes, memory")
    options = parser.parse_args()
    recipe = read_config(options.config, PRESETS)
    shards = list(load_shards(recipe.shards))
    if options.dry_run:
        print(plan(recipe, shards))
    else:
        values = ", ".join(f"{name} {value:.4f}" for name, value in train(recipe, shards).items())
        print(f"{recipe.run / MODEL_FILE}: variance explained on people held out: {values or 'nobody is held out'}")


if __name__ == "__main__":
    main()
