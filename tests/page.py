"""The real page over the toy engine, in this process."""

import os
from contextlib import contextmanager
from unittest import mock

import toy

import app
from kdtalker.studio import Studio
from kdtalker.uploads import Limits


@contextmanager
def opened(folder, load=toy.pipeline, limits=None, **how):
    """Its address; the files of its visitors lie in the folder."""
    limits = limits or Limits(voice_s=30)
    with mock.patch.dict(os.environ, GRADIO_TEMP_DIR=str(folder)):
        blocks = app.page(Studio(load, limits))
        try:
            yield app.open_page(blocks, limits, **how)
        finally:
            blocks.close()
