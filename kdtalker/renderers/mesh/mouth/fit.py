"""Fit the teeth of a photographed mouth: the textures that draw it best, by gradient descent (analysis by synthesis).

While lips, places and light stay as photographed, only textures change, and an image is two layers of resampled
textures over a background. Resampling moves and scales along rows and columns, so it is a matrix on either side
(`_interpolation`), whose transpose carries the gradient back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kdtalker.core.arrays import Array, Image
from kdtalker.renderers.mesh.mouth.frame import HEIGHT_PX, LEAST_LOGIT, TEXTURE_PX, WIDTH_PX, LipShape
from kdtalker.renderers.mesh.mouth.networks import InteriorNetwork, MouthCodes

OPEN_AREA = 0.006  # share of the frame that the photographed opening must cover for its teeth to be fitted
FIT_STEPS, FIT_RATE = 60, 8.0  # of gradient descent: textures change by as much as their alpha shows them
DETAILS_PENALTY = 1e-3  # on squares of what the fit adds to the logits of the textures


def fit_mouth(picture: Image, lips: LipShape, colour: Array, network: InteriorNetwork) -> MouthCodes:
    """Encode a photographed mouth (HEIGHT_PX, WIDTH_PX, 3) with the plate nearest to it; where it is open, choose the
    plate that draws it best and fit the textures to it, so that its own teeth are seen in every frame. colour: of skin
    and lips."""
    codes, plates = network.encode(picture, lips, colour)
    if lips.mask.mean() <= OPEN_AREA:
        return codes
    scene = Scene.of(picture, lips, network.light(codes, lips))
    errors = [scene.error(textures) for textures in plates]
    return replace(codes, textures=scene.fit(plates[int(np.argmin(errors))]))


@dataclass(frozen=True)
class Scene:
    """Hold a photographed opening, cropped to its box (h, w), and all but the teeth's textures by which it is drawn:
    real (3, h, w) 0..1 and mask (h, w); background (3, h, w); of the upper and the lower teeth gain and visible (2, 1,
    h, w), and the matrices down (2, h, TEXTURE_PX) and across (2, 1, WIDTH_PX, w) that resample a texture."""

    real: Array
    mask: Array
    background: Array
    gain: Array
    visible: Array
    down: Array
    across: Array

    @staticmethod
    def of(picture: Image, lips: LipShape, light: list[Array]) -> Scene:
        """Crop a picture (HEIGHT_PX, WIDTH_PX, 3) and `MouthInterior.light` to the opening's box."""
        background, gain, visible, moves, scale = light
        inside = lips.mask > 0
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        box = np.s_[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        middle = (WIDTH_PX - 1) / 2
        at_row = np.arange(HEIGHT_PX) - moves[:, 1:]
        at_column = middle + np.exp(-scale)[:, None] * (np.arange(WIDTH_PX) - middle - moves[:, :1])
        down = _interpolation(at_row, TEXTURE_PX)[:, box[-2]]
        across = _interpolation(at_column, WIDTH_PX)[:, box[-1]].transpose(0, 2, 1)[:, None]
        real = np.asarray(picture.transpose(2, 0, 1) / 255, np.float32)
        background, gain, visible = (np.ascontiguousarray(values[box]) for values in (background, gain, visible))
        return Scene(real[box], lips.mask[box], background, gain, visible, down[:, None], across)

    def error(self, textures: Array) -> float:
        """Compute the squared error inside the opening of the drawing from textures (2, 4, TEXTURE_PX, WIDTH_PX)."""
        image = _composite(self.background, *self._layers(textures))[0]
        return float((self.mask * (image - self.real) ** 2).sum())

    def fit(self, textures: Array) -> Array:
        """Minimise the error and DETAILS_PENALTY over the logits of textures, from these on."""
        inside = np.clip(textures, LEAST_LOGIT, 1 - LEAST_LOGIT)
        base = np.log(inside / (1 - inside))
        details = np.zeros_like(base)
        for _ in range(FIT_STEPS):
            drawn = _sigmoid(base + details)
            gradient = self.gradient(drawn) * drawn * (1 - drawn) + 2 * DETAILS_PENALTY * details
            details -= np.float32(FIT_RATE) * gradient
        return _sigmoid(base + details)

    def gradient(self, textures: Array) -> Array:
        """Compute the gradient of `error` with respect to textures, of their shape."""
        colours, alpha = self._layers(textures)
        image, below = _composite(self.background, colours, alpha)
        onto = 2 * self.mask * (image - self.real)  # gradient with respect to the image
        moved = np.empty((2, 4, *self.mask.shape), np.float32)
        for layer in (0, 1):
            moved[layer, :3] = alpha[layer] * onto * self.gain[layer]
            moved[layer, 3:] = (onto * (colours[layer] - below[layer])).sum(0) * self.visible[layer]
            onto = (1 - alpha[layer]) * onto
        back: Array = self.down.swapaxes(-1, -2) @ moved @ self.across.swapaxes(-1, -2)
        return back

    def _layers(self, textures: Array) -> tuple[Array, Array]:
        """Resample textures and light them: colours (2, 3, h, w) and alpha (2, 1, h, w)."""
        moved = np.asarray(self.down @ textures @ self.across, np.float32)
        return moved[:, :3] * self.gain, moved[:, 3:] * self.visible


def _composite(background: Array, colours: Array, alpha: Array) -> tuple[Array, list[Array]]:
    """Composite layers from back to front, see `Layers`: the image, and what lies below the upper and the lower teeth,
    each (3, h, w)."""
    over_lower = background + alpha[1] * (colours[1] - background)
    return over_lower + alpha[0] * (colours[0] - over_lower), [over_lower, background]


def _interpolation(places: Array, size: int) -> Array:
    """Build matrices (..., N, size) of linear interpolation at places (..., N) of a row of `size` px, 0 beyond it."""
    return np.asarray(np.maximum(0, 1 - np.abs(places[..., None] - np.arange(size))), np.float32)


def _sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-values)), np.float32)
