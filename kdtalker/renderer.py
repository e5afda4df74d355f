"""What a renderer is: it encodes a face once and then draws it in any motion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kdtalker.motion import Array, Motion

Image = NDArray[np.uint8]


class Source(Protocol):
    """A face, encoded: canonical keypoints (21, 3), its own motion `rest` (T=1), and `shut` (21, 3), the expression
    that closes its lids when it is added."""

    @property
    def canonical(self) -> Array: ...

    @property
    def rest(self) -> Motion: ...

    @property
    def shut(self) -> Array: ...


@dataclass(frozen=True)
class Looks:
    """Offsets (21, 3) of an expression in the head's own axes: a smile, a mouth turned down, brows raised, brows drawn
    together, each for an amount of 1. gaps (pairs, 63): `gaps @ expression` is how far each pair of points on the
    inner lips is apart; parting (63, pairs): `parting @ gaps` is the likeliest expression to make them so."""

    smile: Array
    sulk: Array
    brow: Array
    frown: Array
    gaps: Array
    parting: Array


@dataclass(frozen=True)
class Anatomy:
    """What a keypoint space's expressions are made of: `mouth @ expression` is what of it moves mouth and jaw,
    `eyes @ expression` what moves lids and brows, both (21, 21); looks, where it is known what they can show."""

    mouth: Array
    eyes: Array
    looks: Looks | None = None


class Renderer(Protocol):
    """Draws faces in the keypoint space that it names; it remembers nothing of a face or of the frames before."""

    @property
    def space(self) -> str: ...

    @property
    def anatomy(self) -> Anatomy: ...

    def encode_source(self, face: Image) -> Any:
        """(S, S, 3) RGB to its own kind of Source. Raises InputError where there is no face to encode."""

    def render(self, source: Any, motion: Motion) -> Iterator[Image]:
        """One (S, S, 3) RGB frame for each of the motion's. Raises InputError for another keypoint space."""

    def isolate(self, source: Any, foreground: Image) -> Any:
        """Replace a source's colours by those of its foreground alone (S, S, 3), for frames with an alpha channel."""

    def matte(self, source: Any, matte: Array, motion: Motion, face: Image) -> tuple[Image, Array]:
        """Foreground colours (S, S, 3) and alpha matte (S, S) 0..1 of one frame (T = 1) of an isolated source, drawn as
        `face`; matte (S, S) is that of the source image."""
