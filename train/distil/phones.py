"""The phone set: 39 phones of English (CMUdict) and silence, their visemes, and labels a frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.rates import FRAME_RATE_HZ
from train.distil.distiller import UNLABELLED

if TYPE_CHECKING:
    from train.evaluate.closures import Phone

SILENCE = "SIL"
# Phones that look alike on the lips: twelve groups, after Jeffers and Barley's.
VISEMES = (
    ("P", "B", "M"), ("F", "V"), ("TH", "DH"), ("T", "D", "S", "Z", "N"), ("L",), ("SH", "ZH", "CH", "JH"),
    ("K", "G", "NG", "HH"), ("R", "ER"), ("W", "UW", "UH", "OW", "OY", "AO"), ("AA", "AH", "AW", "AY"),
    ("AE", "EH", "EY", "IH", "IY", "Y"), (SILENCE,),
)  # fmt: skip
PHONES = tuple(sorted({phone for group in VISEMES for phone in group} - {SILENCE})) + (SILENCE,)
BILABIALS = ("P", "B", "M")
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")


def phone_ids(phones: Iterable[str]) -> list[int]:
    """Return the class numbers of phones by name."""
    return [PHONES.index(phone) for phone in phones]


def viseme_of_phone() -> NDArray[np.int64]:
    """Return the viseme (40,) of each phone."""
    return np.array([next(i for i, group in enumerate(VISEMES) if phone in group) for phone in PHONES])


def frame_labels(phones: list[Phone], frames: int) -> NDArray[np.int64]:
    """Label frames (T,) by the phone that covers most of each, silence where there is none."""
    covered = np.zeros((frames, len(PHONES)))
    edges = np.arange(frames + 1) / FRAME_RATE_HZ
    for phone in phones:
        name = phone.name if phone.name in PHONES else SILENCE
        overlap = np.minimum(edges[1:], phone.end_s) - np.maximum(edges[:-1], phone.start_s)
        covered[:, PHONES.index(name)] += np.maximum(overlap, 0)
    covered[:, -1] += 1e-6
    labels: NDArray[np.int64] = covered.argmax(1)
    return labels


def is_border(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Find frames (T,) within one frame of a change of phone."""
    changed = np.append(labels[1:] != labels[:-1], False)
    return np.asarray(changed | np.append(False, changed[:-1]), bool)


def known(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Find labelled frames."""
    return np.asarray(labels != UNLABELLED, bool)
