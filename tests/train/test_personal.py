"""A person's own way of talking: everybody's student to the bit at one end of the dial, the person's at the other."""

import copy
import json
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
from kdtalker.audio.whisper import WHISPER_FILE
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, Motion
from kdtalker.diffusion.causal.header import StudentHeader
from kdtalker.diffusion.causal.network import StudentNetwork
from kdtalker.diffusion.causal.personal import PREFIX, blend_personal
from kdtalker.diffusion.causal.speech import load_network, save_student
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.diffusion.speech import load_speech
from kdtalker.face.landmarks import LIP_PAIRS
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.mesh.geometry import FaceModel
from kdtalker.session import draw_frames
from kdtalker.weights.arrays import read_arrays
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
from train.motion.dataset import fit_motion, fit_normalisation, to_model_vectors
from train.personal import film as film_module
from train.personal.ablation import choose_people, split_film
from train.personal.figures import closures_met_share, measure_clips_together
from train.personal.film import hear_clips
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
                         random(4, 133), random(4, 9, 4))  # fmt: skip


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
    assert all(weight.grad is not None for weight in person.parameters())
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
    assert blend_personal(tensors, 0.25)["a"] == pytest.approx([0.775, 3.5]) and set(blend_personal(tensors, 0.5)) == {"a", "b"}
    with pytest.raises(InputError, match="fits no weight"):
        blend_personal({"a": np.zeros(2), f"{PREFIX}a": np.zeros(3)}, 0.5)


# toys that learn: a student of loudness that opens mouths, a person who opens it twice as wide
def toy_shard(name, frames=150, wide=1.0, split="train", speaker=""):
    made = shard(name, frames, split)
    mean = made.landmarks[:, [1]]
    still = made.landmarks.copy()
    still[:] = made.landmarks[np.argmin(np.abs(made.landmarks[:, 13, 1] - made.landmarks[:, 14, 1]))] - mean[0] + mean
    return replace(made, landmarks=made.landmarks + (wide - 1) * (made.landmarks - still), speaker=speaker or name)


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
    path, header = tmp_path_factory.mktemp("student") / "student.safetensors", None
    header = StudentHeader("mesh", STUDENT, normalisation, {"made by": "a test"})
    save_student(path, network(), header)
    student = BaseStudent.load(path)
    clips, _ = hear_clips([replace(one, synced=True) for one in shards], student)
    config = PersonalConfig(trained="all", teacher="none", steps=150, learning_rate=1e-2, frames=24)
    person = fit_person(student, clips, [clip.features for clip in clips], config)
    student.network.motion.load_state_dict(person.states()[1])
    save_student(path, student.network, header)
    return path


@pytest.fixture(scope="module")
def student(base):
    return BaseStudent.load(base)


def test_the_toy_student_moves_mouths_with_sound(student):
    clips, lags = hear_clips([toy_shard("e")], student)
    lag_frames, r = lags["films/e.mp4"]
    assert r > 0.6 and lag_frames == 0
    late = toy_shard("e")
    late = replace(late, sound=np.r_[late.sound[3 * 640 :], np.zeros(3 * 640, np.float16)])
    assert hear_clips([late], student)[1]["films/e.mp4"][0] == 3
    assert measure_clips_together(student.network, clips, student.normalisation)["r"] > 0.6
