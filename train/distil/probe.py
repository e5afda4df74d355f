"""The phone probe: a small classifier on the teacher's frozen features, whose posteriors teach phones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.core.errors import InputError
from kdtalker.weights.checkpoint import read_checkpoint, write_checkpoint
from kdtalker.weights.strict import load_strictly
from train.distil.cache import TeacherRecord
from train.distil.phones import PHONES, known

SMOOTHING = 0.05  # of labels
ROWS, LEARNING_RATE = 512, 1e-3  # frames of a step


class PhoneProbe(nn.Module):
    """Map features (..., F) to logits (..., C): normalised, dropout, one hidden layer."""

    def __init__(self, features: int, hidden: int = 256, dropout: float = 0.2) -> None:
        super().__init__()
        self.dimensions = {"features": features, "hidden": hidden}
        self.layers = nn.Sequential(
            nn.LayerNorm(features), nn.Dropout(dropout), nn.Linear(features, hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, len(PHONES)),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers(features)
        return logits

    def save(self, path: Path) -> None:
        """Write the probe as safetensors."""
        write_checkpoint(path, self.state_dict(), {"probe": self.dimensions}, half=False)

    @staticmethod
    def load(path: Path) -> PhoneProbe:
        """Read what `save` wrote, for inference. Raises InputError where the file is missing or another model's."""
        header, state = read_checkpoint(path, ("probe",))
        return load_strictly(lambda: PhoneProbe(**header["probe"]), state, path)


def fit_probe(records: list[TeacherRecord], steps: int, seed: int = 0) -> PhoneProbe:
    """Train a probe on the labelled frames of the training split, speakers weighted alike. Raises InputError where
    there are none."""
    taught = [record for record in records if record.split == "train" and known(record.labels).any()]
    if not taught:
        raise InputError("No clip for training has labels; cache sounds with their words (--transcripts).")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    probe = PhoneProbe(taught[0].features.shape[1]).train()
    optimiser = torch.optim.AdamW(probe.parameters(), LEARNING_RATE, weight_decay=0.02)
    speakers = sorted({record.speaker for record in taught})
    frames = {id(record): np.flatnonzero(known(record.labels)) for record in taught}
    by_speaker = {speaker: [one for one in taught if one.speaker == speaker] for speaker in speakers}
    for step in range(steps):
        rows, labels = [], []
        for speaker in rng.choice(speakers, 16):
            clips = by_speaker[speaker]
            record = clips[rng.integers(len(clips))]
            chosen = np.sort(rng.choice(frames[id(record)], ROWS // 16))
            rows.append(record.features[chosen].astype(np.float32))
            labels.append(record.labels[chosen].astype(np.int64))
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / steps)
        logits = probe(torch.from_numpy(np.concatenate(rows)))
        loss = F.cross_entropy(logits, torch.from_numpy(np.concatenate(labels)), label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return probe.eval().requires_grad_(False)
