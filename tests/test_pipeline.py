"""What the pipeline promises, whichever engine is in it."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import toy

from kdtalker.core.errors import InputError
from kdtalker.core.motion import MOTION_WIDTH, Motion
from kdtalker.core.options import Options, controls
from kdtalker.edits.basic import hold_head, scale_motion
from kdtalker.edits.transfer import FADE_S, start_from, transfer_relative

REST = Motion.from_vector(np.linspace(0.5, 1.5, MOTION_WIDTH, dtype=np.float32)[None], "mesh")


def digest(frames):
    sha = hashlib.sha256()
    for frame in frames:
        sha.update(frame.tobytes())
    return sha.hexdigest()


def cut(samples, size):
    return [samples[i : i + size] for i in range(0, len(samples), size)]


@pytest.fixture(scope="module")
def pipeline():
    return toy.pipeline()


@pytest.fixture(scope="module")
def networks():
    return toy.pipeline(toy.untrained_engine())


@pytest.fixture(scope="module")
def portrait(pipeline):
    return pipeline.portrait(toy.picture())


@pytest.fixture(scope="module")
def motion():
    noise = np.random.default_rng(3).standard_normal((60, MOTION_WIDTH)).astype(np.float32)
    noise[:, 0] = 1.5 + 0.1 * noise[:, 0]
    return Motion.from_vector(noise, "mesh")


@pytest.mark.parametrize("samples", [0, 1, 639, 640, 641, 16_000, 40_001])
def test_a_film_has_a_frame_for_every_begun_640_samples(pipeline, portrait, samples):
    assert len(list(pipeline.animate(portrait, [toy.sound(3)[:samples]]))) == -(-samples // 640)


@pytest.mark.parametrize("engine", ["toy", "networks"])
def test_the_film_does_not_depend_on_how_its_sound_was_cut(request, pipeline, portrait, engine):
    if engine == "networks":
        pipeline = request.getfixturevalue("networks")
    samples = toy.sound(1.7)[:-123]
    one_by_one = [*cut(samples[:650], 1), samples[650:-9], *cut(samples[-9:], 1)]  # over the end of a frame
    cuts = [one_by_one, *(cut(samples, size) for size in (160, 7919, len(samples)))]
    films = [list(pipeline.animate(portrait, pieces)) for pieces in cuts]
    assert len({digest(film) for film in films}) == 1
    assert {len(film) for film in films} == {-(-len(samples) // 640)}
    assert len({frame.tobytes() for frame in films[0]}) > 1


def test_the_film_does_not_depend_on_when_its_frames_are_taken(pipeline, portrait):
    samples = toy.sound(3)
    at_once = digest(pipeline.animate(portrait, [samples]))
    session = pipeline.start(portrait)
    iterators = [session.push(piece) for piece in cut(samples, 7919)] + [session.flush()]
    assert digest(frame for iterator in iterators for frame in iterator) == at_once


def test_frames_that_nobody_took_come_first_next_time(pipeline, portrait):
    samples = toy.sound(3)
    whole = [frame.tobytes() for frame in pipeline.animate(portrait, [samples])]
    session = pipeline.start(portrait)
    session.push(samples[:20_000])  # never taken
    taken = []
    for frame in session.push(samples[20_000:40_000]):
        taken.append(frame.tobytes())
        if len(taken) == 3:
            break
    session.push(samples[40_000:])
    taken += [frame.tobytes() for frame in session.flush()]
    assert taken == whole


def test_frames_come_while_the_sound_is_still_coming(pipeline, portrait):
    session = pipeline.start(portrait)
    assert len(list(session.push(toy.sound(2)))) > 0


def test_a_pushed_buffer_may_be_used_again(pipeline, portrait):
    samples = toy.sound(1)
    session = pipeline.start(portrait)
    buffer = samples.copy()
    frames = session.push(buffer)
    buffer[:] = 0
    assert digest([*frames, *session.flush()]) == digest(pipeline.animate(portrait, [samples]))


@pytest.mark.parametrize("samples", [np.zeros(640, np.int16), np.zeros((640, 2), np.float32), "sound", [1j]])
def test_what_is_no_mono_sound_in_floats_is_refused(pipeline, portrait, samples):
    with pytest.raises(InputError, match="Sound has"):
        pipeline.start(portrait).push(samples)


def test_bad_samples_make_a_film_too(pipeline, portrait):
    samples = toy.sound(1)
    samples[::7], samples[::11] = np.nan, 30.0
    cleaned = np.where(np.isnan(samples), 0, samples).clip(-1, 1)
    assert digest(pipeline.animate(portrait, [samples])) == digest(pipeline.animate(portrait, [cleaned]))


def test_two_sessions_at_once_do_not_disturb_each_other(pipeline, portrait):
    samples = toy.sound(2)
    alone = [digest(pipeline.animate(portrait, [samples], Options(seed=seed))) for seed in (1, 2)]
    sessions = [pipeline.start(portrait, Options(seed=seed)) for seed in (1, 2)]
    films = [[], []]
    for piece in cut(samples, 5000):
        for session, film in zip(sessions, films, strict=True):
            film.extend(session.push(piece))
    for session, film in zip(sessions, films, strict=True):
        film.extend(session.flush())
    assert [digest(film) for film in films] == alone


def test_another_seed_is_another_take(pipeline, portrait):
    films = {digest(pipeline.animate(portrait, [toy.sound()], Options(seed=seed))) for seed in (0, 1)}
    assert len(films) == 2


def test_frame_0_is_the_photograph(pipeline, portrait):
    frames = pipeline.animate(portrait, [toy.sound()])
    (own,) = pipeline.engine.renderer.render(portrait.source, portrait.source.rest)
    assert np.array_equal(next(frames), portrait.canvas.paste(own))


def test_a_flushed_session_takes_no_more_sound(pipeline, portrait):
    session = pipeline.start(portrait)
    session.flush()
    with pytest.raises(InputError, match="start another"):
        session.push(toy.sound())


def test_sound_with_two_channels_is_refused(pipeline, portrait):
    with pytest.raises(InputError, match=r"\(8, 2\)"):
        pipeline.start(portrait).push(np.zeros((8, 2), np.float32))


def test_a_recorded_motion_makes_the_same_film_again(pipeline, portrait):
    recorded = []
    options = Options(expression=1.3, head=0.7)
    spoken = digest(pipeline.animate(portrait, [toy.sound(2)], options, recorded.append))
    assert digest(pipeline.reenact(portrait, recorded)) == spoken


def test_an_edit_has_the_last_word_on_the_motion(pipeline, portrait, motion):
    def numbered(piece, frame):
        return replace(piece, scale=frame + np.arange(len(piece), dtype=np.float32)[:, None])

    said, followed = [], []
    spoken = pipeline.animate(portrait, cut(toy.sound(1), 7919), Options(head=0), said.append, edit=numbered)
    driven = pipeline.reenact(portrait, [motion[:20], motion[20:25]], Options(), followed.append, numbered)
    assert len(list(spoken)) == len(list(driven)) == 25
    for recorded in (said, followed):
        np.testing.assert_array_equal(Motion.concatenate(recorded).scale[:, 0], np.arange(25))


def test_a_motion_of_another_space_is_refused_by_name(pipeline, portrait, motion):
    with pytest.raises(InputError, match="liveportrait"):
        next(pipeline.reenact(portrait, [replace(motion, space="liveportrait")]))


def test_start_from_begins_at_rest_and_ends_as_sampled(motion):
    edited = start_from(motion, rest=REST, first=motion[:1], frame=0)
    assert np.array_equal(edited[:1].vector(), REST.vector())
    after = int(FADE_S * 25)
    assert np.array_equal(edited[after:].vector()[:, 1:], motion[after:].vector()[:, 1:])
    assert (edited.scale == REST.scale).all()


def test_start_from_in_pieces_equals_the_whole(motion):
    whole = start_from(motion, rest=REST, first=motion[:1], frame=0)
    pieces = [start_from(motion[i : i + 3], rest=REST, first=motion[:1], frame=i) for i in range(0, len(motion), 3)]
    assert np.array_equal(Motion.concatenate(pieces).vector(), whole.vector())


def test_strength_1_changes_nothing_0_is_rest_and_2_is_twice_as_far(motion):
    assert np.array_equal(scale_motion(motion, REST, 1, 1).vector(), motion.vector())
    calm = scale_motion(motion, REST, 0, 0)
    np.testing.assert_allclose(calm.pose, np.repeat(REST.pose, len(motion), 0), atol=1e-6)
    np.testing.assert_allclose(calm.expression, np.repeat(REST.expression, len(motion), 0), atol=1e-6)
    twice = scale_motion(motion, REST, 2, 1)
    np.testing.assert_allclose(twice.expression - REST.expression, 2 * (motion.expression - REST.expression), atol=1e-5)
    assert np.array_equal(twice.pose, motion.pose)


def test_still_moves_the_face_alone(motion):
    held = hold_head(motion, REST)
    assert (held.vector()[:, :7] == REST.vector()[:, :7]).all()
    assert np.array_equal(held.expression, motion.expression)


def test_relative_motion_of_ones_own_film_is_that_film(motion):
    assert np.array_equal(transfer_relative(motion, first=motion[:1], rest=motion[:1]).vector(), motion.vector())


def test_relative_motion_carries_scale_and_shift_to_a_larger_face(motion):
    larger = replace(motion[:1], scale=2 * motion.scale[:1])
    moved = transfer_relative(motion, first=motion[:1], rest=larger)
    np.testing.assert_allclose(moved.scale, 2 * motion.scale, rtol=1e-6)
    np.testing.assert_allclose(moved.shift - moved.shift[:1], 2 * (motion.shift - motion.shift[:1]), atol=1e-5)
    np.testing.assert_allclose(moved.pose, motion.pose, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1), ("seed", 1.5), ("seed", True), ("steps", -1), ("steps", 101), ("steps", "10"), ("guidance", 6.1),
        ("lookahead", 9), ("lookahead", -2),
        ("guidance", float("nan")), ("expression", -0.1), ("head", float("inf")), ("still", 1), ("mouth", 2.1),
        ("blink", -1), ("gaze", "away"), ("gaze", 1), ("emotion", ""), ("yaw", 31), ("smile", -1.1),
    ],
)  # fmt: skip
def test_an_option_outside_its_range_is_named_with_value_and_range(name, value):
    with pytest.raises(InputError) as caught:
        Options(**{name: value})
    control = {known: control for known, _, control in controls()}[name]
    assert f"'{name}'" in str(caught.value) and repr(value) in str(caught.value)
    wanted = control.choices or (str(control.maximum),)
    assert name == "still" or all(word in str(caught.value) for word in wanted)


def test_the_ends_of_every_range_are_allowed():
    for name, kind, control in controls():
        for value in control.choices or (control.minimum, control.maximum):
            assert getattr(Options(**{name: kind(value)}), name) == kind(value)


def test_a_session_that_failed_gives_no_more_frames(pipeline, portrait):
    """Parts of its sound are lost: going on would put the lips out of sync."""

    def fail(motion, frame):
        raise ValueError("an edit that fails")

    session = pipeline.start(portrait, edit=fail)
    with pytest.raises(ValueError, match="an edit that fails"):
        list(session.push(toy.sound(2)))
    for going_on in (lambda: session.push(toy.sound(1)), session.flush):
        with pytest.raises(InputError, match="ended in an error; start another"):
            list(going_on())


def test_an_engine_that_cannot_close_lips_says_so(pipeline, portrait, monkeypatch, caplog):
    renderer = pipeline.engine.renderer
    monkeypatch.setattr(renderer, "expression_model", replace(renderer.expression_model, basis=None), raising=False)
    pipeline.start(portrait)
    assert "cannot close them in silence" in caplog.text
