"""What the learned keypoints mean for the face, told by the vertices that they move."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.core.protocols import ExpressionBasis, ExpressionModel
from kdtalker.face.landmarks import LIP_PAIRS
from kdtalker.renderers.mesh.geometry import FaceModel

# Heights in the mean face, outer eye corners at 0.07, tip of the nose 0.53, upper lip 0.85: the mouth's share of a
# vertex grows from the one to the other, that of the eyes falls.
MOUTH_FROM, MOUTH_TO = 0.62, 0.86
EYES_FROM, EYES_TO = 0.45, 0.16


Ways = Mapping[tuple[int, int], tuple[float, float]]

# Where a smile, a sulk, raised brows and a frown want landmarks to go: pairs on either side, and the way of the one
# that stands left in the picture, x (outward is below 0) and y (up is below 0), in outer eye distances.
HELD: Ways = {(148, 377): (0, 0), (172, 397): (0, 0)}  # the jaw
CALM: Ways = {(159, 386): (0, 0), (145, 374): (0, 0), (105, 334): (0, 0)}  # lids and brows
SMILE: Ways = {(61, 291): (-0.045, -0.06), (159, 386): (0, 0), (145, 374): (0, -0.006), (105, 334): (0, 0), **HELD}
SULK: Ways = {(61, 291): (-0.01, 0.05), (17, 17): (0, -0.01), **CALM, **HELD}
BROW: Ways = {(105, 334): (0, -0.05), (66, 296): (0, -0.05), (55, 285): (0, -0.045), (159, 386): (0, -0.006),
              (145, 374): (0, 0), (61, 291): (0, 0), **HELD}  # fmt: skip
FROWN: Ways = {(55, 285): (0.02, 0.045), (66, 296): (0.01, 0.03), (70, 300): (0, -0.01), (159, 386): (0, 0.004),
               (145, 374): (0, 0), (61, 291): (0, 0), **HELD}  # fmt: skip


def expression_model(model: FaceModel) -> ExpressionModel:
    height = model.mean[:, 1]
    return ExpressionModel(
        mouth=part(model, smoothstep((height - MOUTH_FROM) / (MOUTH_TO - MOUTH_FROM))),
        eyes=part(model, smoothstep((height - EYES_FROM) / (EYES_TO - EYES_FROM))),
        basis=ExpressionBasis(*(wished(model, ways) for ways in (SMILE, SULK, BROW, FROWN)), **_lips(model)),
    )


def part(model: FaceModel, weight: Array) -> Array:
    """(21, 21): from an expression to the one whose vertices come nearest to the same motion where weight (468,) is 1
    and to none where it is 0, by least squares; the parts of weights that add up to 1 add up to the expression."""
    spreads = model.spreads.astype(np.float64)
    return np.asarray(np.linalg.solve(spreads.T @ spreads, spreads.T @ (weight[:, None] * spreads)), np.float32)


def wished(model: FaceModel, ways: Ways) -> Array:
    """(21, 3) the likeliest expression, by the covariance of speech, that moves landmarks as wished and leaves the
    inner lips as far apart as they are (conditional Gaussian)."""
    points = [point for pair in ways for point in pair]
    wanted = np.array([(side * x, y) for x, y in ways.values() for side in (1, -1)]).ravel()
    observe = np.einsum("pk,cd->pckd", model.spreads[points], np.eye(3)[:2]).reshape(len(wanted), -1)
    observe = np.concatenate([observe, model.lip_gap_jacobian()])
    wanted = np.append(wanted, np.zeros(len(LIP_PAIRS)))
    likeliest = model.map_expression(np.asarray(observe, np.float32), np.eye(len(wanted))) @ wanted
    return np.asarray(likeliest.reshape(-1, 3), np.float32)


def _lips(model: FaceModel) -> dict[str, Array]:
    gaps = model.lip_gap_jacobian()
    return {"lip_gap_jacobian": gaps, "lip_gap_inverse": model.map_expression(gaps, np.eye(len(gaps)))}
