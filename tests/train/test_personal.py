"""A person's own way of talking: everybody's student to the bit at one end of the dial, the person's at the other."""

import copy
import json
import wave
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_distil import STUDENT
from toy_films import EXAMPLES
from toy_shards import shard
from toy_training import command

from kdtalker import TalkingPortraitPipeline
from kdtalker.apps.cli import main
from kdtalker.audio.encoders import encode_all
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, Motion
from kdtalker.diffusion.causal.header import StudentHeader
from kdtalker.diffusion.causal.network import StudentNetwork, load_network, save_student
from kdtalker.diffusion.causal.personal import PREFIX, blend_personal
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.diffusion.speech import load_speech
from kdtalker.face.landmarks import LIP_PAIRS
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.mesh.geometry import FaceModel
from kdtalker.session import draw_frames
from kdtalker.weights.find import find
from train.distil.methods.baselines import MotionLoss
from train.distil.methods.personal import (
    TRAINED,
    FeatureDelta,
    PersonalBatch,
    PersonalConfig,
    PersonalLoss,
    PersonalMotion,
    call_with,
    y_kd_loss,
)
from train.harness.curves import rms_loudness
from train.motion.dataset import fit_motion, to_model_vectors
from train.personal import film as film_module
from train.personal.__main__ import write_person
from train.personal.ablation import choose_people, split_film
from train.personal.figures import measure_clips_together
from train.personal.film import LAGS, HeardClip, estimate_lag, generate, hear_clips
from train.personal.fit import fit_person, personal_tensors
from train.personal.student import BaseStudent

G = torch.Generator().manual_seed(4)


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks on several threads wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random(*shape):
    return torch.randn(*shape, generator=G)


def network(steps=1):
    torch.manual_seed(5)
    return StudentNetwork(replace(STUDENT, steps=steps)).eval().requires_grad_(False)


def batch():
    return PersonalBatch(random(4, 9, 16), random(4, 9, 70), torch.tensor([1.0, 1, 0, 0]), random(4, 9, 70),
                         random(4, 133), random(4, 9, 8))  # fmt: skip


def trunk(state, base, one):
    return call_with(state, base, "trunk", one.features, one.before, one.portrait, one.noise)[0]


def changed(person):
    with torch.no_grad():
        for weight in person.parameters():
            weight.add_(0.1 * random(*weight.shape))
    return person


# the method
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("trained", TRAINED)
def test_a_new_person_talks_as_everybody_to_the_bit(trained, steps):
    base, one = network(steps).motion, batch()
    person = PersonalMotion(base, trained)
    for state in person.states():
        assert all(torch.equal(state[name], weight) for name, weight in base.named_parameters())
        assert torch.equal(trunk(state, base, one), base.trunk(one.features, one.before, one.portrait, one.noise)[0])
    assert personal_tensors(person) == {}


def test_what_is_trained_runs_as_a_plain_network():
    base, one = network(2).motion, batch()
    person = changed(PersonalMotion(base, TRAINED[0]))
    plain, (_, own) = copy.deepcopy(base), person.states()
    person.copy_to(plain)
    hidden, _ = plain.trunk(one.features, one.before, one.portrait, one.noise)
    assert torch.equal(hidden, trunk(own, base, one))
    assert torch.equal(plain.predict(hidden, 2)[0], call_with(own, base, "predict", hidden, 2)[0])
    features, layer, delta = random(3, 5), torch.nn.Linear(5, 7), changed(FeatureDelta(7))
    wanted = layer(features) * (1 + delta.scale) + delta.shift
    assert torch.allclose(torch.nn.functional.linear(features, *delta(layer.weight, layer.bias)), wanted, atol=1e-6)


def test_the_residual_is_the_persons_alone():
    person = PersonalMotion(network().motion, TRAINED[0])
    with torch.no_grad():
        person.head.residual.bias += 1
    hidden = random(2, 5, 24)
    (general, _), (own, variance) = (call_with(state, person.base, "predict", hidden, 1) for state in person.states())
    assert torch.allclose(own, general + 1) and torch.equal(general, person.base.predict(hidden, 1)[0])
    assert torch.equal(variance, person.base.predict(hidden, 1)[1])


def test_the_old_head_has_no_lesson_at_first_whatever_the_trunk():
    person = PersonalMotion(network().motion, TRAINED[0])
    changed(person.deltas)
    general, own = person.states()
    hidden, old = trunk(own, person.base, batch()), random(4, 9, 24)
    assert y_kd_loss(general, person.base, hidden) == y_kd_loss(general, person.base, 100 * hidden) == 0
    assert y_kd_loss(general, person.base, hidden, old) > 0  # LwF pulls the features back


def test_the_trunk_learns_from_the_lesson_through_the_new_head_alone():
    person, before = PersonalMotion(network().motion, TRAINED[0]), copy.deepcopy(network().motion.state_dict())
    hidden = random(2, 5, 24).requires_grad_()
    (equal,) = torch.autograd.grad(y_kd_loss(person.states()[0], person.base, hidden), hidden)
    assert not equal.any()
    changed(person.head)
    (moved,) = torch.autograd.grad(y_kd_loss(person.states()[0], person.base, hidden), hidden)
    target = torch.cat(person.base.predict(hidden, 1), -1).detach()
    made = torch.cat(call_with(person.states()[0], person.base, "predict", hidden, 1), -1)
    (by_new_head,) = torch.autograd.grad(((made - target) ** 2).mean(), hidden)
    assert moved.any() and torch.allclose(moved, by_new_head)
    assert all(torch.equal(before[name], value) for name, value in person.base.state_dict().items())


@pytest.mark.parametrize("config", [
    PersonalConfig(), PersonalConfig(teacher="old"), PersonalConfig(trained="all", teacher="none", starting_weight=0.1),
    PersonalConfig(trained="delta", teacher="none"),
])  # fmt: skip
def test_losses_are_finite_and_reach_only_what_is_trained(config):
    person = changed(PersonalMotion(network().motion, config.trained))
    loss_of = PersonalLoss(MotionLoss(torch.ones(70), random(63, 3), 2.0, 2.0), config)
    for scale in (0.0, 1.0, 50.0):
        one = batch()
        loss, logged = loss_of(person, replace(one, features=scale * one.features, motion=scale * one.motion))
        assert loss.shape == () and loss.isfinite() and np.isfinite(list(logged.values())).all()
    loss.backward()
    unused = "draft"  # which a student of one step does not have
    assert all(weight.grad is not None for name, weight in person.named_parameters() if unused not in name)
    assert all(weight.grad is None for weight in person.base.parameters())
    alone = PersonalLoss(MotionLoss(torch.ones(70), random(63, 3), 2.0, 2.0), replace(config, teacher="none"))
    of_others = replace(one, is_own=torch.zeros(4))
    assert alone(person, of_others)[1]["person"] == 0  # no film, no task


def test_recipes_are_closed():
    with pytest.raises(InputError, match="teacher is 'x', known are y, old, none"):
        PersonalConfig(teacher="x")
    with pytest.raises(InputError, match="own_history is 2"):
        PersonalConfig(own_history=2)


# the dial
def test_the_dial_ends_at_both_to_the_bit_and_averages_between():
    tensors = {"a": np.array([1.0, 3]), "b": np.array([7.0]), f"{PREFIX}a": np.array([0.1, 5])}
    assert blend_personal(tensors, 0)["a"] is tensors["a"] and blend_personal(tensors, 1)["a"] is tensors[f"{PREFIX}a"]
    between = blend_personal(tensors, 0.25)
    assert between["a"] == pytest.approx([0.775, 3.5]) and set(between) == {"a", "b"}
    with pytest.raises(InputError, match="fits no weight"):
        blend_personal({"a": np.zeros(2), f"{PREFIX}a": np.zeros(3)}, 0.5)


# toys that learn: a student of loudness that opens mouths, a person who opens his wider
def toy_shard(name, frames=150, wide=1.0, split="train", speaker="", **changes):
    return replace(shard(name, frames, split, wide), **{"speaker": speaker or name, "synced": False} | changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A briefly trained student, and its file."""
    torch.set_num_threads(1)
    shards, face = [toy_shard(name) for name in "abc"], FaceModel.load()
    fitted = [fit_motion(one.landmarks, face) for one in shards]
    vectors = np.concatenate([to_model_vectors(motion, relative=True) for motion, _ in fitted])
    std = np.maximum(vectors.std(0), 0.02)
    normalisation = Normalisation(
        np.r_[vectors.mean(0)[:1], np.zeros(6), vectors.mean(0)[7:]], std, fitted[0][1].reshape(-1), np.full(63, 0.05)
    )
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    header = StudentHeader("mesh", STUDENT, normalisation, {"made by": "a test"})
    save_student(path, network(), header)
    student = BaseStudent.load(path)
    clips, _ = hear_clips([replace(one, synced=True) for one in shards], student)  # their lags are known
    config = PersonalConfig(trained="all", teacher="none", steps=150, learning_rate=1e-2, frames=24)
    person = fit_person(student, clips, [clip.features for clip in clips], config)
    student.network.motion.load_state_dict(person.states()[1])
    save_student(path, student.network, header)
    return path


@pytest.fixture(scope="module")
def student(base):
    return BaseStudent.load(base)


def test_the_toy_student_moves_mouths_with_sound(student):
    clips, lags = hear_clips([toy_shard("e", synced=True, film="e.mp4")], student)
    assert lags["e.mp4"][0] == 0 and lags["e.mp4"][1] > 0.6
    assert measure_clips_together(student.network, clips, student.normalisation)["r"] > 0.6


def test_the_lag_of_a_film_is_found(student):
    sound = np.concatenate(list(read_sound(EXAMPLES / "austen_0920.wav")))
    features = student.encode(sound)
    clip = HeardClip("a", features, torch.zeros(len(features), 70), torch.zeros(63), torch.zeros(6))
    made = torch.from_numpy(generate(student.network, clip, 1)[0])
    for lag_frames in (-2, 0, 3):
        late = replace(clip, motion=torch.cat([torch.zeros(1, 70), made.roll(lag_frames, 0)[1:]]))
        found, r = estimate_lag([late], student, LAGS)
        assert found == lag_frames and r > 0.8


@pytest.fixture(scope="module")
def learned(base, student):
    """The file of a person whose lips open wider, and his clips."""
    torch.set_num_threads(1)
    shards = [toy_shard(name, wide=1.2, speaker="p", film="p.mp4", synced=True) for name in "fg"]
    (*clips,), _ = hear_clips(shards, student)
    others = [student.encode(toy_shard(name).sound) for name in "hi"]
    person = fit_person(student, clips[:1], others, PersonalConfig(steps=100, learning_rate=3e-3, frames=24))
    path = base.with_name("me.safetensors")
    write_person(path, base, personal_tensors(person), "a test")
    return path, clips


def test_a_person_gets_nearer_and_nobody_is_forgotten(base, student, learned):
    path, clips = learned
    others, _ = hear_clips([toy_shard("k"), toy_shard("l")], student)
    figures = {}
    for share in (0.0, 0.5, 1.0):
        made = load_network(path, share)
        figures[share] = [measure_clips_together(made, one, student.normalisation) for one in (clips[1:], others)]
    own = [figures[share][0]["M-LMD"] for share in figures]
    assert own[2] < 0.95 * own[0] and own[1] < own[0]
    assert figures[1.0][0]["amplitude"] > 1.5 * figures[0.0][0]["amplitude"]
    plain = measure_clips_together(load_network(base), others, student.normalisation)
    assert figures[0.0][1] == plain  # at 0 of the dial: to the bit


def test_at_zero_the_file_is_the_student_to_the_bit(base, learned):
    wanted, found = load_file(base), load_file(learned[0])
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in wanted.items())
    assert {name.removeprefix(PREFIX) for name in found.keys() - wanted.keys()} <= set(wanted)
    ours, theirs = load_network(learned[0], 0.0).state_dict(), load_network(base).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    ours, theirs = (load_network(learned[0], share).state_dict() for share in (None, 1.0))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_engine_turns_the_dial(base, learned):
    sound = np.concatenate(list(read_sound(EXAMPLES / "austen_0920.wav")))[: 25 * 640]
    motions = []
    for given in ((base, None), (learned[0], 0.0), (learned[0], 0.5), (learned[0], None)):
        speech = load_speech(given[0], "mesh", personal=given[1])
        rest = Motion.from_vector(np.full((1, 70), 0.1, np.float32), "mesh")
        state = speech.motion_model.start(np.zeros((KEYPOINTS, 3), np.float32), rest, speech.silence)
        features = encode_all(speech.audio_encoder, sound)
        motions.append(speech.motion_model.advance(state, features, last=True)[0].vector())
    plain, none, half, whole = motions
    assert np.array_equal(plain, none)
    assert 0 < np.abs(half - plain).mean() < np.abs(whole - plain).mean()


@pytest.mark.parametrize(("words", "says"), [
    (["--personal", "0.5"], "--personal was given without --checkpoint"),
    (["--checkpoint", "{me}", "--personal", "1.5"], "Option 'personal' is 1.5, wanted a number from 0"),
    (["--checkpoint", "{base}", "--personal", "0.5"], "holds nobody's own way of talking"),
    (["--checkpoint", "{shipped}", "--personal", "0.5"], "holds nobody's own way of talking"),
    (["--checkpoint", "{me}", "--personal", "half"], "'half' is not a number"),
])  # fmt: skip
@pytest.mark.parametrize("door", ["film", "live"])
def test_a_dial_that_cannot_be_is_refused_in_one_sentence(words, says, door, learned, tmp_path, capfd):  # noqa: PLR0917
    base = learned[0].with_name("student.safetensors")
    places = {"me": learned[0], "base": base, "shipped": find("mesh_motion.safetensors")}
    given = ["--image", EXAMPLES / "astronaut.png", "--audio", EXAMPLES / "austen_0920.wav"]
    given += [word.format(**places) for word in words]
    out, given = tmp_path / "out.mp4", list(map(str, given))
    assert main(["live", "--to", str(out), *given] if door == "live" else ["--output", str(out), *given]) == 2
    told = capfd.readouterr().err
    assert says in told and len(told.splitlines()) == 1 and not out.exists()


def test_the_page_refuses_a_dial_that_cannot_be(base, capsys):
    app = pytest.importorskip("app")
    for words in (["--personal", "0.5"], ["--checkpoint", str(base), "--personal", "0.5"]):
        with pytest.raises(SystemExit):
            app._parse(words)
    told = capsys.readouterr().err
    assert "without --checkpoint" in told and "nobody's own way" in told


# films
def write_voice(path, seconds):
    """Somebody who speaks; returns how loudly, in each frame."""
    samples = np.resize(np.concatenate(list(read_sound(EXAMPLES / "austen_0920.wav"))), round(16000 * seconds))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((32767 * samples).astype("<i2").tobytes())
    return rms_loudness(samples)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """The astronaut for six seconds, the mouth as open as the voice is loud."""
    folder = tmp_path_factory.mktemp("film")
    level = write_voice(folder / "voice.wav", 6)
    level = np.convolve(level, np.ones(3) / 3, "same") / level.max()
    pipeline, face = TalkingPortraitPipeline.mesh(), FaceModel.load()
    portrait = pipeline.portrait(read_image(EXAMPLES / "astronaut.png"), crop=True)
    rest = portrait.source.rest
    opened = face.map_expression(face.lip_gap_jacobian(), np.full(len(LIP_PAIRS), 0.15)).reshape(KEYPOINTS, 3)
    motion = Motion(*(np.repeat(part, len(level), 0) for part in (rest.scale, rest.pose, rest.shift)),
                    rest.expression + level[:, None, None] * opened, rest.space)  # fmt: skip
    with VideoWriter(folder / "me.mp4", 512, 512, sound=folder / "voice.wav") as made:
        for frame in draw_frames(pipeline.engine.renderer, portrait, motion):
            made.write(frame)
    return folder / "me.mp4"


def write_grey(path, seconds, sound=None):
    with VideoWriter(path, 64, 64, sound=sound) as film:
        for _ in range(round(25 * seconds)):
            film.write(np.full((64, 64, 3), 90, np.uint8))
    return path


@pytest.mark.slow
def test_a_film_becomes_a_person(base, film, tmp_path, monkeypatch, capsys):
    out = tmp_path / "me.safetensors"
    monkeypatch.setattr(film_module, "LEAST_S", 5.0)
    assert command("personal", film, "--student", base, "--out", out, "--steps", 20) == 0
    told = capsys.readouterr().out
    assert "r 0." in told and "learned from 6 s of film" in told
    assert any(name.startswith(PREFIX) for name in load_file(out))
    load_network(out, 0.3)
    assert command("personal", film, "--student", out, "--out", tmp_path / "again.safetensors") == 2
    assert "already holds somebody's" in capsys.readouterr().err


@pytest.mark.slow
def test_a_film_that_is_too_short_is_refused_in_one_sentence(base, film, tmp_path, capsys):
    out = tmp_path / "me.safetensors"
    assert command("personal", film, "--student", base, "--out", out) == 2
    told = capsys.readouterr().err
    assert "can be followed for 6 s" in told and "wanted 20 s" in told and len(told.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(("sound", "says"), [(None, "no sound"), ("silence", "is silence"), ("voice", "shows no face")])
def test_films_without_sound_or_face_are_refused_in_one_sentence(sound, says, base, tmp_path, capsys):
    voice, out = tmp_path / "voice.wav", tmp_path / "me.safetensors"
    write_voice(voice, 1)
    if sound == "silence":
        with wave.open(str(voice), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(bytes(32000))
    film = write_grey(tmp_path / "a.mp4", 1, voice if sound else None)
    assert command("personal", film, "--student", base, "--out", out) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.splitlines()) == 1 and not out.exists()


def test_a_mouth_that_does_not_go_with_the_sound_is_refused(base, tmp_path, monkeypatch, capsys):
    noise = np.random.default_rng(0).standard_normal(640 * 500).astype(np.float32)
    silent = toy_shard("z", 500, sound=(0.001 * noise).astype(np.float16))
    monkeypatch.setattr("train.personal.__main__.read_film", lambda path: [silent])
    assert command("personal", tmp_path / "z.mp4", "--student", base, "--out", tmp_path / "me.safetensors") == 2
    assert "does not move with its sound" in capsys.readouterr().err


def test_another_model_is_no_student(tmp_path, capsys):
    shipped = find("mesh_motion.safetensors")
    assert command("personal", tmp_path / "a.mp4", "--student", shipped, "--out", tmp_path / "me.safetensors") == 2
    assert "without 'student' in its header" in capsys.readouterr().err


# the ablation
def test_the_last_seconds_are_held_out(student):
    clips, _ = hear_clips([toy_shard(name, 300, synced=True) for name in "abc"], student)
    learned, held_out = split_film(clips)
    assert sum(map(len, held_out)) == 500 and sum(map(len, learned)) == 400
    whole, parts = (torch.cat([clip.motion for clip in some]) for some in (clips, learned + held_out))
    assert torch.equal(whole, parts)


def test_people_need_enough_film_and_those_of_the_validation_split_are_left_alone():
    shards = [toy_shard("a", 700, speaker="long"), toy_shard("b", 700, speaker="long"), toy_shard("c"),
              toy_shard("d", 1400, split="val")]  # fmt: skip
    assert list(choose_people(shards, [])) == ["long"]
    for name in ("c", "d"):
        with pytest.raises(InputError, match=f"of '{name}', wanted 40 s"):
            choose_people(shards, [name])


def test_the_ablation_measures_every_way_over_the_dial(base, tmp_path, capsys):
    (tmp_path / "shards").mkdir()
    for one in (toy_shard("a", 1100, speaker="p", synced=True), toy_shard("v", split="val", synced=True)):
        one.save(tmp_path / "shards")
    assert command("personal.ablation", tmp_path / "shards", "--student", base, "--out", tmp_path / "out", "--steps", 2,
                   "--arms", "fine-tune", "Y-KD") == 0  # fmt: skip
    found = json.loads((tmp_path / "out" / "figures.json").read_text())["people"]["p"]["0"]
    assert found["held out s"] == 20 and found["learned s"] == 24
    for arm in ("fine-tune", "Y-KD"):
        dial = found["arms"][arm]["dial"]
        assert list(dial) == ["0", "0.25", "0.5", "0.75", "1"]
        assert dial["0"] == found["arms"]["Y-KD"]["dial"]["0"] != dial["1"]
        assert {"r", "amplitude", "M-LMD", "yaw", "pitch", "roll"} <= set(dial["1"]["own"])
    assert cv2.imread(str(tmp_path / "out" / "dial.png")) is not None
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| Y-KD |") for line in lines) == 5
