"""What distillation methods are built from and fed with, small and random."""

from dataclasses import replace

import torch

from kdtalker.audio.causal_config import CausalEncoderConfig
from kdtalker.audio.whisper_network import WhisperBlock
from kdtalker.diffusion.causal.header import StudentConfig
from kdtalker.diffusion.denoiser import Denoiser
from train.distil.distiller import UNLABELLED, DistilBatch, Rollout, StudentOutput, TeacherOutput
from train.distil.methods.talking import UpperLayers
from train.distil.phones import PHONES
from train.distil.registry import Ground
from train.motion.recipe import OURS

CLASSES, CLIPS, FRAMES, SAMPLES, LAYER = len(PHONES), 3, 12, 4, 8
FEATURES = 6 * LAYER
STUDENT = StudentConfig(CausalEncoderConfig((8, 8, 12, 16)), inputs=16, hidden=24, noise=8)
DENOISER = replace(OURS, width=16, layers=1, heads=2, head_width=8, rotary_width=4, time_width=8, audio_width=8,
                   adapter_blocks=1, audio_input=FEATURES, window=FRAMES, context=2, overlap=2, dropout=0)  # fmt: skip


def upper_layers():
    torch.manual_seed(11)
    return UpperLayers([WhisperBlock(LAYER, 2) for _ in range(2)], torch.nn.LayerNorm(LAYER))


def probe():
    torch.manual_seed(12)
    return torch.nn.Sequential(torch.nn.LayerNorm(FEATURES), torch.nn.Linear(FEATURES, CLASSES))


def denoiser():
    torch.manual_seed(13)
    return Denoiser(DENOISER)


def codes(count):
    generator = torch.Generator().manual_seed(14)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64).to(torch.get_default_dtype())


def ground(**changes):
    generator = torch.Generator().manual_seed(0)
    rows = (torch.randn(63, 3, generator=generator, dtype=torch.float64) / 8).to(torch.get_default_dtype())
    parts = torch.ones(70), rows, rows.mean(1), torch.ones(6)
    return replace(Ground(STUDENT, FEATURES, *parts, 2.0, 2.0, probe, upper_layers, denoiser, codes), **changes)


def batch(seed=0, dtype=torch.float32):
    """The batch, and what the teacher and the student make of it, student tensors with gradients."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    labels = torch.randint(CLASSES, (CLIPS, FRAMES), generator=generator)
    labels[:, ::4] = UNLABELLED
    features, samples = random(CLIPS, FRAMES, FEATURES), random(CLIPS, SAMPLES, FRAMES, 70)
    data = DistilBatch(
        random(CLIPS, 4 * (FRAMES + 4), 80), labels, random(CLIPS, FRAMES, 70),
        torch.tensor([1.0, 0.0, 1.0], dtype=dtype), random(CLIPS, 133), features, samples,
        random(CLIPS, 1 + SAMPLES, 70),
    )  # fmt: skip
    teacher = TeacherOutput(features.clone(), random(CLIPS, FRAMES, CLASSES), samples.clone(), samples.clone())
    widths, steps = STUDENT.encoder.widths, STUDENT.encoder.steps
    stages = tuple(random(CLIPS, FRAMES * n, width).requires_grad_() for n, width in zip(steps, widths, strict=True))
    motion = [random(CLIPS, FRAMES, 70).requires_grad_() for _ in range(2)]
    rollouts = Rollout(*(random(CLIPS, SAMPLES, FRAMES, 70) for _ in range(3)))
    rollouts.mean.requires_grad_()
    student = StudentOutput(
        stages, random(CLIPS, FRAMES, CLASSES).requires_grad_(), random(CLIPS, FRAMES, 24).requires_grad_(), *motion,
        random(CLIPS, SAMPLES, FRAMES, 70).requires_grad_(), rollouts,
    )  # fmt: skip
    return student, teacher, data
