"""The networks as they run against the published layout's modules, on small maps: the same numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdtalker.renderers.liveportrait.fast.modules import optimize_generator, optimize_warping
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


@torch.inference_mode()
def test_the_generator_paints_the_same():
    plain = seeded(SpadeGenerator)
    features = torch.randn(2, 256, 8, 8)
    wanted, found = plain(features), optimize_generator(plain)(features)
    assert wanted.shape == (2, 3, 64, 64)
    assert wanted.std() > 1e-3
    assert (found - wanted).abs().max() < 1e-3 * wanted.std()


@torch.inference_mode()
def test_the_warping_module_gives_the_same():
    plain = seeded(WarpingModule)
    fast = optimize_warping(plain)
    volume, source = torch.randn(1, 32, 16, 32, 32), torch.rand(1, 21, 3) - 0.5
    driving = source + 0.1 * torch.randn(2, 21, 3)
    wanted = plain(volume, driving, source)
    found = fast(volume, driving, source, fast.dense_motion_network.prepare(volume, source))
    for one, other in zip(wanted, found, strict=True):
        assert (one - other).abs().max() < 1e-3 * one.std()
    assert isinstance(plain.third.norm, nn.BatchNorm2d)  # the plain one stays as it was
