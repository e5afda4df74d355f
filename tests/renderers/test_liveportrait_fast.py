"""The networks as they run against the published layout's modules, on small maps: the same numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdtalker.renderers.liveportrait.fast.cpu import ShiftedSumConv, transform_generator, transform_warping
from kdtalker.renderers.liveportrait.fast.modules import optimize_generator, optimize_warping
from kdtalker.renderers.liveportrait.fast.transform_conv import TransformConv, dft, winograd
from kdtalker.renderers.liveportrait.fast.upsample_conv import CompactMapConv, Upsample2xConv, Upsample4xConv
from kdtalker.renderers.liveportrait.nets.generator import SpadeGenerator
from kdtalker.renderers.liveportrait.nets.warping import WarpingModule


def seeded(make):
    """A network with weights and statistics of its own, in eval mode."""
    torch.manual_seed(0)
    network = make()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("make", [nn.Conv2d, nn.Conv3d])
def test_a_convolution_over_a_doubled_map(make):
    plain = seeded(lambda: make(3, 5, 3, padding=1))
    x = torch.randn(2, 3, 4, 6, 5) if make is nn.Conv3d else torch.randn(2, 3, 6, 5)
    scale = (1, 2, 2) if make is nn.Conv3d else 2
    wanted = plain(F.interpolate(x, scale_factor=scale))
    torch.testing.assert_close(Upsample2xConv(plain)(x), wanted, atol=1e-5, rtol=1e-5)


def test_a_convolution_over_a_quadrupled_map_and_one_over_that():
    first, second = seeded(lambda: nn.Conv2d(3, 5, 3, padding=1)), seeded(lambda: nn.Conv2d(5, 2, 3, padding=1))
    x = torch.randn(2, 3, 6, 5)
    large = first(F.interpolate(x, scale_factor=4))
    compact = Upsample4xConv(first)(x)
    places = torch.arange(large.shape[-1]).view(-1, 4)[:, [0, 1, 3]].flatten()
    rows = torch.arange(large.shape[-2]).view(-1, 4)[:, [0, 1, 3]].flatten()
    torch.testing.assert_close(compact, large[..., rows, :][..., places], atol=1e-5, rtol=1e-5)
    wanted = second(large)
    found = torch.full_like(wanted, torch.nan)
    for row, column, values in CompactMapConv(second)(compact):
        found[..., row::4, column::4] = values
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [nn.Conv2d, nn.Conv3d])
@pytest.mark.parametrize(("taps", "transform"), [(3, winograd()), (7, dft(14, 7))])
@pytest.mark.parametrize("strip_bytes", [1, 2**20])
def test_a_convolution_in_a_transform_domain(monkeypatch, make, taps, transform, strip_bytes):
    monkeypatch.setattr("kdtalker.renderers.liveportrait.fast.transform_conv.STRIP_BYTES", strip_bytes)
    plain = seeded(lambda: make(3, 5, taps, padding=taps // 2))
    x = torch.randn(2, 3, *((4,) if make is nn.Conv3d else ()), 2 * transform.step, 3 * transform.step)
    found = TransformConv(plain.weight, plain.bias, transform)(x)
    torch.testing.assert_close(found, plain(x), atol=2e-5, rtol=1e-5)


def test_a_transformed_convolution_over_a_quadrupled_map():
    first, second = seeded(lambda: nn.Conv2d(3, 5, 3, padding=1)), seeded(lambda: nn.Conv2d(5, 2, 3, padding=1))
    x = torch.randn(2, 3, 6, 5)
    wanted = second(first(F.interpolate(x, scale_factor=4)))
    found = TransformConv(second.weight, second.bias, winograd(compact=True))(Upsample4xConv(first)(x))
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


def test_a_convolution_with_few_outputs():
    plain = seeded(lambda: nn.Conv2d(6, 2, 7, padding=3))
    x = torch.randn(2, 6, 8, 9)
    torch.testing.assert_close(ShiftedSumConv(plain)(x), plain(x), atol=1e-5, rtol=1e-5)


def for_cpu(optimize, transform):
    """What the engine runs on a CPU in float32."""

    def build(plain):
        network = optimize(plain)
        transform(network)
        assert any(isinstance(module, TransformConv) for module in network.modules())
        return network

    return build


@pytest.mark.parametrize("optimize", [optimize_generator, for_cpu(optimize_generator, transform_generator)])
@torch.inference_mode()
def test_the_generator_paints_the_same(optimize):
    plain = seeded(SpadeGenerator)
    features = torch.randn(2, 256, 8, 8)
    wanted, found = plain(features), optimize(plain)(features)
    assert wanted.shape == (2, 3, 64, 64)
    assert wanted.std() > 1e-3
    assert (found - wanted).abs().max() < 1e-3 * wanted.std()


@pytest.mark.parametrize("optimize", [optimize_warping, for_cpu(optimize_warping, transform_warping)])
@torch.inference_mode()
def test_the_warping_module_gives_the_same(optimize):
    plain = seeded(WarpingModule)
    fast = optimize(plain)
    volume, source = torch.randn(1, 32, 16, 32, 32), torch.rand(1, 21, 3) - 0.5
    driving = source + 0.1 * torch.randn(2, 21, 3)
    wanted = plain(volume, driving, source)
    found = fast(volume, driving, source, fast.dense_motion_network.prepare(volume, source))
    for one, other in zip(wanted, found, strict=True):
        assert (one - other).abs().max() < 1e-3 * one.std()
    assert isinstance(plain.third.norm, nn.BatchNorm2d)  # the plain one stays as it was
