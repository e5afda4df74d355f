"""The published method as one plain loop, from sound to keypoints, after its papers: no code of the package is in it.

KDTalker (arXiv 2503.12963), Wav2Lip's audio encoder (arXiv 2008.10010), DDIM (arXiv 2010.02502), LivePortrait (arXiv
2407.03168). Networks are state dicts; shapes stand at the lines.
"""

import math

import librosa
import numpy as np
import scipy.signal
import torch
import torch.nn.functional as F

WINDOW, STEPS, TRAIN_STEPS = 64, 50, 1000
# Inputs to outputs with kernel, stride (mel, time) and padding; "r" adds the input.
WAV2LIP = ("1 32 3 1 1 1", "32 32 3 1 1 1 r", "32 32 3 1 1 1 r", "32 64 3 3 1 1", "64 64 3 1 1 1 r", "64 64 3 1 1 1 r",
           "64 128 3 3 3 1", "128 128 3 1 1 1 r", "128 128 3 1 1 1 r", "128 256 3 3 2 1", "256 256 3 1 1 1 r",
           "256 512 3 1 1 0", "512 512 1 1 1 0")  # fmt: skip
DRIVEN = {**{point: "xyz" for point in (1, 2, 6, *range(11, 21))}, 3: "y", 4: "y", 5: "z", 8: "z", 9: "yz"}


# --- sound ----------------------------------------------------------------------------------------------------------


def features(samples, state):
    """Samples at 16 kHz to (T, 512), T = int(samples / 640)."""
    samples = samples[: len(samples) // 640 * 640]
    emphasised = scipy.signal.lfilter([1, -0.97], [1], samples)
    spectrum = np.abs(librosa.stft(emphasised, n_fft=800, hop_length=200, win_length=800, pad_mode="constant"))
    bands = librosa.filters.mel(sr=16_000, n_fft=800, n_mels=80, fmin=55, fmax=7600) @ spectrum
    decibels = 20 * np.log10(np.maximum(1e-5, bands)) - 20
    mel = np.clip(8 * (decibels + 100) / 100 - 4, -4, 4)  # (80, columns)
    seen = []
    for frame in range(len(samples) // 640):
        first = int(80 * (frame - 2) / 25)
        seen.append(mel[:, [min(max(first + i, 0), mel.shape[1] - 1) for i in range(16)]])
    x = torch.tensor(np.stack(seen)[:, None], dtype=torch.float32)
    for number, layer in enumerate(WAV2LIP):
        _, _, _, down, across, padding, *residual = layer.split()
        name = f"module.audio_encoder.{number}.conv_block"
        h = F.conv2d(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"], (int(down), int(across)), int(padding))
        norm = [state[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        h = F.batch_norm(h, *norm, eps=1e-5)
        x = F.relu(h + x if residual else h)
    return x.flatten(1).numpy()


# --- motion ---------------------------------------------------------------------------------------------------------


def linear(state, name, x):
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def noise_in(tokens, timestep, audio, state):
    """The denoiser: tokens (66, 70) and audio (66, 512) to the noise in them (66, 70)."""
    width = len(state["input.weight"])
    rates = [math.exp(-math.log(10_000) * i / (width // 2 - 1)) for i in range(width // 2)]
    sinusoid = [math.sin(timestep * rate) for rate in rates] + [math.cos(timestep * rate) for rate in rates]
    time = linear(state, "time.2", F.silu(linear(state, "time.0", torch.tensor(sinusoid))))
    condition = F.silu(torch.cat([time.expand(len(tokens), -1), audio], dim=1))
    bias = state["position_bias.weight"][BUCKETS].permute(2, 0, 1)  # (heads, query, key)
    h = linear(state, "input", tokens)
    layer = 0
    while f"layers.{layer}.first.norm.weight" in state:
        for block in (f"layers.{layer}.first", f"layers.{layer}.second"):
            scale, shift = linear(state, f"{block}.modulation", condition).chunk(2, dim=1)
            inside = normalised(state, f"{block}.norm", linear(state, f"{block}.input", h))
            h = h + F.silu(linear(state, f"{block}.output", F.silu(inside * (scale + 1) + shift)))
        h = h + attended(state, f"layers.{layer}.attention", h, bias)
        layer += 1
    return linear(state, "output", h)


def normalised(state, name, x):
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def bucket(relative):
    n = -relative
    near = abs(n)
    far = min(15, 8 + int(math.log(near / 8) / math.log(16) * 8)) if near >= 8 else near
    return (16 if n < 0 else 0) + far


BUCKETS = torch.tensor([[bucket(key - query) for key in range(66)] for query in range(66)])


def attended(state, name, x, bias):
    heads = len(bias)
    qkv = linear(state, f"{name}.qkv", normalised(state, f"{name}.norm", x))
    q, k, v = (part.view(len(x), heads, -1).transpose(0, 1) for part in qkv.chunk(3, dim=1))
    q, k = rotated(q / math.sqrt(q.shape[-1]), state), rotated(k, state)
    weights = torch.softmax(q @ k.transpose(1, 2) + bias, dim=-1)
    return linear(state, f"{name}.output", (weights @ v).transpose(0, 1).flatten(1))


def rotated(x, state):
    """(heads, 66, head width): the first channels of each head turned in pairs by the token's position."""
    turned = x.clone()
    for pair, frequency in enumerate(state["rotary_frequencies"]):
        angle = torch.arange(x.shape[1]) * frequency
        a, b = x[..., 2 * pair], x[..., 2 * pair + 1]
        turned[..., 2 * pair] = a * angle.cos() - b * angle.sin()
        turned[..., 2 * pair + 1] = b * angle.cos() + a * angle.sin()
    return turned


def sampled(source, sound, filler, model, seed):
    """A source's canonical keypoints (63,) and motion (70,), and features (T, 512), to motion (T, 70) in windows of 64
    frames; the last one's features are continued by `filler` (n, 512). model: state dict and normalisation."""
    (canonical, portrait), (state, norm) = source, model
    kept = np.cumprod(1 - np.linspace(1e-5, 8e-3, TRAIN_STEPS))
    reference = (portrait - norm["mean"]) / norm["std"]
    leading = np.concatenate([np.zeros(7), (canonical - norm["canonical_mean"]) / norm["canonical_std"]])
    frames = []
    for first in range(0, len(sound), WINDOW):
        heard = np.concatenate([sound[first : first + WINDOW], filler])[:WINDOW]
        audio = torch.tensor(np.concatenate([np.zeros((2, 512)), heard]), dtype=torch.float32)
        rows = [np.random.default_rng((seed, first + i)).standard_normal(70, np.float32) for i in range(WINDOW)]
        x, before = torch.tensor(np.stack(rows)), torch.tensor(np.stack([leading, reference]), dtype=torch.float32)
        for timestep in range(TRAIN_STEPS - TRAIN_STEPS // STEPS, -1, -TRAIN_STEPS // STEPS):
            noise = noise_in(torch.cat([before, x]), timestep, audio, state)[2:]
            now, later = kept[timestep], kept[timestep - TRAIN_STEPS // STEPS] if timestep else 1.0
            clean = (x - math.sqrt(1 - now) * noise) / math.sqrt(now)
            x = math.sqrt(later) * clean + math.sqrt(1 - later) * noise
        frames.append(x.double().numpy())
        reference = frames[-1][-1]
    return np.concatenate(frames)[: len(sound)] * norm["std"] + norm["mean"]


def smoothed(motion):
    """Forward and backward over the whole film, every channel but the scale."""
    means, variances, predicted = [motion[0, 1:]], [1.0], [None]
    variances[0] = 1 / (1 / 1.0 + 1 / 0.001)
    for row in motion[1:, 1:]:
        predicted.append(variances[-1] + 0.05)
        gain = predicted[-1] / (predicted[-1] + 0.001)
        means.append(means[-1] + gain * (row - means[-1]))
        variances.append((1 - gain) * predicted[-1])
    for i in range(len(means) - 2, -1, -1):
        means[i] = means[i] + variances[i] / predicted[i + 1] * (means[i + 1] - means[i])
    return np.column_stack([motion[:, 0], np.stack(means)])


# --- keypoints ------------------------------------------------------------------------------------------------------


def rotation(yaw, pitch, roll):
    x, y, z = math.radians(pitch), math.radians(yaw), math.radians(roll)
    about_x = np.array([[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]])
    about_y = np.array([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    about_z = np.array([[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).T


def parts(vector):
    """(70,) to scale, R (3, 3), t (3,), expression (21, 3)."""
    return vector[0], rotation(*vector[1:4]), vector[4:7], vector[7:].reshape(21, 3)


def relative(driving, first, source):
    """Parts of a frame, of the driver's first one and of the source to those that are drawn."""
    (s_i, r_i, t_i, e_i), (s_0, r_0, t_0, e_0), (s_s, r_s, t_s, e_s) = driving, first, source
    return s_s * s_i / s_0, r_i @ r_0.T @ r_s, t_s + (t_i - t_0), e_s + (e_i - e_0)


def absolute_speech(driving, source):
    return source[0], *driving[1:]


def absolute_film(driving, source):
    expression = source[3].copy()
    for point, axes in DRIVEN.items():
        for axis in axes:
            expression[point, "xyz".index(axis)] = driving[3][point, "xyz".index(axis)]
    return source[0], driving[1], driving[2], expression


def keypoints(canonical, moved):
    scale, turn, shift, expression = moved
    points = scale * (canonical @ turn + expression)
    points[:, :2] += shift[:2]
    return points


def perceptron(state, x):
    x, names = torch.tensor(x, dtype=torch.float32), sorted({name.rsplit(".", 1)[0] for name in state})
    for name in sorted(names, key=lambda name: int(name.split(".")[1])):
        x = linear(state, name, x)
        x = x if name == f"mlp.{2 * len(names) - 2}" else F.relu(x)
    return x.numpy()


def stitched(source, driving, state):
    moved = perceptron(state, np.concatenate([source.ravel(), driving.ravel()]))
    fitted = driving + moved[:63].reshape(21, 3)
    fitted[:, :2] += moved[63:]
    return fitted
