"""Derive the semantics of the learned keypoints, face regions and blendshapes, from the vertices that they move."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdtalker.core.arrays import Array, smoothstep
from kdtalker.core.protocols import ExpressionBasis, ExpressionModel
from kdtalker.face.landmarks import LIP_PAIRS
from kdtalker.renderers.mesh.geometry import FaceModel

# Heights in the mean face between which a region's weight goes from 0 to 1 (outer eye corners at 0.07, tip of the nose
# 0.53, upper lip 0.85).
MOUTH_RAMP = (0.62, 0.86)
EYES_RAMP = (0.45, 0.16)

LandmarkTargets = Mapping[tuple[int, int], tuple[float, float]]

# Targets of the blendshapes: pairs of landmarks, the one on the left of the picture first, and its displacement x
# (outward is below 0; mirrored for the other) and y (up is below 0) in outer eye distances.
FIXED_JAW: LandmarkTargets = {(148, 377): (0, 0), (172, 397): (0, 0)}
FIXED_EYES: LandmarkTargets = {(159, 386): (0, 0), (145, 374): (0, 0), (105, 334): (0, 0)}  # eyelids and brows
SMILE: LandmarkTargets = {(61, 291): (-0.045, -0.06), (159, 386): (0, 0), (145, 374): (0, -0.006), (105, 334): (0, 0),
                          **FIXED_JAW}  # fmt: skip
LOWERED_CORNERS: LandmarkTargets = {(61, 291): (-0.01, 0.05), (17, 17): (0, -0.01), **FIXED_EYES, **FIXED_JAW}
RAISED_BROWS: LandmarkTargets = {(105, 334): (0, -0.05), (66, 296): (0, -0.05), (55, 285): (0, -0.045),
                                 (159, 386): (0, -0.006), (145, 374): (0, 0), (61, 291): (0, 0),
                                 **FIXED_JAW}  # fmt: skip
FROWN: LandmarkTargets = {(55, 285): (0.02, 0.045), (66, 296): (0.01, 0.03), (70, 300): (0, -0.01),
                          (159, 386): (0, 0.004), (145, 374): (0, 0), (61, 291): (0, 0), **FIXED_JAW}  # fmt: skip


def build_expression_model(model: FaceModel) -> ExpressionModel:
    """Compute the projections onto mouth and eyes and the blendshapes of a face model."""
    height = model.mean[:, 1]
    jacobian = model.lip_gap_jacobian()
    smile, sulk, brow, frown = (
        solve_offset(model, targets) for targets in (SMILE, LOWERED_CORNERS, RAISED_BROWS, FROWN)
    )
    return ExpressionModel(
        mouth=project_region(model, _ramp(height, MOUTH_RAMP)),
        eyes=project_region(model, _ramp(height, EYES_RAMP)),
        basis=ExpressionBasis(
            smile=smile,
            sulk=sulk,
            brow=brow,
            frown=frown,
            lip_gap_jacobian=jacobian,
            lip_gap_inverse=model.map_expression(jacobian, np.eye(len(jacobian))),
        ),
    )


def project_region(model: FaceModel, weight: Array) -> Array:
    """Compute the projection (21, 21) of expressions onto a region with vertex weights (468,) 0..1: least squares over
    the vertex offsets times their weights. Projections for weights that sum to 1 sum to the identity."""
    spreads = model.spreads.astype(np.float64)
    return np.asarray(np.linalg.solve(spreads.T @ spreads, spreads.T @ (weight[:, None] * spreads)), np.float32)


def solve_offset(model: FaceModel, targets: LandmarkTargets) -> Array:
    """Solve for the expression offset (21, 3) that moves landmarks to their targets and keeps the lip gaps, as the MAP
    estimate under the Gaussian prior of speech (`FaceModel.map_expression`)."""
    points = [point for pair in targets for point in pair]
    displacements = np.array([(side * x, y) for x, y in targets.values() for side in (1, -1)]).ravel()
    jacobian = np.einsum("pk,cd->pckd", model.spreads[points], np.eye(3)[:2]).reshape(len(displacements), -1)
    jacobian = np.concatenate([jacobian, model.lip_gap_jacobian()])
    displacements = np.append(displacements, np.zeros(len(LIP_PAIRS)))
    gain = model.map_expression(np.asarray(jacobian, np.float32), np.eye(len(displacements)))
    return np.asarray((gain @ displacements).reshape(-1, 3), np.float32)


def _ramp(height: Array, ramp: tuple[float, float]) -> Array:
    low, high = ramp
    return smoothstep((height - low) / (high - low))
