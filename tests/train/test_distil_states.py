"""Distillation of states and of motion: Talking Models, ACAM-KD, LLaVA-KD, KDRL."""

import copy
from dataclasses import replace

import pytest
import torch
from toy_distil import FRAMES, LAYER, STUDENT, batch, denoiser, ground, upper_layers

from kdtalker.diffusion.causal.network import StudentNetwork
from train.distil.distiller import UNLABELLED
from train.distil.methods.acam import ACAMConfig, MaskedFeatureLoss, dice
from train.distil.methods.baselines import Supervised
from train.distil.methods.kdrl import (
    KDRL,
    KDRLConfig,
    advantages,
    annealed_beta,
    gaussian_reverse_kl,
    guidance_mask,
    k2,
    k3,
    log_density,
    policy_loss,
)
from train.distil.methods.llava import DFT, DPT, SFT, FunctionalLoss, LLaVA, LLaVAConfig, relation_loss
from train.distil.methods.reward import MotionReward, RewardConfig
from train.distil.methods.talking import Talker, TalkingConfig, converse
from train.distil.phones import PHONES
from train.distil.registry import MethodConfigs, build_methods

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


# after Talking Models
def talk(shuffles=False, **changes):
    torch.manual_seed(1)
    talker, states = Talker(8, 16, LAYER, TalkingConfig(message=6, hidden=12)), (random(3, 10, 8), random(3, 5, 16))
    return talker, states, random(3, 10, LAYER)


def test_state_consistency_is_zero_for_modules_that_change_nothing():
    talker = Talker(LAYER, LAYER, LAYER, TalkingConfig())
    for name in ("encode_student", "decode_student", "encode_teacher", "decode_teacher"):
        setattr(talker, name, torch.nn.Identity())
    states = random(2, 6, LAYER)
    said = converse(talker, lambda x: x, states, states, states)
    assert said.state_loss == said.message_loss == said.interact == 0


def test_the_message_learns_through_frozen_layers():
    talker, (lower, upper), teacher = talk()
    layers = upper_layers()
    before = copy.deepcopy(layers.state_dict())
    said = converse(talker, layers, lower, upper, teacher)
    said.message.retain_grad()
    said.interact.backward()
    assert said.message.grad.abs().sum() > 0 and all(weight.grad is None for weight in layers.parameters())
    torch.optim.SGD(talker.parameters(), 0.1).step()
    assert all(torch.equal(before[name], value) for name, value in layers.state_dict().items())


def test_replies_of_other_clips_teach_worse_once_messages_carry_something():
    talker, (lower, upper), teacher = talk()
    upper = lower.reshape(3, 5, 16)  # the upper state follows from the lower
    layers, optimiser = upper_layers(), torch.optim.Adam(talker.parameters(), 0.01)
    for _ in range(150):
        said = converse(talker, layers, lower, upper, teacher)
        optimiser.zero_grad()
        said.interact.backward()
        optimiser.step()
    assert converse(talker, layers, lower, upper, teacher, shuffles=True).interact > 1.2 * said.interact
    assert said.message.detach().flatten(0, 1).var(0).mean() > 1e-3


def test_replies_hear_no_later_step():
    layers, states = upper_layers(), random(1, 8, LAYER)
    other = states.clone()
    other[:, 5:] += 1
    assert torch.allclose(layers(states)[:, :5], layers(other)[:, :5])
    assert not torch.allclose(layers(states)[:, 5], layers(other)[:, 5])


# ACAM-KD
@pytest.fixture
def masked():
    torch.manual_seed(2)
    return MaskedFeatureLoss(12, 8, ACAMConfig(selectors=3)), random(2, 12, 10), random(2, 8, 10)


def test_masks_lie_within_and_follow_the_student(masked):
    loss, teacher, student = masked
    channel, spatial = loss.masks(teacher, student)
    assert channel.shape == (2, 3, 12) and spatial.shape == (2, 3, 10)
    for mask in (channel, spatial):
        assert mask.min() > 0 and mask.max() < 1
    assert torch.allclose(loss.fuse.attention(teacher, student).sum(-1), torch.ones(2, 10))
    assert not torch.equal(loss.masks(teacher, student + random(2, 8, 10))[1], spatial)


def test_masked_error_is_zero_for_equal_features_whatever_the_masks():
    loss = MaskedFeatureLoss(8, 8, ACAMConfig())
    loss.align = torch.nn.Identity()
    features = random(2, 8, 10)
    assert loss(features, features)[0].abs() < 1e-10 < loss(features, random(2, 8, 10))[0]


def test_masks_cannot_escape_to_zero(masked):
    loss, teacher, student = masked
    with torch.no_grad():  # masks of nearly nothing, everywhere
        loss.fuse.value.weight.zero_()
        loss.fuse.value.bias.fill_(1)
        loss.channel.fill_(-8)
        loss.spatial.fill_(-8 / 12)
    assert max(mask.max() for mask in loss.masks(teacher, student)) < 1e-3
    plain = MaskedFeatureLoss(12, 8, ACAMConfig(masks="none"))
    plain.align = loss.align
    assert loss(teacher, student)[0].item() == pytest.approx(2 * plain(teacher, student)[0].item(), rel=1e-4)


def test_dice_is_one_for_equal_and_zero_for_disjoint_masks():
    equal = torch.rand(1, 1, 20, generator=G).expand(1, 3, 20)
    disjoint = torch.eye(4)[None]
    assert dice(equal).item() == pytest.approx(1, abs=1e-5) and dice(disjoint) == 0
    assert dice(torch.rand(1, 4, 20000, generator=G)).item() == pytest.approx(0.75, abs=0.01)


# LLaVA-KD
def test_relations_do_not_know_scale_and_rotation():
    rows = random(2, 10, 6)
    turned = 3 * rows @ torch.linalg.qr(random(6, 6))[0]
    wide = torch.nn.functional.pad(turned, (0, 5))
    for band in (-1, 0, 2):
        assert relation_loss(rows, wide, band=band).abs().max() < 1e-5
        assert (relation_loss(rows, random(2, 10, 4), band=band) > 0).all()
    assert (relation_loss(rows, random(2, 10, 4)) <= 1).all()


def test_repaired_relations_tell_smooth_sequences_apart():
    smooth = [torch.full((1, 64, 40), 3.0) for _ in range(2)]  # a common offset
    for sequence in smooth:
        for t in range(1, 64):
            sequence[:, t] = 3 + 0.8 * (sequence[:, t - 1] - 3) + random(1, 40)
    plain, repaired = (relation_loss(*smooth, band=band).item() for band in (-1, 2))
    assert plain < 0.05 and repaired > 5 * plain


@pytest.fixture
def llava():
    (made,) = build_methods(("llava",), ground(), MethodConfigs(llava=LLaVAConfig(relations="plain")))
    made.steps = 30
    return made


def test_stages_follow_each_other_and_the_last_is_slower(llava):
    found = []
    for llava.step in range(1, 31):
        found.append((llava.stage, llava.rate))
    assert found == [(DPT, 1.0)] * 10 + [(SFT, 1.0)] * 10 + [(DFT, LLaVAConfig().fine_rate)] * 10


def test_each_stage_trains_what_it_is_meant_to(llava):
    for llava.step, trains_encoder, trains_motion in ((1, True, False), (11, True, True), (21, True, True)):
        student, teacher, data = batch()
        llava.loss(student, teacher, data)[0].backward()
        encoder = [student.stages[-1].grad, student.logits.grad]
        assert any(one is not None and one.any() for one in encoder) == trains_encoder
        assert (student.mean.grad is not None) == trains_motion


def test_supervised_stage_never_looks_at_the_teacher(llava):
    llava.step = 11
    student, teacher, data = batch()
    broken = replace(teacher, **{name: torch.full_like(value, float("nan")) for name, value in vars(teacher).items()})
    assert llava.loss(student, broken, data)[0].isfinite()


def test_functional_loss_is_zero_for_the_teachers_own_condition():
    frozen = denoiser()
    before = copy.deepcopy(frozen.state_dict())
    loss = FunctionalLoss(frozen, 0)
    _, teacher, data = batch()
    own = frozen.adapt(teacher.features).detach()
    given = teacher.features, teacher.samples[:, 0], data.portrait, 3
    assert loss(own, *given) == 0
    condition = random(*own.shape).requires_grad_()
    loss(condition, *given).backward()
    assert condition.grad.any() and all(weight.grad is None for weight in frozen.parameters())
    assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())
    assert not list(loss.parameters())
    assert isinstance(LLaVA(16, loss, 8, Supervised(ground().motion_loss()), LLaVAConfig()).stage, str)


# KDRL
def test_advantages_sum_to_zero_and_vanish_without_contrast():
    rewards = torch.rand(5, 8, generator=G)
    assert advantages(rewards).sum(1).abs().max() < 1e-5
    assert advantages(torch.full((2, 4), 0.3)).abs().max() < 1e-3


def test_estimates_of_the_divergence_vanish_where_both_agree():
    policy, teacher = random(100), random(100)
    for estimate in (k2, k3):
        assert estimate(policy, policy).abs().max() == 0 and (estimate(policy, teacher) >= 0).all()


def test_gradient_of_k2_is_that_of_the_reverse_divergence():
    mean, log_variance = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (0.4, -0.5))
    teacher = torch.tensor([0.0], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
    exact = torch.autograd.grad(gaussian_reverse_kl(mean, log_variance, *teacher), (mean, log_variance))
    noise = torch.randn(1_000_000, 1, generator=G, dtype=torch.float64)
    noise = torch.cat([noise, -noise])
    drawn = (mean + (0.5 * log_variance).exp() * noise).detach()
    estimate = k2(log_density(drawn, mean, log_variance), log_density(drawn, *teacher)).mean()
    found = torch.autograd.grad(estimate, (mean, log_variance))
    assert [one.item() for one in found] == pytest.approx([one.item() for one in exact], rel=0.01)


def test_closed_form_is_that_of_torch():
    normals = [torch.distributions.Normal(random(6), random(6).exp()) for _ in range(2)]
    found = gaussian_reverse_kl(*(part for one in normals for part in (one.mean, 2 * one.stddev.log())))
    assert found.item() == pytest.approx(torch.distributions.kl_divergence(*normals).sum().item(), rel=1e-5)


def test_schedules():
    assert annealed_beta(0) == 5e-3 and annealed_beta(80) == pytest.approx(1e-3) and annealed_beta(10**6) == 1e-3
    method = KDRL(MotionReward(ground().gap, RewardConfig()), KDRLConfig(beta=0.1))
    method.steps, found = 100, []
    for method.step in (0, 30, 60, 100):
        found.append(method.beta)
    assert found == pytest.approx([0.1, 0.06, 0.02, 0.02])


def test_guidance_counts_wrong_rollouts_or_lost_groups():
    correct = torch.tensor([[True, False], [False, False]])
    assert guidance_mask(correct, "response").tolist() == [[False, True], [True, True]]
    assert guidance_mask(correct, "group").tolist() == [[False, False], [True, True]]
    assert guidance_mask(correct, "none").all()


def test_without_divergence_it_is_grpo_and_the_switch_is_hard():
    student, teacher, data = batch()
    reward = MotionReward(ground().gap, RewardConfig())
    rollouts = student.rollouts
    log_probability = log_density(rollouts.frames, rollouts.mean, rollouts.log_variance) / 70
    grpo = policy_loss(log_probability, reward(rollouts.frames, teacher.samples, data)[0])
    assert KDRL(reward, KDRLConfig(beta=0)).loss(student, teacher, data)[0] == grpo
    switched = KDRL(reward, KDRLConfig(switch_at=0.5))
    switched.steps, losses = 10, []
    for switched.step in (5, 6):
        losses.append(switched.loss(student, teacher, data)[0])
    assert losses[1] == grpo and losses[0] != grpo


def test_reward_likes_lips_that_close_at_bilabials_and_not_at_vowels():
    gap = torch.zeros(63)
    gap[0] = 1
    _, teacher, data = batch()
    labels = torch.full((1, FRAMES), PHONES.index("AA"))
    labels[:, 5] = PHONES.index("B")
    open_at = torch.linspace(0.5, 1.5, FRAMES)
    closes, shut = open_at.clone(), torch.full((FRAMES,), -2.0)
    closes[5] = -2
    frames = torch.zeros(1, 3, FRAMES, 70)
    frames[0, :, :, 7] = torch.stack([closes, shut, open_at])
    reward, correct = MotionReward(gap, RewardConfig())(frames, frames[:, :1], replace(data, labels=labels))
    assert reward[0, 0] > reward[0, 1] and reward[0, 0] > reward[0, 2] and correct.tolist() == [[True, False, False]]
    assert reward.min() >= 0 and reward.max() <= 1
    unknown = replace(data, labels=torch.full_like(labels, UNLABELLED))
    assert MotionReward(gap, RewardConfig())(frames, frames[:, :1], unknown)[0].isfinite().all()


def test_methods_leave_the_exported_student_as_it_is():
    """Names, count and output of the baseline's student, whichever methods trained beside it."""
    torch.manual_seed(8)
    baseline = StudentNetwork(STUDENT)
    states = {name: value.clone() for name, value in baseline.state_dict().items()}
    for names in (("ofa", "talking", "acam"), ("uskd", "balanced", "llava")):
        build_methods(names, ground(), MethodConfigs())
        torch.manual_seed(8)
        found = StudentNetwork(STUDENT).state_dict()
        assert found.keys() == states.keys() and all(torch.equal(found[name], value) for name, value in states.items())
