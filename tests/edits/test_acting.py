"""Options as edits: each has its effect, alone and beside every other, and none breaks what a film promises."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import toy
from test_pipeline import cut

from kdtalker.audio.prosody import LOOKAHEAD_FRAMES, NO_PROSODY, extract_prosody, look_ahead, start_prosody
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MOTION_WIDTH, Motion, rotation_matrix
from kdtalker.core.options import Options, controls
from kdtalker.core.protocols import ExpressionModel
from kdtalker.edits.basic import scale_region, turn_head
from kdtalker.edits.eyes import blink_curve, gaze
from kdtalker.edits.lips import CLOSE_THRESHOLD, PRESS, close_lips
from kdtalker.edits.perform import check_options

ASKED = {
    "seed": 3, "guidance": 2.0, "expression": 1.5, "mouth": 0.5, "eyes": 0.4, "head": 0.5, "absolute": True,
    "still": True, "blink": 40.0, "gaze": "free", "emphasis": 2.0, "smile": 0.7, "brow": -0.6, "emotion": "sad",
    "yaw": 7.0, "pitch": -4.0, "roll": 3.0,
}  # fmt: skip
POINTLESS = {("head", "still")}  # what has no effect beside what
EVERYTHING = Options(**{name: value for name, value in ASKED.items() if name not in ("absolute", "still")})
VOICE = np.concatenate([np.zeros(6400, np.float32), 0.3 * toy.sound(1.0), toy.sound(0.5), np.zeros(8000, np.float32)])


@pytest.fixture(scope="module")
def pipeline():
    return toy.pipeline()


@pytest.fixture(scope="module")
def portrait(pipeline):
    return pipeline.portrait(toy.picture())


def played(pipeline, portrait, options, head=None, size=10**6):
    motions = []
    for _ in pipeline.animate(portrait, cut(VOICE, size), options, motions.append, head=head):
        pass
    return Motion.concatenate(motions)


def is_same(one, other):
    return np.array_equal(one.vector(), other.vector()) and np.array_equal(one.gaze, other.gaze)


@pytest.fixture(scope="module")
def alone(pipeline, portrait):
    return {name: played(pipeline, portrait, Options(**{name: value})) for name, value in ASKED.items()}


def test_every_option_is_tried():
    assert ASKED.keys() | {"steps", "lookahead"} == {name for name, _, _ in controls()}


@pytest.mark.parametrize("pair", list(combinations(ASKED, 2)), ids="-".join)
def test_two_options_both_have_their_effect(pipeline, portrait, alone, pair):
    both = played(pipeline, portrait, Options(**{name: ASKED[name] for name in pair}))
    assert len(both) == -(-len(VOICE) // 640)
    for here, there in (pair, pair[::-1]):
        assert is_same(both, alone[there]) == ((here, there) in POINTLESS), f"{here} beside {there}"


def test_with_everything_on_the_film_does_not_depend_on_how_its_sound_was_cut(pipeline, portrait):
    films = [played(pipeline, portrait, EVERYTHING, head(), size) for size in (997, 7919, 10**6)]
    assert all(is_same(film, films[0]) for film in films)


def test_with_everything_on_frame_0_is_the_photograph(pipeline, portrait):
    film = played(pipeline, portrait, EVERYTHING, head())
    assert is_same(film[:1], portrait.source.rest) and not is_same(film[20:21], portrait.source.rest)


def test_blinks_survive_a_still_head(pipeline, portrait):
    still = played(pipeline, portrait, Options(still=True, blink=40))
    awake = played(pipeline, portrait, Options(still=True, blink=0))
    assert (still.expression - awake.expression).max() > 0.9
    assert np.array_equal(still.pose, awake.pose)


# --- the head of a film ----------------------------------------------------------------------------------------------


def head(frames=9):
    """Turns by a degree a frame."""
    vector = np.ones((frames, MOTION_WIDTH), np.float32)
    vector[:, 1] = np.arange(frames)
    yield from (Motion.from_vector(row[None], "mesh") for row in vector)


def test_the_head_of_a_film_leads_forward_and_backward(pipeline, portrait):
    led = played(pipeline, portrait, Options(), head())
    there = [*range(9), *range(7, -1, -1)]
    np.testing.assert_allclose(led.pose[:17, 0] - portrait.source.rest.pose[0, 0], there, atol=1e-5)
    assert len(led) > 40
    own = played(pipeline, portrait, Options())
    spoken = [film.expression @ rotation_matrix(film.pose).transpose(0, 2, 1) for film in (led, own)]
    np.testing.assert_allclose(spoken[0], spoken[1], atol=1e-4)


def test_a_film_of_one_frame_holds_the_head(pipeline, portrait):
    led = played(pipeline, portrait, Options(), head(1))
    np.testing.assert_allclose(led.pose, np.repeat(portrait.source.rest.pose, len(led), 0), atol=1e-5)


# --- eyes ------------------------------------------------------------------------------------------------------------


def peaks_of(shut):
    """Frames in which the lids meet."""
    return np.flatnonzero((shut == 1) & (np.append(0, shut[:-1]) < 1))


@pytest.mark.parametrize("a_minute", [6, 15, 30])
def test_blinks_come_as_often_as_asked_and_close_faster_than_they_open(a_minute):
    shut = np.concatenate([blink_curve(seed, a_minute, 0, 25 * 300) for seed in range(6)])
    peaks = peaks_of(shut)
    assert abs(len(peaks) / 30 - a_minute) < 0.1 * a_minute
    lasting, closing, opening = [], [], []
    for peak in peaks[5:-5]:
        before, after = shut[peak - 8 : peak][::-1], shut[peak : peak + 10]
        closing.append(np.argmax(before < 0.02))
        opening.append(np.argmax(after < 0.02) - 1)
        lasting.append((closing[-1] + opening[-1] + 1) / 25)
    assert np.mean(opening) > 1.5 * np.mean(closing)
    assert np.percentile(lasting, 2) >= 0.1 and np.percentile(lasting, 98) <= 0.4
    assert 0.18 <= np.median(lasting) <= 0.28


def test_some_blinks_are_double():
    """Two within a second, more than gaps alone would bring, and the eyes open in between."""
    shut = blink_curve(1, 12, 0, 25 * 3600)
    peaks = peaks_of(shut)
    near = np.flatnonzero(np.diff(peaks) <= 0.72 * 25)
    assert 0.04 < len(near) / len(peaks) < 0.12
    assert all(shut[peaks[one] : peaks[one + 1]].min() < 0.02 for one in near)


def test_no_blinks_where_none_are_wanted():
    assert not blink_curve(0, 0, 0, 1000).any()


def test_eyes_do_not_depend_on_pieces():
    away = np.random.default_rng(0).normal(0, 3, (500, 2)).astype(np.float32)
    ends = [0, 1, 20, 21, 155, 500]
    spans = list(zip(ends, ends[1:], strict=False))
    pieces = [blink_curve(4, 15, start, end - start) for start, end in spans]
    assert np.array_equal(np.concatenate(pieces), blink_curve(4, 15, 0, 500))
    pieces = [gaze("free", 4, start, away[start:end]) for start, end in spans]
    assert np.array_equal(np.concatenate(pieces), gaze("free", 4, 0, away))


def test_eyes_on_the_camera_stay_there_while_the_head_turns():
    away = np.linspace([0, 0], [10, -6], 1000)
    seen = {kind: gaze(kind, 1, 0, away) + away for kind in ("camera", "free")}
    assert np.abs(seen["camera"]).mean(0).max() < 1.5 and np.abs(seen["camera"]).max() < 5
    assert seen["free"].std() > 2 * seen["camera"].std()
    jumps = np.abs(np.diff(seen["camera"], axis=0)).max(1) > 0.3
    assert 20 < jumps.sum() < 120  # in 40 s; at rest in between


# --- the voice -------------------------------------------------------------------------------------------------------


def test_listening_does_not_depend_on_pieces():
    whole, _ = extract_prosody(start_prosody(), VOICE, last=True)
    heard, state = NO_PROSODY, start_prosody()
    for piece in cut(VOICE, 777):
        new, state = extract_prosody(state, piece)
        heard += new
    heard += extract_prosody(state, VOICE[:0], last=True)[0]
    assert len(whole) == -(-len(VOICE) // 640)
    for name, rows in vars(whole).items():
        assert np.array_equal(getattr(heard, name), rows), name


def test_a_hush_begins_within_300_ms_of_silence_and_ends_with_it():
    speech = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    hush = extract_prosody(start_prosody(), np.concatenate([speech, 1e-4 * speech, speech]))[0].silence_gate
    assert (hush[:2] > 0).any() and not hush[3:25].any()
    assert (hush[25 + 8 : 50] == 1).all() and not hush[53:].any()


def test_a_louder_word_is_emphasis_and_an_even_voice_is_not():
    even = 0.03 * np.random.default_rng(0).standard_normal(80_000).astype(np.float32)
    louder = even * np.where(np.arange(80_000) // 8000 == 7, 4, 1)
    quiet, loud = (extract_prosody(start_prosody(), samples)[0].emphasis for samples in (even, louder))
    assert quiet[50:].max() < 0.1
    assert loud[88:100].max() > 0.5 and loud[50:87].max() < 0.1 and loud[-1] < 0.2


def syllables(onsets, frames):
    """Noise that is loud for 200 ms from each onset, in frames, on."""
    loud = np.full(frames, 0.02)
    for onset in onsets:
        loud[onset : onset + 5] = 0.3
    noise = np.random.default_rng(0).standard_normal(640 * frames)
    return (0.3 * noise * np.repeat(loud, 640)).astype(np.float32)


def test_the_head_turns_around_at_stressed_syllables_and_is_at_rest_between():
    onsets = [40, 62, 90, 123]
    nod = look_ahead(extract_prosody(start_prosody(), syllables(onsets, 150), last=True)[0], 150).nod
    lowest = np.flatnonzero((nod[1:-1] > nod[:-2]) & (nod[1:-1] >= nod[2:])) + 1
    assert [int(np.abs(lowest - onset).min()) for onset in onsets] == [1, 1, 1, 1]
    assert len(lowest) == len(onsets) and 0.5 <= nod.max() <= 1
    for onset in onsets:
        assert 0.2 <= (nod[onset - 12 : onset + 14] > 0).sum() / 25 <= 0.4
        assert nod[onset - 6] == 0 == nod[onset + 9]


def test_nobody_nods_without_stress():
    noise = 0.03 * np.random.default_rng(0).standard_normal(640 * 150).astype(np.float32)
    for samples in (noise, 0 * noise, 1e-4 * syllables([40, 62], 150)):
        assert not extract_prosody(start_prosody(), samples, last=True)[0].nod[30:].any()


def test_the_last_nod_dies_away_where_the_sound_ends():
    nod = look_ahead(extract_prosody(start_prosody(), syllables([40], 47), last=True)[0], 47).nod
    assert nod[-3] > 0 == nod[-1] and np.abs(np.diff(nod)).max() < 0.5


SHARES = [({}, 1), ({"head": 0.5}, 0.5), ({"emphasis": 2.0}, 2), *(({name: 0.0}, 0) for name in ("head", "emphasis"))]


@pytest.mark.parametrize(("options", "share"), [*SHARES, ({"still": True}, 0)])
def test_nods_are_scaled_with_head_and_emphasis(pipeline, portrait, monkeypatch, options, share):
    """By how much the pitch differs from a film in which no nod is asked for."""

    def pitch_of(**more):
        motions = []
        for _ in pipeline.animate(portrait, [syllables([40, 62], 100)], Options(**more), motions.append):
            pass
        return Motion.concatenate(motions).pose

    with_nods = pitch_of(**options)
    monkeypatch.setattr("kdtalker.edits.perform.NOD_DEG", 0.0)
    apart = with_nods - pitch_of(**options)
    assert apart[:, 1].max() == pytest.approx(4 * share, rel=0.5, abs=1e-5)
    assert np.abs(apart[:, [0, 2]]).max() < 1e-5


# --- edits -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def motion():
    return Motion.from_vector(np.random.default_rng(3).standard_normal((40, MOTION_WIDTH)).astype(np.float32), "mesh")


def test_a_region_is_strengthened_alone(motion):
    part, rest = toy.ToyRenderer.expression_model.mouth, motion[:1]
    twice = scale_region(motion, rest, part, 2).expression
    np.testing.assert_allclose(twice[:, :7], 2 * motion.expression[:, :7] - rest.expression[:, :7], atol=1e-5)
    assert np.array_equal(twice[:, 7:], motion.expression[:, 7:])
    assert is_same(scale_region(motion, rest, part, 1), motion)


def test_an_expression_turns_with_its_head(motion):
    pose = np.asarray(motion.pose + np.where(np.arange(40) % 2, 0, 12)[:, None], np.float32)
    turned = turn_head(motion, pose)
    in_head = [one.expression @ rotation_matrix(one.pose).transpose(0, 2, 1) for one in (motion, turned)]
    np.testing.assert_allclose(in_head[0], in_head[1], atol=1e-5)
    assert np.array_equal(turned.expression[1::2], motion.expression[1::2])
    assert not np.allclose(turned.expression[::2], motion.expression[::2])


def test_lips_meet_and_closed_ones_stay(motion):
    basis, nothing = toy.ToyRenderer.expression_model.basis, np.zeros(40, np.float32)
    met = close_lips(motion, basis, nothing + 1, nothing, parted=0)
    before, after = (gaps(one, basis) for one in (motion, met))
    np.testing.assert_allclose(after, np.minimum(before, 0), atol=1e-5)
    free = close_lips(motion, basis, nothing, nothing, parted=1)
    np.testing.assert_allclose(free.vector(), motion.vector(), atol=1e-6)


def test_lips_close_to_the_bit_the_same_however_many_frames_come_at_once(motion):
    draw, basis = np.random.default_rng(0), toy.ToyRenderer.expression_model.basis
    shape = (8, 63)  # as of a mesh
    basis = replace(basis, lip_gap_jacobian=draw.standard_normal(shape, np.float32),
                    lip_gap_inverse=draw.standard_normal(shape[::-1], np.float32))  # fmt: skip
    one = np.ones(40, np.float32)
    whole = close_lips(motion, basis, one, one, 0.5)
    apart = [close_lips(motion[t : t + 1], basis, one[:1], one[:1], 0.5) for t in range(40)]
    assert np.array_equal(whole.vector(), Motion.concatenate(apart).vector())


@pytest.mark.parametrize("parted", [0, 1])
def test_lips_meet_where_they_all_but_do_and_are_pressed_where_a_photograph_parts_them(motion, parted):
    basis, nothing = toy.ToyRenderer.expression_model.basis, np.zeros(40, np.float32)
    small = replace(motion, expression=0.04 * motion.expression)
    before, after = (gaps(one, basis)[:, 0] for one in (small, close_lips(small, basis, nothing, nothing + 1, parted)))
    closed, ajar, wide = (np.abs(before) < 0.003), (before > 0.01) & (before < 0.03), before >= CLOSE_THRESHOLD
    assert closed.any() and ajar.any() and wide.any()
    np.testing.assert_allclose(after[closed], np.minimum(before[closed], 0) if parted == 0 else -PRESS, atol=1e-3)
    assert (after[ajar] < before[ajar] - 0.005).all()
    np.testing.assert_allclose(after[wide], before[wide], atol=1e-6)


def gaps(motion, basis):
    in_head = motion.expression @ rotation_matrix(motion.pose).transpose(0, 2, 1)
    return in_head.reshape(len(motion), -1) @ basis.lip_gap_jacobian.T


@pytest.mark.parametrize("name", ["blink", "gaze", "emphasis", "smile", "brow", "emotion"])
def test_what_an_engine_cannot_show_is_refused_by_name(name):
    blind = ExpressionModel(np.eye(21, dtype=np.float32), np.eye(21, dtype=np.float32))
    check_options(Options(mouth=0.5, yaw=5), blind)
    with pytest.raises(InputError, match=f"'{name}'.*mesh"):
        check_options(Options(**{name: ASKED[name]}), blind)


def test_a_mouth_is_free_before_its_sound():
    loud = np.sin(np.arange(8000) / 5).astype(np.float32) / 2
    silence = np.zeros(32000, np.float32)
    heard, _ = extract_prosody(start_prosody(), np.concatenate([loud, silence, loud]), last=True)
    foreseen = look_ahead(heard, len(heard))
    sounds_again = (len(loud) + len(silence)) // 640
    assert heard.silence_gate[sounds_again - 1] == 1
    assert (foreseen.silence_gate[sounds_again - LOOKAHEAD_FRAMES + 3 :] == 0).all()
    assert foreseen.silence_gate[sounds_again - LOOKAHEAD_FRAMES - 6] == 1
    np.testing.assert_array_equal(foreseen.emphasis, heard.emphasis)
