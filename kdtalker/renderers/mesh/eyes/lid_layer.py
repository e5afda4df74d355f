"""Draw closing eyelids over a warped picture: skin that is synthesised once per source image, with the photograph's own
lid edges and lashes moved along."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array, Image, smoothstep
from kdtalker.core.compiled import kernel
from kdtalker.renderers.mesh.curves import catmull_rom

SAMPLES = 2  # of the textures per px of the source image, so that bilinear sampling stays sharp
APPEAR = (0.02, 0.12)  # closing of an eye, as a share of its opening, at which the layer starts and is complete

# Lengths in eye widths.
MARGIN_X, ABOVE, BELOW = 0.3, 0.75, 0.85  # extent of the textures beyond the corners, above and below the outer one
LASHES_ABOVE, LASHES_BELOW = 0.38, 0.12  # height of crease and lashes above, of lashes below the eye, replaced by skin
CORNER_REACH = 0.18  # how far the layer reaches beyond the corners
FEATHER = 0.2  # width of the transition to the warped picture
INSET = 0.02  # by which shut lids are sampled beyond their edges, where there is no eyeball
ABOVE_BAND, BELOW_BAND = (0.06, 0.28), (0.15, 0.35)  # distances from the lids' edges at which skin colour is taken
COLOUR_SIGMA = 0.2  # of the Gaussian that smooths this colour along the lid
FINE_SIGMA = 0.05  # of the Gaussian that separates the skin's texture from its shading
LASH_BAND = (0.0, 0.1)  # distances above the upper lid's edge at which the lashes are
LASH_SIGMA = 0.03  # of the Gaussian that smooths their darkness along the lid
TURNED_LENGTH = 0.28  # of lashes that turn down, below the edge
LASH_LINE = (0.025, 0.22)  # height of the line of lashes above and below the edge of a shut lid

BAND_SAMPLES = 12  # taken across each band
SKIN_PERCENTILE, LASH_PERCENTILE = 88, 15  # over a band: passes over lashes; finds them
LASH_RANGE = (0.22, 0.35)  # light that lashes leave over
TURNED_LIGHT = 0.35  # least light that lashes which turn down leave over the skin below them
LINE_CLOSING = (0.3, 0.9)  # closing between which the drawn line of lashes replaces the photographed ones
BULGE_SHARE = 0.8  # of the light below the eye, caught by the middle of a lid over its eyeball
FINE_LIMIT = 2.0  # texture is clipped at so many median absolute deviations: no hair, no reflections

Colour = tuple[float, float, float]  # RGB in levels
Heights = tuple[float, float, float, float]  # of the upper and lower edge in the source, and in the frame


@dataclass(frozen=True)
class LidLayer:
    """Hold the textures of one eye in its own frame: x from the outer to the inner corner, y down, SAMPLES per px.

    matrix (2, 3): px of the source image to the eye's frame; photo and skin (h, w, 3), float32 levels: the photograph
    and the same without eye and lashes; lashes (w,): light that those of the upper lid leave over; upper and lower
    (w,): heights of the lids' edges; width of the eye."""

    matrix: Array
    photo: Array
    skin: Array
    lashes: Array
    upper: Array
    lower: Array
    width: float

    @staticmethod
    def of(picture: Image, contour: Array) -> LidLayer:
        """Synthesise the textures from the picture (S, S, 3) and the contour (16, 2) px of an eye."""
        outer, inner = contour[0], contour[8]
        width = float(np.linalg.norm(inner - outer)) + 1e-6
        across = (inner - outer) / width
        down = np.array([-across[1], across[0]])
        down *= np.sign(down @ (contour[1:8].mean(0) - contour[9:].mean(0))) or 1
        linear, width = np.asarray(SAMPLES * np.stack([across, down]), np.float32), SAMPLES * width
        matrix = np.c_[linear, np.array([MARGIN_X, ABOVE]) * width - linear @ outer].astype(np.float32)
        size = (round((1 + 2 * MARGIN_X) * width) + 2, round((ABOVE + BELOW) * width) + 2)
        flags, border = cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
        photo = np.asarray(cv2.warpAffine(picture, matrix, size, flags=flags, borderMode=border), np.float32)
        upper, lower = _edges(matrix, contour, size[0])
        skin = _synthesise_skin(photo, upper, lower, width)
        return LidLayer(matrix, photo, skin, _lash_light(photo, skin, upper, width), upper, lower, width)

    def draw(self, frame: Image, to_source: Array, contour: Array, *, closing: float, share: float) -> None:
        """Draw the lids into a frame (S, S, 3) in place. to_source (3, 2): affine map of the eye socket from px of the
        frame (x, y, 1) to px of the source image; contour (16, 2) px of the eye in the frame; closing: 0 open, 1
        shut; share 0..1: opacity of the lids of an eye that is turned away."""
        share *= float(smoothstep((closing - APPEAR[0]) / (APPEAR[1] - APPEAR[0])))
        if not share:
            return
        to_eye = np.asarray(self.matrix @ np.vstack([to_source.T, [0, 0, 1]]), np.float32)
        upper, lower = _edges(to_eye, contour, len(self.upper))
        edges = np.stack([self.upper, self.lower, upper, np.maximum(upper, lower)])
        height, width = self.photo.shape[:2]
        corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], np.float32)
        corners = corners @ cv2.invertAffineTransform(to_eye).T
        low = np.clip(np.floor(corners.min(0)), 0, len(frame)).astype(int)
        high = np.clip(np.ceil(corners.max(0)) + 1, 0, len(frame)).astype(int)
        if (high <= low).any():
            return
        to_eye[:, 2] += to_eye[:, :2] @ low
        area = frame[low[1] : high[1], low[0] : high[0]]
        textures = self.photo, self.skin, self.lashes
        _draw(area, to_eye, textures, edges, self.width, min(max(closing, 0.0), 1.0), share)


def _edges(matrix: Array, contour: Array, columns: int) -> tuple[Array, Array]:
    """Interpolate the heights (columns,) of the upper and lower lid's edge in an eye's frame, level beyond the corners.
    matrix (2, 3): px of the contour (16, 2) to the frame."""
    points = contour @ matrix[:, :2].T + matrix[:, 2]
    curves = [catmull_rom(curve.astype(np.float32)) for curve in (points[[0, *range(9, 16), 8]], points[:9])]
    ordered = [curve[np.argsort(curve[:, 0])] for curve in curves]
    upper, lower = (np.interp(np.arange(columns), *curve.T).astype(np.float32) for curve in ordered)
    return upper, lower


def _synthesise_skin(photo: Array, upper: Array, lower: Array, width: float) -> Array:
    """Replace eye and lashes in an eye's photograph (h, w, 3) by skin: the colours of the skin between lashes and brow
    and of the skin below the eye, with the fine texture of the latter."""
    rows, columns = photo.shape[:2]
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    high = _skin_colour(photo, upper, -width, ABOVE_BAND)
    low = _skin_colour(photo, lower, width, BELOW_BAND)
    down = (y - upper) / np.maximum(lower - upper, 1)  # 0 at the upper, 1 at the lower lid
    bulge = BULGE_SHARE * np.exp(-(((down - 0.45) / 0.35) ** 2))
    coarse = high + np.maximum(bulge, smoothstep((down - 1.15) / 0.3))[..., None] * (low - high)

    fine = np.asarray(photo - cv2.GaussianBlur(photo, (0, 0), FINE_SIGMA * width), np.float32)
    limit = FINE_LIMIT * np.median(np.abs(fine), axis=(0, 1))
    shift = float((lower - upper).max()) + (LASHES_ABOVE + LASHES_BELOW) * width
    fine = np.asarray(cv2.remap(fine, x, y + np.float32(shift), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))

    crease = smoothstep((y - upper + LASHES_ABOVE * width) / (FEATHER * width))
    below = smoothstep((lower + LASHES_BELOW * width - y) / (FEATHER * width))
    along = x / width - MARGIN_X
    side = smoothstep((np.minimum(along, 1 - along) + CORNER_REACH) / (2 * CORNER_REACH))
    hidden = (np.minimum(crease, below) * side)[..., None]
    return np.asarray(photo + hidden * (coarse + np.clip(fine, -limit, limit) - photo), np.float32)


def _sample_band(texture: Array, edge: Array, unit: float, band: tuple[float, float]) -> Array:
    """Sample a texture (h, w, 3) along an edge (w,), at distances of `band` times `unit` from it: (n, w, 3)."""
    rows = (edge + unit * np.linspace(*band, BAND_SAMPLES)[:, None]).astype(np.float32)
    columns = np.broadcast_to(np.arange(len(edge), dtype=np.float32), rows.shape).copy()
    return np.asarray(cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _skin_colour(photo: Array, edge: Array, unit: float, band: tuple[float, float]) -> Array:
    """Estimate the colour (w, 3) of the skin along a lid's edge (w,), smoothed along it."""
    colour = np.percentile(_sample_band(photo, edge, unit, band), SKIN_PERCENTILE, axis=0).astype(np.float32)
    sigma = COLOUR_SIGMA * abs(unit)
    return np.asarray(cv2.GaussianBlur(colour[None], (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)[0], np.float32)


def _lash_light(photo: Array, skin: Array, upper: Array, width: float) -> Array:
    """Measure how much light the lashes along the upper lid (w,) leave over: the photograph over the skin, (w,)."""
    seen, bare = (_sample_band(texture, upper, -width, LASH_BAND).mean(-1) for texture in (photo, skin))
    light = np.percentile((seen + 8) / (np.clip(bare, 0, 255) + 8), LASH_PERCENTILE, axis=0).astype(np.float32)
    light = cv2.GaussianBlur(light[None], (0, 0), LASH_SIGMA * width, borderType=cv2.BORDER_REPLICATE)[0]
    return np.asarray(np.clip(light, *LASH_RANGE), np.float32)


@kernel(fastmath=True, error_model="numpy")
def _ease(progress: float) -> float:
    progress = min(max(progress, 0.0), 1.0)
    return progress * progress * (3 - 2 * progress)


@kernel(fastmath=True, error_model="numpy")
def _sample(texture: Array, x: float, y: float) -> Colour:
    """Sample a texture (h, w, 3) bilinearly; beyond its border it is repeated."""
    x, y = min(max(x, 0), texture.shape[1] - 1.001), min(max(y, 0), texture.shape[0] - 1.001)
    left, top = max(int(x), 0), max(int(y), 0)
    u, v = x - left, y - top
    first, second, third, fourth = (1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v
    right, below = left + 1, top + 1
    return (
        first * texture[top, left, 0]
        + second * texture[top, right, 0]
        + third * texture[below, left, 0]
        + fourth * texture[below, right, 0],
        first * texture[top, left, 1]
        + second * texture[top, right, 1]
        + third * texture[below, left, 1]
        + fourth * texture[below, right, 1],
        first * texture[top, left, 2]
        + second * texture[top, right, 2]
        + third * texture[below, left, 2]
        + fourth * texture[below, right, 2],
    )


@kernel(fastmath=True, error_model="numpy")
def _lid(  # noqa: PLR0917 (compiled code takes no keywords)
    photo: Array, skin: Array, x: float, y: float, place: float, keep: float, closing: float
) -> Colour:
    """Colour a lid at (x, y): skin that stays with the socket, and `keep` of what the photograph shows over it at
    `place`, beside the lid's edge. As the lid closes only what is darker is kept: lashes, no eyeball."""
    red, green, blue = _sample(skin, x, y)
    if keep > 0:
        (red0, green0, blue0), (red1, green1, blue1) = _sample(skin, x, place), _sample(photo, x, place)
        red += keep * _darker(red1 - red0, closing)
        green += keep * _darker(green1 - green0, closing)
        blue += keep * _darker(blue1 - blue0, closing)
    return red, green, blue


@kernel(fastmath=True, error_model="numpy")
def _darker(detail: float, closing: float) -> float:
    """Keep of a detail what is darker, and less of what is lighter the more a lid has closed."""
    return min(detail, 0) + (1 - closing) * max(detail, 0)


@kernel(fastmath=True, error_model="numpy")
def _turned_light(photo: float, skin: float, turned: float) -> float:
    """Compute the light that lashes which turn down leave over, from the photograph and its skin."""
    return 1 - turned * (1 - min(max((photo + 10) / (skin + 10), TURNED_LIGHT), 1))


@kernel(fastmath=True, error_model="numpy")
def _draw_pixel(  # noqa: PLR0917 (compiled code takes no keywords)
    old: NDArray[np.uint8],
    textures: tuple[Array, Array, Array],
    x: float,
    y: float,
    heights: Heights,
    scale: float,
    width: float,
    closing: float,
    alpha: float,
) -> None:
    """Draw both lids into a pixel `old` (3,) in place: skin up to the moved edges, beside them the photograph's
    own, which on a shut lid a line of lashes replaces; lashes turn down as the lid closes. scale: px of the eye's frame
    per px of the picture."""
    (photo, skin, lashes), (old_top, old_bottom, top, bottom) = textures, heights
    away, inset = (y - top) / width, INSET * width * closing  # away: below the upper lid's edge
    over = min(max(0.5 - (y - top) / scale, 0), 1)  # coverage by the upper lid, by the lower one
    under = min(max(0.5 + (y - bottom) / scale, 0), 1 - over)
    drawn = _ease((closing - LINE_CLOSING[0]) / (LINE_CLOSING[1] - LINE_CLOSING[0]))
    keep_over = (1 - drawn) * (1 - closing * _ease(-away / (0.6 * LASHES_ABOVE)))
    keep_under = 1 - closing * _ease((y - bottom) / (0.8 * LASHES_BELOW * width))
    line = drawn * (1 - _ease(max(-away / LASH_LINE[0], away / LASH_LINE[1]))) * (1 - lashes[int(x)])
    turned = closing * (1 - _ease(away / TURNED_LENGTH)) if away > 0 else 0.0
    open_share = 1 - over - under
    red, green, blue = open_share * old[0], open_share * old[1], open_share * old[2]
    if over > 0:
        lid = _lid(photo, skin, x, y, min(old_top + y - top, old_top) - inset, keep_over, closing)
        red, green, blue = red + over * lid[0], green + over * lid[1], blue + over * lid[2]
    if under > 0:
        lid = _lid(photo, skin, x, y, max(old_bottom + y - bottom, old_bottom) + 2 * inset, keep_under, closing)
        red, green, blue = red + under * lid[0], green + under * lid[1], blue + under * lid[2]
    red, green, blue = (1 - line) * red, (1 - line) * green, (1 - line) * blue
    if turned > 0:
        place = old_top - inset - 0.7 * (y - top)
        seen, bare = _sample(photo, x, place), _sample(skin, x, place)
        red *= _turned_light(seen[0], bare[0], turned)
        green *= _turned_light(seen[1], bare[1], turned)
        blue *= _turned_light(seen[2], bare[2], turned)
    old[0] = np.uint8(min(max(old[0] + alpha * (red - old[0]) + 0.5, 0), 255))
    old[1] = np.uint8(min(max(old[1] + alpha * (green - old[1]) + 0.5, 0), 255))
    old[2] = np.uint8(min(max(old[2] + alpha * (blue - old[2]) + 0.5, 0), 255))


@kernel(fastmath=True, error_model="numpy")
def _edge(edges: Array, which: int, x: float) -> float:
    """Interpolate one of the edges (4, w) at x."""
    at = int(x)
    height: float = (1 - x + at) * edges[which, at] + (x - at) * edges[which, at + 1]
    return height


@kernel(fastmath=True, error_model="numpy")
def _draw(  # noqa: PLR0917 (compiled code takes no keywords)
    area: Image,
    to_eye: Array,
    textures: tuple[Array, Array, Array],
    edges: Array,
    width: float,
    closing: float,
    share: float,
) -> None:
    """Draw both lids of an eye into area (h, w, 3) in place, with opacity `share`. textures: photo, skin and lashes;
    edges (4, w): `Heights` by column."""
    photo, _, lashes = textures
    scale = np.sqrt(abs(to_eye[0, 0] * to_eye[1, 1] - to_eye[0, 1] * to_eye[1, 0]))
    for row in range(area.shape[0]):
        for column in range(area.shape[1]):
            x = to_eye[0, 0] * column + to_eye[0, 1] * row + to_eye[0, 2]
            y = to_eye[1, 0] * column + to_eye[1, 1] * row + to_eye[1, 2]
            along = x / width - MARGIN_X
            side = min(along, 1 - along) + CORNER_REACH
            at = int(x)
            if side <= 0 or at < 0 or at >= len(lashes) - 1 or y < 0 or y >= photo.shape[0] - 1:
                continue
            old_top, old_bottom = _edge(edges, 0, x), _edge(edges, 1, x)
            top, bottom = _edge(edges, 2, x), _edge(edges, 3, x)
            above = y - (min(old_top, top) - (LASHES_ABOVE + FEATHER) * width)
            below = max(old_bottom, bottom) + (LASHES_BELOW + FEATHER) * width - y
            alpha = share * _ease(min(above, below) / (FEATHER * width)) * _ease(side / CORNER_REACH)
            if alpha > 0:
                heights = old_top, old_bottom, top, bottom
                _draw_pixel(area[row, column], textures, x, y, heights, scale, width, closing, alpha)
