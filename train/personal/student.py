"""The student that a person's change is trained of, with all that it takes to hear a film as it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdtalker.audio.causal import mel_of_sound
from kdtalker.audio.whisper import load_mel_filters
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MESH_SPACE
from kdtalker.core.rates import SAMPLES_PER_FRAME, frame_count
from kdtalker.diffusion.causal.header import read_student_header
from kdtalker.diffusion.causal.network import StudentNetwork, load_network
from kdtalker.diffusion.causal.personal import holds_person
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.media.sound import read_sound
from train.distil.cache import SOUNDS
from train.motion.dataset import mouth_projections


@dataclass(frozen=True)
class BaseStudent:
    """Hold a student of everybody: network, normalisation, mel filters (80, 201), and mouth (n, 63): projections of a
    normalised expression to lip gaps."""

    network: StudentNetwork
    normalisation: Normalisation
    filters: Array
    mouth: Array

    @staticmethod
    def load(path: Path) -> BaseStudent:
        """Load a student. Raises InputError for another file and for a student that already is somebody's."""
        normalisation = read_student_header(path).normalisation
        if holds_person(path):
            raise InputError(f"'{path}' already holds somebody's own way of talking; give the student it was made of.")
        mouth = (mouth_projections(MESH_SPACE, []) * normalisation.std[7:]).astype(np.float32)
        return BaseStudent(load_network(path), normalisation, load_mel_filters(), mouth)

    @torch.no_grad()
    def encode(self, sound: Array) -> Tensor:
        """Encode a whole sound (N,) into features (T, C), silence before and after it."""
        frames = frame_count(len(sound)) + self.network.config.encoder.lookahead_frames
        samples = np.pad(np.asarray(sound, np.float32), (0, frames * SAMPLES_PER_FRAME - len(sound)))
        columns = torch.from_numpy(mel_of_sound(samples, self.filters))[None]
        features: Tensor = self.network.encoder(columns)[-1][0]
        return features

    def encode_files(self, places: list[Path]) -> list[Tensor]:
        """Encode sounds of files and folders into features (T, C). Raises InputError where there is none."""
        paths: list[Path] = []
        for place in places:
            if not place.exists():
                raise InputError(f"'{place}' does not exist, wanted a sound or a folder of sounds.")
            inside = sorted(path for path in place.rglob("*") if path.suffix in SOUNDS)
            paths += inside if place.is_dir() else [place]
        if not paths:
            raise InputError(f"No sound was found in {', '.join(map(str, places))}.")
        return [self.encode(np.concatenate(list(read_sound(path)))) for path in paths]
