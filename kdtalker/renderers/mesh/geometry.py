"""Linear face model: factor 468 landmarks into pose, identity and 21 implicit keypoints, and synthesise them again.

Coordinates are those of the face square: x right, y down, z inward, the square's edges at -1 and 1. Canonical
vertices face the camera, with the outer eye corners 1 apart in the mean face.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, Motion, pose_of_rotation, rotation_matrix
from kdtalker.face.landmarks import lip_gap
from kdtalker.renderers.mesh.topology import SKIN
from kdtalker.weights.find import find

WEIGHTS = "mesh_keypoints.safetensors"  # the shipped model

REGULARISATION = 1e-3  # noise of an observed offset, as a share of the mean variance of the observations

# Landmarks that speech and blinks hardly move, from which pose is fitted: forehead, temples, nose, cheekbones.
RIGID = (10, 151, 9, 8, 168, 6, 197, 195, 5, 108, 337, 69, 299, 104, 333, 68, 298, 54, 284, 21, 251, 71, 301, 162, 389,
         127, 356, 34, 264, 143, 372, 116, 345, 123, 352, 193, 417, 122, 351, 196, 419, 3, 248, 245, 465, 188, 412,
         114, 343, 33, 263, 133, 362)  # fmt: skip


@dataclass(frozen=True)
class FaceModel:
    """Hold a linear face model: mean (468, 3) canonical vertices; picks A (21, 468), from vertices to keypoints, rows
    >= 0 that sum to 1; spreads B (468, 21), from keypoint offsets to vertex offsets; covariance (63, 63) of canonical
    keypoint offsets over speech; mirror (21,), the keypoint on the other side; blink (21, 3), the offset that closes
    the eyelids, per unit of eye opening (gap over width); closed (pairs,), the lip gaps of closed mouths as tracked."""

    mean: Array
    picks: Array
    spreads: Array
    covariance: Array
    mirror: Array
    blink: Array
    closed: Array

    @staticmethod
    def load(path: Path | None = None) -> FaceModel:
        """Load the shipped model, or the one at `path` (safetensors, as `python -m train.keypoints` writes it).

        Raises InputError where it is missing or no face model."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = path or find(WEIGHTS)
        try:
            tensors = load_file(path)
            return FaceModel(**tensors)
        except FileNotFoundError:
            raise InputError(f"There is no face model '{path}'; `python -m train.keypoints` makes one.") from None
        except (SafetensorError, TypeError) as error:
            raise InputError(f"'{path}' is not a face model of this program ({error}); choose another file.") from None

    def fit(self, vertices: Array) -> tuple[Array, Array, Array, Array]:
        """Fit scale (1,), rotation (3, 3), shift (3,) and canonical vertices (468, 3) to a posed mesh (468, 3):
        vertices = scale (canonical R) + shift, the least-squares similarity over the rigid landmarks (Umeyama 1991,
        eq. 40-42)."""
        rigid = list(RIGID)
        target, source = vertices[rigid].astype(np.float64), self.mean[rigid].astype(np.float64)
        target_mean, source_mean = target.mean(0), source.mean(0)
        covariance = (target - target_mean).T @ (source - source_mean)
        left, singular, right = np.linalg.svd(covariance)
        signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
        rotation = ((left * signs) @ right).T  # for row vectors
        scale = (singular * signs).sum() / ((source - source_mean) ** 2).sum()
        shift = target_mean - scale * source_mean @ rotation
        canonical = (vertices - shift) / scale @ rotation.T
        return (
            np.float32(scale).reshape(1),
            rotation.astype(np.float32),
            shift.astype(np.float32),
            canonical.astype(np.float32),
        )

    def unpose(self, vertices: Array) -> tuple[Array, Array, Array, Array]:
        """Fit each frame: (T, 468, 3) to scale (T, 1), pose (T, 3), shift (T, 3), canonical (T, 468, 3)."""
        scale, rotation, shift, canonical = (np.stack(part) for part in zip(*map(self.fit, vertices), strict=True))
        return scale, pose_of_rotation(rotation), shift, canonical

    def pose_vertices(self, identity: Array, motion: Motion) -> Array:
        """Synthesise posed vertices (T, 468, 3) from identity (468, 3): scale (identity R + B expression) + shift."""
        turned = identity @ rotation_matrix(motion.pose)
        vertices: Array = motion.scale[:, None] * (turned + self.spreads @ motion.expression) + motion.shift[:, None]
        return vertices

    def offsets(self, canonical: Array, identity: Array) -> Array:
        """Compute keypoint offsets in the head's own frame: canonical vertices (T, 468, 3) to (T, 21, 3)."""
        offsets: Array = self.picks @ (canonical - identity)
        return offsets

    def resting_offset(self, canonical: Array) -> Array:
        """Estimate the keypoint offset (21, 3) that opens the mouth of a canonical face (468, 3): the MAP offset with
        its lip gaps. Subtracting it closes the lips."""
        opening = np.maximum(lip_gap(canonical[:, 1]) - self.closed, 0)
        return self.map_expression(self.lip_gap_jacobian(), opening).reshape(KEYPOINTS, 3)

    def lip_gap_jacobian(self) -> Array:
        """Return the (pairs, 63) derivative of the vertical gaps of the inner lips by the keypoint offsets."""
        gaps = lip_gap(self.spreads)
        jacobian = np.zeros((*gaps.shape, 3), np.float32)
        jacobian[..., 1] = gaps
        return jacobian.reshape(len(gaps), -1)

    def map_expression(self, jacobian: Array, target: NDArray[np.floating]) -> Array:
        """Estimate the most probable (MAP) keypoint offset under the Gaussian prior of speech: the conditional mean
        given jacobian (N, 63) @ offset = target, with observation noise of REGULARISATION times the mean variance.

        target (N,) to (63,); N columns of targets, such as the identity for the gain matrix, to (63, columns)."""
        gram = jacobian @ self.covariance @ jacobian.T
        noise = REGULARISATION * np.trace(gram) / len(gram) * np.eye(len(gram))
        return np.asarray(self.covariance @ jacobian.T @ np.linalg.solve(gram + noise, target), np.float32)


def unpose(points: Array, motion: Motion) -> Array:
    """Transform points (N, 3) of a posed head (T = 1) to the head's frame: the inverse of scale (points R) + shift."""
    turned = (points - motion.shift[0]) / motion.scale[0]
    return np.asarray(turned @ rotation_matrix(motion.pose)[0].T, np.float32)


def mirror_landmarks(mean: Array) -> NDArray[np.intp]:
    """Pair each landmark with the one on the other side of the face, by the symmetric mean face (468, 3)."""
    flipped = mean * np.array([-1, 1, 1], np.float32)
    pairs: NDArray[np.intp] = np.linalg.norm(flipped[:, None] - mean[None], axis=2).argmin(1)
    return pairs


def vertex_normals(vertices: Array) -> Array:
    """Compute outward unit normals (468, 3) of a face mesh, weighted by the area of its triangles."""
    triangles = np.array(SKIN)
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    normals = np.zeros_like(vertices)
    np.add.at(normals, triangles.ravel(), np.repeat(np.cross(b - a, c - a), 3, axis=0))
    return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True), np.float32)


def to_square(landmarks: Array, left: float, top: float, side: float) -> Array:
    """Convert landmarks (..., 3) from picture px to the units of a face square with left, top and side in px (pixel
    centres at whole numbers)."""
    scaled = (landmarks - np.array([left - 0.5, top - 0.5, 0], np.float32)) * (2 / side)
    scaled[..., :2] -= 1
    return scaled.astype(np.float32)


def to_pixels(points: Array, side: float) -> Array:
    """Convert points (..., 3) from the units of a face square to px of its crop: the inverse of `to_square`."""
    pixels = np.array(points, np.float32)
    pixels[..., :2] += 1
    pixels *= side / 2
    pixels[..., :2] -= 0.5
    return pixels
