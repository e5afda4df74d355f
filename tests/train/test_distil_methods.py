"""What holds for every distillation method: finite numbers, gradients only where they belong, switches that switch."""

from dataclasses import replace

import pytest
import torch
from toy_distil import CLASSES, CLIPS, FRAMES, STUDENT, batch, ground, upper_layers

from kdtalker.core.errors import InputError
from kdtalker.diffusion.causal.network import StudentNetwork
from train.distil.arm import match_gradient
from train.distil.distiller import StudentOutput, TeacherOutput, kl_divergence
from train.distil.methods.baselines import gaussian_nll
from train.distil.registry import METHODS, MethodConfigs, build_methods


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks on several threads wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name):
    (made,) = build_methods((name,), ground(), MethodConfigs())
    return made


def weights(method):
    """Those that are trained, then the frozen ones."""
    parts = [one for module in method.modules() for value in vars(module).values() if isinstance(value, tuple | list)
             for one in value]  # fmt: skip
    for part in (method, *parts):
        if isinstance(part, torch.nn.Module):
            yield from part.parameters()
        elif isinstance(part, torch.Tensor):
            yield part


def tensors(output):
    parts = [getattr(output, name) for name in vars(output)]
    flat = [one for part in parts if part is not None for one in (part if isinstance(part, tuple) else (part,))]
    return [one for one in flat if isinstance(one, torch.Tensor)] + (
        [output.rollouts.mean] if isinstance(output, StudentOutput) else []
    )


LOGITS = {
    "far apart": lambda x: torch.where(x > 0, 50.0, -50.0),
    "equal": torch.zeros_like,
    "one-hot": lambda x: 100.0 * (x == x.max(-1, keepdim=True).values) - 50,
}


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("name", METHODS)
def test_losses_are_finite_whatever_the_logits(name, kind):
    student, teacher, data = batch()
    ours, theirs = (LOGITS[kind](logits.detach()) for logits in (student.logits, teacher.logits))
    for one, other in ((ours, theirs), (ours, ours), (theirs, ours.roll(1, -1))):
        student = replace(student, logits=one.clone().requires_grad_())
        method = build(name)
        method.step, method.steps = 600, 1000
        loss, logged = method.loss(student, replace(teacher, logits=other), data)
        assert loss.shape == () and loss.isfinite() and all(torch.tensor(list(logged.values())).isfinite())
        loss.backward()
        assert student.logits.grad is None or student.logits.grad.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_no_gradient_reaches_the_teacher(name):
    student, teacher, data = batch()
    watched = TeacherOutput(*(one.clone().requires_grad_() for one in tensors(teacher)))
    data = replace(data, features=watched.features, samples=watched.samples)
    method = build(name)
    method.step, method.steps = 600, 1000
    loss, _ = method.loss(student, watched, data)
    loss.backward()
    assert all(one.grad is None for one in tensors(watched))
    assert any(one.grad is not None and one.grad.any() for one in [*tensors(student), *method.parameters()])


@pytest.mark.parametrize("name", [name for name in METHODS if name != "llava"])  # the denoiser is of single precision
def test_single_precision_is_enough(name):
    losses = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            student, teacher, data = batch(dtype=dtype)
            method = build(name)
            torch.manual_seed(0)
            for weight in weights(method):
                weight.data.copy_(0.1 * torch.randn(weight.shape, dtype=torch.float64))
            losses.append(method.loss(student, teacher, data)[0].item())
        finally:
            torch.set_default_dtype(torch.float32)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_building_a_method_draws_no_random_number_of_the_others(name):
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)
    methods = build_methods((name,), ground(), MethodConfigs())
    student, teacher, data = batch()
    methods[0].loss(student, teacher, data)
    assert torch.equal(torch.randn(3), wanted)


SWITCHED_OFF = {"logits": {"logits": {"nll_weight": 0.0}}, "sinkhorn-phones": {"sinkhorn": {"phone_weight": 0.0}},
                "balanced": {"balanced": {"teacher_rate": 0.0}}}  # fmt: skip
TABLES = {"sinkhorn-samples": "sinkhorn", "sinkhorn-phones": "sinkhorn"}


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("labels", "features")])
def test_weight_zero_leaves_the_gradient_to_the_bit(name):
    table = TABLES.get(name, name)
    values = {"weight": 0.0} | SWITCHED_OFF.get(name, {}).get(table, {})
    configs = MethodConfigs()
    off = replace(configs, **{table: replace(getattr(configs, table), **values)})
    gradients = []
    for names in (("labels",), ("labels", name)):
        student, teacher, data = batch()
        losses = [one.loss(student, teacher, data)[0] for one in build_methods(names, ground(), off)]
        torch.stack(losses).sum().backward()
        gradients.append((student.logits.grad, student.mean.grad))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_methods_hold_no_parameter_of_the_student_and_train_no_frozen_one(name):
    method = build(name)
    ours = {weight.data_ptr() for weight in method.parameters()}
    exported = StudentNetwork(STUDENT).state_dict()
    assert not any(name.partition(".")[0] not in ("encoder", "motion") for name in exported)
    assert all(weight.requires_grad for weight in method.parameters())
    assert not ours & {weight.data_ptr() for weight in upper_layers().parameters()}


def test_unknown_methods_are_refused():
    with pytest.raises(InputError, match="known are labels, features"):
        build_methods(("magic",), ground(), MethodConfigs())
    with pytest.raises(InputError, match="twice"):
        build_methods(("ofa", "ofa"), ground(), MethodConfigs())


def test_beta_nll_is_plain_nll_at_zero_and_squared_error_at_one():
    target, mean, log_variance = (torch.randn(50, dtype=torch.float64) for _ in range(3))
    mean.requires_grad_()
    plain = -torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(target)
    constant = plain - gaussian_nll(target, mean, log_variance)
    assert torch.allclose(constant, constant[0])
    gaussian_nll(target, mean, log_variance, 1.0).sum().backward()
    assert torch.allclose(mean.grad, mean.detach() - target)


def test_gradients_are_matched_where_both_have_one():
    at = torch.randn(7, requires_grad=True)
    loss, others = (at**2).sum(), [at.sum(), 3 * at.sum()]
    scale = match_gradient(loss, others, at, 0.3)
    ours, theirs = (torch.autograd.grad(one, at)[0].norm() for one in (scale * loss, sum(others)))
    assert ours.item() == pytest.approx(0.3 * theirs.item(), rel=1e-5)
    assert match_gradient(torch.randn(1, requires_grad=True).sum(), [at.sum()], at, 0.3) == 1


def test_targets_are_labels_or_what_the_teacher_is_sure_of():
    _, teacher, data = batch()
    sure = torch.zeros(CLIPS, FRAMES, CLASSES)
    sure[..., 7] = 9.0
    for logits, counts in ((sure, True), (torch.zeros_like(sure), False)):
        target, known = data.targets(logits)
        is_labelled = data.labels >= 0
        assert torch.equal(target[is_labelled], data.labels[is_labelled]) and known[is_labelled].all()
        assert (known[~is_labelled] == counts).all() and (~is_labelled).any()
    assert (data.targets(sure)[0][data.labels < 0] == 7).all()


def test_divergence_is_zero_for_equal_logits_alone():
    logits = torch.randn(5, CLASSES)
    assert kl_divergence(logits, logits, 2).abs().max() < 1e-6
    assert (kl_divergence(logits, logits.flip(-1), 2) > 0).all()
