"""The engine that ships with the package, put together."""

from __future__ import annotations

from functools import partial

from kdtalker.pipeline import Speech, TalkingPortraitPipeline
from kdtalker.weights import find


def load() -> TalkingPortraitPipeline:
    from kdtalker.mesh.renderer import MeshRenderer
    from kdtalker.portrait import Portrait, find_squares
    from kdtalker.tracker import FaceTracker

    tracker = FaceTracker()
    renderer = MeshRenderer.load(tracker)
    return TalkingPortraitPipeline(
        renderer=renderer,
        find_canvas=partial(Portrait.find, tracker=tracker),  # (image, face=, box=, crop=) -> .face, .paste(face)
        track=renderer.track,  # Iterable[Image] at 25 fps -> Iterator[Motion], any number of frames a piece
        load_speech=_load_speech,
        find_squares=partial(find_squares, tracker=tracker),
        openings=renderer.openings,
    )


def _load_speech() -> Speech:
    from kdtalker.audio_encoder import WhisperEncoder
    from kdtalker.diffusion import MotionModel
    from kdtalker.mesh.steady import SteadyModel

    return Speech(WhisperEncoder.load(), SteadyModel(MotionModel.load(find("mesh_motion.safetensors"))))
