"""The engine that ships with the package, put together."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kdtalker.pipeline import Speech, TalkingPortraitPipeline
from kdtalker.weights import find

if TYPE_CHECKING:
    from kdtalker.portrait import Portrait
    from kdtalker.renderer import Image
    from kdtalker.tracker import FaceTracker


def load(checkpoint: Path | None = None) -> TalkingPortraitPipeline:
    """checkpoint: a motion model of one's own in place of the one that ships with the package."""
    from kdtalker.mesh.renderer import MeshRenderer
    from kdtalker.portrait import find_squares
    from kdtalker.tracker import FaceTracker

    tracker = FaceTracker()
    renderer = MeshRenderer.load(tracker)
    return TalkingPortraitPipeline(
        renderer=renderer,
        find_canvas=partial(_find_portrait, tracker=tracker),
        track=renderer.track,  # Iterable[Image] at 25 fps -> Iterator[Motion], any number of frames a piece
        load_speech=partial(_load_speech, checkpoint),
        find_squares=partial(find_squares, tracker=tracker),
        openings=renderer.openings,
    )


def _find_portrait(
    image: Image,
    tracker: FaceTracker,
    *,
    face: int | None,
    box: tuple[float, float, float, float] | None,
    crop: bool,
    framing: str,
) -> Portrait:
    """`Portrait.find`; one crop serves both framings."""
    from kdtalker.portrait import Portrait

    return Portrait.find(image, tracker, face=face, box=box, crop=crop)


def _load_speech(checkpoint: Path | None) -> Speech:
    from kdtalker.mesh.geometry import SPACE
    from kdtalker.mesh.steady import SteadyModel
    from kdtalker.speech import load_trained

    encoder, model = load_trained(checkpoint or find("mesh_motion.safetensors"), SPACE)
    return Speech(encoder, SteadyModel(model))
