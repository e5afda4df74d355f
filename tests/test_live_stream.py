"""What a look-ahead promises: no frame depends on later sound, nor on how the sound arrives, nor waits for more."""

import hashlib
from itertools import cycle

import numpy as np
import pytest
import toy

from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.core.options import Options
from kdtalker.core.rates import SAMPLES_PER_FRAME, frame_count

LIVE = Options(lookahead=4)
MOST_FRAMES = 5  # of delay beyond a frame's own samples, for a look-ahead of 4


@pytest.fixture(scope="module")
def pipeline():
    return toy.pipeline(toy.untrained_engine())


@pytest.fixture(scope="module")
def portrait(pipeline):
    return pipeline.portrait(toy.picture())


def sha256(frames):
    sha = hashlib.sha256()
    for frame in frames:
        sha.update(frame.tobytes())
    return sha.hexdigest()


def perform(pipeline, portrait, samples, options, sizes=(1280,)):
    """Motion of a sound that arrives in pieces of these sizes, again and again."""
    stream, parts, start, pieces = pipeline.start_motion(portrait, options), [], 0, cycle(sizes)
    while start < len(samples):
        size = next(pieces)
        parts.append(stream.push(samples[start : start + size]))
        start += size
    motion = Motion.concatenate([part for part in [*parts, stream.flush()] if len(part)])
    return np.concatenate([motion.vector(), motion.gaze, motion.breath], axis=1)


def test_the_film_does_not_depend_on_the_pieces_of_its_sound(pipeline, portrait):
    samples = toy.sound(0.3)[:-123]
    films = {}
    for size in (1, 160, 320, 640, 7919, len(samples), "random"):
        rng = np.random.default_rng(0)
        session, frames, start = pipeline.start(portrait, LIVE), [], 0
        while start < len(samples):
            count = int(rng.integers(0, 3000)) if size == "random" else size
            frames += session.push(samples[start : start + count])
            start += count
        frames += session.flush()
        films[size] = sha256(frames)
        assert len(frames) == frame_count(len(samples))
    assert len(set(films.values())) == 1


@pytest.mark.parametrize(("lookahead", "most_frames"), [(0, 1), (1, 2), (4, MOST_FRAMES), (8, 9)])
def test_zeros_after_a_sample_change_no_frame_before_it_less_the_delay(pipeline, portrait, lookahead, most_frames):
    samples, options = toy.sound(1.2), Options(lookahead=lookahead)
    whole = perform(pipeline, portrait, samples, options)
    delays = []
    for cut in (9 * 640, 10 * 640, 10 * 640 + 1, 10 * 640 + 333, 11 * 640 - 1):
        zeroed = np.where(np.arange(len(samples)) < cut, samples, 0)
        changed = (perform(pipeline, portrait, zeroed, options) != whole).any(1)
        delays.append(cut - SAMPLES_PER_FRAME * (int(changed.argmax()) + 1))  # the sample after them was awaited
        assert changed.any()
    assert max(delays) < most_frames * SAMPLES_PER_FRAME
    assert max(delays) >= (most_frames - 2) * SAMPLES_PER_FRAME  # or the test sees nothing


def test_a_frame_comes_out_with_the_last_sample_that_it_awaits(pipeline, portrait):
    samples = toy.sound(1)
    session, frames, start = pipeline.start(portrait, LIVE), 0, 0
    for _ in range(len(samples) // 320):
        frames += len(list(session.push(samples[start : start + 320])))
        start += 320
        assert frames >= start // SAMPLES_PER_FRAME - MOST_FRAMES
    assert 0 < frames < frame_count(len(samples))
    assert frames + len(list(session.flush())) == frame_count(len(samples))


def test_a_session_draws_the_motion_of_the_stream(pipeline, portrait):
    samples, drawn = toy.sound(0.5), []
    list(pipeline.animate(portrait, [samples], LIVE, drawn.append))
    motion = Motion.concatenate(drawn)
    alone = perform(pipeline, portrait, samples, LIVE)
    assert np.array_equal(alone, np.concatenate([motion.vector(), motion.gaze, motion.breath], axis=1))


@pytest.mark.parametrize("samples", [0, 1, 639, 640, 641, 4000])
@pytest.mark.parametrize("lookahead", [0, 3])
def test_a_film_has_a_frame_for_every_begun_640_samples(pipeline, portrait, samples, lookahead):
    film = pipeline.animate(portrait, [toy.sound()[:samples]], Options(lookahead=lookahead))
    assert len(list(film)) == frame_count(samples)


def test_a_look_ahead_that_the_models_do_not_have_is_refused():
    toys = toy.pipeline()
    with pytest.raises(InputError, match="'lookahead' is 4.*whole windows"):
        toys.start_motion(toys.portrait(toy.picture()), LIVE)


def test_a_stream_of_motion_that_was_flushed_takes_no_more_sound(pipeline, portrait):
    stream = pipeline.start_motion(portrait, LIVE)
    assert len(stream.flush()) == 0
    with pytest.raises(InputError, match="start another"):
        stream.push(toy.sound())
