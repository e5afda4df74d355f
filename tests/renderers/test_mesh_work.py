"""The work of a frame follows the face: nothing is touched where nothing can change, and threads change no bit."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from kdtalker import TalkingPortraitPipeline
from kdtalker.core.threads import get_threads, set_threads
from kdtalker.edits.basic import turn_head
from kdtalker.media.picture import read_image
from kdtalker.media.yuv import BLOCK_PX, YUVPlanes
from kdtalker.renderers.mesh.bicubic import make_texture
from kdtalker.renderers.mesh.composite import composite
from kdtalker.renderers.mesh.pose import pose_frames
from kdtalker.renderers.mesh.raster import all_columns
from kdtalker.renderers.mesh.warp import WarpBuffers, compute_flow, find_columns, warp_picture
from kdtalker.session import draw_frames

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def pipeline():
    return TalkingPortraitPipeline.mesh()


@pytest.fixture(scope="module")
def portrait(pipeline):
    return pipeline.portrait(read_image(EXAMPLES / "grace_hopper.jpg"), crop=True)


@pytest.fixture(scope="module")
def posed(pipeline, portrait):
    rest = portrait.source.rest
    turned = turn_head(rest, rest.pose + np.array([[5, -3, 2]], np.float32))
    return pose_frames(pipeline.engine.renderer.model, portrait.source, turned)[0]


def test_a_frame_is_the_same_drawn_whole_or_only_where_the_person_moves(portrait, posed):
    source = portrait.source
    side = len(source.picture)
    columns = find_columns(source, posed, source.mouth.crop.bounds(side))
    whole, part = all_columns(side), columns
    frames = []
    for chosen in (whole, part):
        buffers = WarpBuffers.of(side)
        compute_flow(source, posed, chosen, buffers)
        frames.append(warp_picture(source, posed, chosen, buffers))
    assert (frames[0] != frames[1]).any(-1).mean() < 1e-4  # folds of the unmoved background are not antialiased
    assert (columns[:, 1] - columns[:, 0]).sum() < 0.85 * side**2


def test_nothing_is_written_beyond_the_columns(portrait, posed):
    source = portrait.source
    side = len(source.picture)
    columns = find_columns(source, posed, source.mouth.crop.bounds(side))
    buffers = WarpBuffers.of(side)
    for one in (buffers.flow, buffers.depth):
        one[:] = -7
    compute_flow(source, posed, columns, buffers)
    x = np.arange(side)
    beyond = (x < columns[:, :1]) | (x >= columns[:, 1:])
    assert beyond.any() and (buffers.flow[:, beyond] == -7).all() and (buffers.depth[beyond] == -7).all()
    frame = warp_picture(source, posed, columns, buffers)
    np.testing.assert_array_equal(frame[beyond], source.picture[beyond])


def test_in_a_large_picture_only_the_face_is_drawn_and_converted(pipeline):
    """A person in the middle of a wide picture: what a frame costs beyond the face is a copy."""
    face = read_image(EXAMPLES / "astronaut.png")
    wide = np.full((720, 1900, 3), 90, np.uint8)
    wide[100:612, 700:1212] = face
    portrait = pipeline.portrait(wide)
    rest = portrait.source.rest
    turned = turn_head(rest, rest.pose + np.array([[5, -3, 2]], np.float32))
    planes = YUVPlanes(*wide.shape[:2])
    (still,), (moved,) = (list(draw_frames(pipeline.engine.renderer, portrait, one)) for one in (rest, turned))
    planes.update(still)
    everything = planes.converted
    planes.update(moved)
    side = portrait.canvas.side
    assert 0 < planes.converted < (side / 2) * (side / BLOCK_PX + 1) < 0.5 * everything


def test_sampling_is_opencvs_bicubic():
    """Up to the rounding of places to 1/128 px, beyond the border too; the alpha is linear."""
    random = np.random.default_rng(3)
    side = 64
    picture = np.ascontiguousarray(cv2.GaussianBlur(random.integers(0, 256, (side, side, 3), np.uint8), (0, 0), 0.7))
    person = np.ones((side, side), np.float32)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    flow = np.stack([x + 3 + 5 * np.sin(y / 9), y - 4 + 6 * np.cos(x / 7)]).astype(np.float32)
    frame = picture.copy()
    composite(make_texture(picture, person), person, 0 * picture, flow, all_columns(side), frame, 0.0, 1.5)
    wanted = cv2.remap(picture, flow[0], flow[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(frame.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("pieces", [1, 3])
def test_threads_change_no_bit(pipeline, portrait, pieces):
    sound = np.random.default_rng(5).normal(0, 0.1, 3 * 16_000).astype(np.float32)
    before, films = get_threads(), []
    for threads in (1, 2, 4):
        set_threads(threads)
        frames = pipeline.animate(portrait, np.array_split(sound, pieces))
        films.append([hash(frame.tobytes()) for frame in frames])
    set_threads(before)
    assert len(films[0]) == 75 and films[0] == films[1] == films[2]
