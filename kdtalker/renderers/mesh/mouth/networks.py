"""Hold the networks that draw a mouth."""

from __future__ import annotations

from dataclasses import dataclass

from kdtalker.renderers.mesh.mouth.interior import MouthInterior
from kdtalker.renderers.mesh.mouth.shading import RatioNetwork
from kdtalker.weights.find import find


@dataclass(frozen=True)
class MouthNetworks:
    """Hold the networks that draw a mouth: interior of its inside, shading of the skin around it."""

    interior: MouthInterior
    shading: RatioNetwork

    @staticmethod
    def load() -> MouthNetworks:
        """Load the weights that ship with the package. Raises InputError where one is missing or damaged."""
        return MouthNetworks(
            MouthInterior.load(find("mesh_interior.safetensors")), RatioNetwork.load(find("mesh_shading.safetensors"))
        )
