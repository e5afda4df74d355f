"""The real page over the toy engine, in this process."""

import os
import time
from contextlib import contextmanager
from unittest import mock

import toy

import app
from kdtalker.apps.live.access import Access
from kdtalker.apps.live.service import LiveService
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


def own(checkpoint=None, personal=None):
    """In place of TalkingPortraitPipeline.mesh."""
    return unhurried()


@contextmanager
def opened(folder, load=toy.pipeline, limits=None, password=None, most=None):
    """Its address; the files of its visitors lie in the folder."""
    limits, access = limits or UploadLimits(voice_s=30), Access(password)
    with mock.patch.dict(os.environ, GRADIO_TEMP_DIR=str(folder)):
        service = FilmService(load, limits, published=app._published)
        portrait = app.EXAMPLES / app.PORTRAITS["Grace Hopper"]
        live = LiveService(lambda: service.engine("mesh"), portrait, limits=limits, most=most, access=access)
        server = app.open_page(app.page(service, access), live, password=password)
        try:
            yield server.address
        finally:
            server.close()
