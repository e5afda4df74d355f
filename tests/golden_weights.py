"""Weights and inputs that anyone can regenerate: each is drawn from its name."""

import zlib

import numpy as np
import torch

TOLERANCE = 1e-4  # of an array's standard deviation


def generator(tag):
    return np.random.default_rng(zlib.crc32(tag.encode()))


def standard_normal(tag, *shape):
    return torch.from_numpy(generator(tag).standard_normal(shape).astype(np.float32))


def regenerate(name, shape):
    """The tensor that a checkpoint's `name` is filled with: drawn from its name, scaled by its kind."""
    kind = name.rsplit(".", 1)[1]
    if kind == "freqs":
        return 10000.0 ** -(torch.arange(0, 2 * shape[0], 2, dtype=torch.float32) / (2 * shape[0]))
    if kind in ("freq_bands", "num_batches_tracked"):
        return torch.zeros(shape)
    values = generator(name).standard_normal(shape)
    if kind == "running_var":
        values = 1 + 0.1 * np.abs(values)
    elif kind in ("bias", "beta", "running_mean"):
        values = 0.1 * values
    elif kind == "weight_v":
        values = values / np.linalg.norm(values)
    elif kind == "gamma" or (kind == "weight" and len(shape) == 1):
        values = 1 + 0.1 * values
    else:
        values = values * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def regenerate_all(layout):
    """A whole state dict. The weight_u of a spectral norm follows from its weight_orig and weight_v."""
    state = {name: regenerate(name, shape) for name, shape in layout.items() if not name.endswith("weight_u")}
    for name in layout:
        if name.endswith("weight_u"):
            weight = state[name.replace("weight_u", "weight_orig")].flatten(1).double()
            turned = weight @ state[name.replace("weight_u", "weight_v")].double()
            state[name] = (turned / turned.norm()).float()
    return state


def assert_golden(outputs, name, found):
    """Found numbers (a tensor) against a small array, or against an array's values at some places."""
    if f"{name}/index" not in outputs:
        wanted = outputs[f"{name}/value"]
        spread = wanted.std() if wanted.size > 1 else np.abs(wanted).max()
        assert tuple(found.shape) == wanted.shape
        assert np.abs(found.numpy() - wanted).max() <= TOLERANCE * spread
        return
    assert errors_in_stds(outputs, name, found).max() <= TOLERANCE


def errors_in_stds(outputs, name, found):
    """Of a large array, at the places that are known; the whole one's shape, mean and spread are looked at too."""
    spread, whole = outputs[f"{name}/std"], found.numpy().astype(np.float64)
    assert list(found.shape) == outputs[f"{name}/shape"].tolist()
    assert abs(whole.mean() - outputs[f"{name}/mean"]) <= TOLERANCE * spread
    assert abs(whole.std() - spread) <= TOLERANCE * spread
    return np.abs(found.numpy().ravel()[outputs[f"{name}/index"]] - outputs[f"{name}/value"]) / spread
