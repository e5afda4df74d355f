"""The real page over the toy engine, in this process."""

import os
import time
from contextlib import contextmanager
from unittest import mock

import toy

import app
from kdtalker.apps.service import FilmService
from kdtalker.apps.uploads import UploadLimits

FRAME_S = 0.02


class UnhurriedRenderer(toy.ToyRenderer):
    """Takes its time, so that there is something to see and to stop."""

    def render(self, source, motion, **options):
        for face in super().render(source, motion):
            time.sleep(FRAME_S)
            yield face


class UnhurriedEngine(toy.ToyEngine):
    def find_faces(self, image):
        return [(20, 60, 120), (170, 60, 120)]


def unhurried():
    return toy.pipeline(UnhurriedEngine(UnhurriedRenderer()))


def own(checkpoint):
    """In place of TalkingPortraitPipeline.mesh."""
    return unhurried()


@contextmanager
def opened(folder, load=toy.pipeline, limits=None, **how):
    """Its address; the files of its visitors lie in the folder."""
    limits = limits or UploadLimits(voice_s=30)
    with mock.patch.dict(os.environ, GRADIO_TEMP_DIR=str(folder)):
        blocks = app.page(FilmService(load, limits, published=app._published))
        try:
            yield app.open_page(blocks, limits, **how)
        finally:
            blocks.close()
