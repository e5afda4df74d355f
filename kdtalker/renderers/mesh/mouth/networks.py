"""Run the networks that draw a mouth, as graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdtalker.core.arrays import Array, Image
from kdtalker.renderers.mesh.eyes.parts import Crop
from kdtalker.renderers.mesh.mouth.frame import LipShape
from kdtalker.renderers.mesh.mouth.layers import WHOLE_FRAME, FrameBox, draw_layers
from kdtalker.renderers.mesh.mouth.ratio_tensors import decode_log_ratio, pixel_unshuffle_inputs
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.find import find
from kdtalker.weights.graphs import Graph, load_graphs

SHADING, ENCODE, LIGHT, CELLS = "shading", "interior_encode", "interior_light", "interior_cells"  # graphs


@dataclass(frozen=True)
class MouthCodes:
    """Hold the codes of a photographed mouth: textures (2, 4, TEXTURE_PX, WIDTH_PX) of its teeth, RGBA in 0..1;
    colour (COLOUR_SIZE,) of skin and lips, style (style_size,) and place (2, 3) as `MouthInterior` takes them."""

    textures: Array
    colour: Array
    style: Array
    place: Array


@dataclass(frozen=True)
class InteriorNetwork:
    """Run `MouthInterior`, one mouth at a time."""

    encoder: Graph
    light_graph: Graph
    cell_graph: Graph

    @staticmethod
    def load(path: Path) -> InteriorNetwork:
        """Load the weights of a `MouthInterior`. Raises InputError where the file is missing or another model's."""
        _, tensors = read_arrays(path, ("code_size", "style_size", "width", "plates"))
        return InteriorNetwork(*load_graphs((ENCODE, LIGHT, CELLS), tensors, path))

    def encode(self, picture: Image, lips: LipShape, colour: Array) -> tuple[MouthCodes, Array]:
        """Encode a picture (HEIGHT_PX, WIDTH_PX, 3) of a mouth, open or closed; returns its codes, with the textures of
        the nearest plate, and the textures (N, 2, 4, TEXTURE_PX, WIDTH_PX) of all plates."""
        textures, nearest, style, place = self.encoder(picture, lips.mask, lips.geometry, colour)
        return MouthCodes(textures[int(nearest)], colour, style, place), textures

    def light(self, codes: MouthCodes, lips: LipShape) -> list[Array]:
        """Predict what surrounds and lights the teeth, without batch axes; see `MouthInterior.light`."""
        return self.light_graph(lips.maps, lips.geometry, lips.jaw, codes.colour, codes.style, codes.place)

    def draw(self, codes: MouthCodes, lips: LipShape, saturation: float, box: FrameBox = WHOLE_FRAME) -> Image:
        """Draw a box (h, w, 3) of one frame, by default all of it, (HEIGHT_PX, WIDTH_PX, 3); saturation 0..1."""
        light, base, moves, scale = self.cell_graph(
            lips.maps, lips.geometry, lips.jaw, codes.colour, codes.style, codes.place
        )
        image: Image = draw_layers(codes.textures, light, base, moves, scale, saturation, box)
        return image


@dataclass(frozen=True)
class ShadingNetwork:
    """Run `RatioNetwork`."""

    graph: Graph

    @staticmethod
    def load(path: Path) -> ShadingNetwork:
        """Load the weights of a `RatioNetwork`. Raises InputError where the file is missing or another model's."""
        _, tensors = read_arrays(path, ("widths",))
        return ShadingNetwork(*load_graphs((SHADING,), tensors, path))

    def predict(self, picture: Image, crop: Crop, opening: Array, displacement: Array) -> Array:
        """Predict the log ratio image (SIDE_PX, SIDE_PX, 3) of a warped frame (S, S, 3), 0 inside the mouth. opening
        (SIDE_PX, SIDE_PX) 0..1: mask of the opening; displacement (2, SIDE_PX, SIDE_PX) px of the crop."""
        (cells,) = self.graph(pixel_unshuffle_inputs(crop.sample(picture), opening, displacement))
        return decode_log_ratio(cells, opening, displacement)


@dataclass(frozen=True)
class MouthNetworks:
    """Hold the networks that draw a mouth: interior of its inside, shading of the skin around it."""

    interior: InteriorNetwork
    shading: ShadingNetwork

    @staticmethod
    def load() -> MouthNetworks:
        """Load the weights that ship with the package. Raises InputError where one is missing or damaged."""
        return MouthNetworks(
            InteriorNetwork.load(find("mesh_interior.safetensors")),
            ShadingNetwork.load(find("mesh_shading.safetensors")),
        )
