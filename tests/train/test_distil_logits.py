"""Distillation of logits: OFA-KD, SinKD, balanced, NKD and USKD, by closed forms."""

from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from train.distil.methods.balanced import (
    BalancedConfig,
    balance,
    balanced_student_loss,
    balanced_teacher_loss,
    fit_temperature,
)
from train.distil.methods.nkd import NKDConfig, dkd_loss, nkd_loss, others_term, target_term, without_target
from train.distil.methods.ofa import OFAConfig, ofa_loss, ofa_weights
from train.distil.methods.sinkhorn import sinkhorn_divergence, sinkhorn_plan, transport_loss
from train.distil.methods.uskd import soft_target_term, zipf_labels

C, N = 40, 16
G = torch.Generator().manual_seed(2)


def random(*shape, scale=2.0):
    return scale * torch.randn(*shape, generator=G, dtype=torch.float64)


S, T, Y = random(N, C), random(N, C), torch.randint(C, (N,), generator=G)


def gradient(loss, *inputs):
    inputs = [one.clone().requires_grad_() for one in inputs]
    return torch.autograd.grad(loss(*inputs).sum(), inputs, allow_unused=True)


# OFA-KD
@pytest.mark.parametrize("epsilon", [1.0, 1.2, 1.4])
def test_ofa_is_smallest_where_the_student_has_the_normalised_weights(epsilon):
    config = OFAConfig(epsilon=epsilon)
    weights = ofa_weights(T, Y, config)
    best = (weights / weights.sum(-1, keepdim=True)).log()
    (at_best,) = gradient(lambda s: ofa_loss(s, T, Y, config), best)
    (elsewhere,) = gradient(lambda s: ofa_loss(s, T, Y, config), S)
    assert at_best.abs().max() < 1e-9 < elsewhere.abs().max()


def test_ofa_descends_to_the_closed_form():
    config, logits = OFAConfig(epsilon=1.4), torch.zeros(2, 5, dtype=torch.float64, requires_grad=True)
    teacher, target = T[:2, :5], torch.tensor([0, 3])
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-10, tolerance_change=0)

    def closure():
        optimiser.zero_grad()
        loss = ofa_loss(logits, teacher, target, config).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    weights = ofa_weights(teacher, target, config)
    assert torch.allclose(logits.softmax(-1), weights / weights.sum(-1, keepdim=True), atol=1e-6)


def test_ofa_at_exponent_one_is_plain_distillation():
    config = OFAConfig(epsilon=1.0)
    assert torch.allclose(ofa_weights(T, Y, config), T.softmax(-1))
    (found,) = gradient(lambda s: ofa_loss(s, T, Y, config), S)
    assert torch.allclose(found, S.softmax(-1) - T.softmax(-1))
    for form in (True, False):  # as coded and as printed
        assert torch.allclose(ofa_weights(T, Y, OFAConfig(epsilon=1.0, powers_others=form)), T.softmax(-1))


def test_ofa_weighs_the_target_by_the_teachers_confidence():
    confidence = torch.linspace(-3, 6, 9, dtype=torch.float64)
    logits = torch.zeros(9, C, dtype=torch.float64)
    logits[:, 4] = confidence
    weights = ofa_weights(logits, torch.full((9,), 4), OFAConfig(epsilon=1.3))[:, 4]
    assert (weights.diff() > 0).all()
    powered, plain = (ofa_weights(T, Y, OFAConfig(epsilon=1.4, powers_others=form)) for form in (True, False))
    is_other = F.one_hot(Y, C) == 0
    assert (powered < plain)[is_other].all() and torch.equal(powered[~is_other], plain[~is_other])


# SinKD
def test_the_plan_is_doubly_stochastic():
    cost = torch.cdist(S.softmax(-1), T.softmax(-1), 1)
    plan = sinkhorn_plan(cost, 0.1, 20)
    assert (plan >= 0).all() and (plan.sum(0) - 1).abs().max() < 1e-6 and (plan.sum(1) - 1).abs().max() < 1e-2


def test_transport_does_not_know_the_order_of_rows():
    rows = [S.softmax(-1), T.softmax(-1)]
    shuffled = torch.randperm(N, generator=G)

    def value(one, other):
        return transport_loss(torch.cdist(one, other, 1), 0.1, 20)

    assert torch.allclose(value(*rows), value(rows[0][shuffled], rows[1]))
    assert torch.allclose(value(*rows), value(rows[0], rows[1][shuffled]))
    assert 0 < value(*rows) / N <= 2


def test_transport_of_equal_sets_vanishes_with_the_blur_and_debiased_is_zero():
    rows = T.softmax(-1)
    values = [transport_loss(torch.cdist(rows, rows, 1), blur, 50) / N for blur in (0.3, 0.1, 0.01)]
    assert values[0] > values[1] > values[2] and values[2] < 1e-6
    assert sinkhorn_divergence(rows, rows, 0.3, 50, 1).item() == 0
    assert sinkhorn_divergence(S.softmax(-1), rows, 0.3, 50, 1) > 0


def test_transport_at_small_blur_is_the_best_assignment():
    one, other = random(5, 3), random(5, 3)
    cost = torch.cdist(one, other)
    best = min(sum(cost[i, j] for i, j in enumerate(order)) for order in permutations(range(5)))
    assert transport_loss(cost, 0.01, 2000).item() == pytest.approx(best.item(), rel=1e-3)


def test_single_precision_survives_costs_that_underflow():
    cost = torch.full((4, 4), 50.0).fill_diagonal_(0)
    assert transport_loss(cost, 0.1, 20).isfinite() and transport_loss(cost.half().float(), 1e-3, 20).isfinite()


# after BD-KD
def test_balanced_loss_vanishes_where_both_agree():
    config = BalancedConfig()
    assert balanced_student_loss(T, T, config).abs().max() < 1e-9
    (found,) = gradient(lambda s: balanced_student_loss(s, T, config), T)
    assert found.abs().max() < 1e-9


def test_the_balance_flips_when_the_networks_are_swapped():
    a, b = balance(S, T, 1.0)
    swapped = balance(T, S, 1.0)
    assert torch.equal(a, swapped[1]) and torch.equal(b, swapped[0]) and set(a.tolist()) == {1.0, 2.0}
    confident, flat = 5 * S, 0.1 * S
    assert (balance(confident, flat, 1.0)[0] == 2).all()  # an over-confident student: forward


def test_each_network_learns_by_its_own_loss_alone():
    config = BalancedConfig()
    assert gradient(lambda s, t: balanced_student_loss(s, t, config), S, T)[1] is None
    assert gradient(lambda s, t: balanced_teacher_loss(s, t, config), S, T)[0] is None
    (ours, _), (_, theirs) = (
        gradient(lambda s, t, loss=loss: loss(s, t, config), S, T)
        for loss in (balanced_student_loss, balanced_teacher_loss)
    )
    assert ours.any() and theirs.any()


def test_temperature_scaling_finds_the_temperature():
    logits = random(4000, 5, scale=1.0)
    labels = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.1)


# NKD
def test_nkd_normalises_the_others_to_one():
    others = without_target(S, Y)
    assert others.shape == (N, C - 1)
    for row, target, full in zip(others, Y, S, strict=True):
        assert torch.equal(row, torch.cat([full[:target], full[target + 1 :]]))
    assert torch.allclose(others.softmax(-1).sum(-1), torch.ones(N, dtype=torch.float64))


def test_nkd_others_are_matched_up_to_a_constant_and_whatever_the_target():
    config, place = NKDConfig(temperature=2), F.one_hot(Y, C).double()
    shifted = T + 3.0 + 5.0 * place
    (found,) = gradient(lambda s: others_term(s, T, Y, config), shifted)
    assert found.abs().max() < 1e-9
    assert torch.allclose(others_term(S, T, Y, config), others_term(S + 7 * place, T + 7 * place, Y, config))
    constant = others_term(S, T, Y, config) - dkd_loss(S, T, Y, alpha=0, beta=1, temperature=2) / 4
    entropy = others_term(T, T, Y, config)
    assert torch.allclose(constant, entropy)  # DKD's others but for a constant


def test_nkd_without_others_is_the_weighted_cross_entropy():
    confidence = T.softmax(-1).gather(-1, Y[:, None])[:, 0]
    expected = confidence * F.cross_entropy(S, Y, reduction="none")
    assert torch.allclose(nkd_loss(S, T, Y, NKDConfig(gamma=0)), expected)


def test_nkd_pushes_the_target_even_where_both_agree():
    (found,) = gradient(lambda s: target_term(s, T, Y), T)
    confidence = T.softmax(-1).gather(-1, Y[:, None])
    assert torch.allclose(found, -confidence * (F.one_hot(Y, C) - T.softmax(-1)))


def test_nkd_gradient_by_finite_differences():
    config = NKDConfig(gamma=3, temperature=2)
    inputs = S[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: nkd_loss(s, T[:3], Y[:3], config), (inputs,))


# USKD
def test_uskd_labels_are_zipfs_law_over_ranks():
    target, weak = torch.zeros(1, dtype=torch.long), torch.zeros(1, C, dtype=torch.float64)
    last = torch.arange(C, 0, -1, dtype=torch.float64)[None].clone() / 10
    last[0, 0] = -9  # the target ranks last
    labels = zipf_labels(last, weak, target, ranks_by_logarithm=False)[0]
    assert labels.sum().item() == pytest.approx(1) and (labels.diff() < 0).all()
    assert labels[[0, 1, -1]].tolist() == pytest.approx([0.235, 0.118, 0.006], abs=1e-3)
    assert (labels[0] / labels[1]).item() == pytest.approx(2)
    first = last.clone()
    first[0, 0] = 9  # the target ranks first, which leaves rank 2 to the best of the others
    labels = zipf_labels(first, weak, target, ranks_by_logarithm=False)[0]
    assert labels[[0, 1, -1]].tolist() == pytest.approx([0.153, 0.102, 0.008], abs=1e-3)


def test_uskd_ranks_by_both_branches_and_has_no_gradient_in_labels():
    weak = random(N, C)
    for by_logarithm in (True, False):
        labels = zipf_labels(S, weak, Y, ranks_by_logarithm=by_logarithm)
        assert torch.allclose(labels.sum(-1), torch.ones(N, dtype=torch.float64)) and not labels.requires_grad
    assert not torch.equal(labels, zipf_labels(S, torch.zeros_like(weak), Y, ranks_by_logarithm=False))


def test_uskd_soft_target_keeps_the_mean_and_is_detached():
    (found,) = gradient(lambda s: soft_target_term(s, Y), S)
    probability = S.softmax(-1)
    squared = probability.gather(-1, Y[:, None]) ** 2
    value = squared + 1 - squared.mean()
    assert torch.allclose(found, -value * (F.one_hot(Y, C) - probability))
