"""Label the frames of speech whose words are known: transcripts in files, phones by forced alignment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.rates import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from train.distil.distiller import UNLABELLED
from train.distil.phones import frame_labels
from train.evaluate.closures import align_phones, read_transcript

Segment = tuple[float, float, str]  # start and end in seconds, words


def read_segments(sound: Path, duration_s: float) -> list[Segment]:
    """Read the words beside a sound: GRID's .align, or a .txt of START, END, TEXT a line, separated by tabs, or of
    words alone; none where there is neither file. Raises InputError for another file."""
    aligned, text = sound.with_suffix(".align"), sound.with_suffix(".txt")
    if aligned.exists():
        return [(0.0, duration_s, read_transcript(aligned))]
    if not text.exists():
        return []
    lines = [line.split("\t") for line in text.read_text("utf-8").splitlines() if line.strip()]
    try:
        if lines and all(len(line) == 3 for line in lines):
            return [(float(start), float(end), words) for start, end, words in lines]
    except ValueError:
        raise InputError(f"'{text}' has a line whose times are no numbers, wanted START, END, TEXT.") from None
    return [(0.0, duration_s, " ".join(word for line in lines for word in line))]


def label_frames(samples: Array, segments: list[Segment], frames: int) -> NDArray[np.int8]:
    """Label frames (T,) of a sound (N,) by forced alignment of each segment; those outside, and of segments that cannot
    be aligned, stay unlabelled."""
    labels = np.full(frames, UNLABELLED, np.int8)
    for start_s, end_s, text in segments:
        first, last = round(start_s * FRAME_RATE_HZ), min(round(end_s * FRAME_RATE_HZ), frames)
        heard = samples[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]
        try:
            phones = align_phones(heard, clean_words(text))
        except RuntimeError:  # a word that is not in the dictionary, or another text
            continue
        offset_s = start_s - first / FRAME_RATE_HZ
        moved = [replace(one, start_s=one.start_s + offset_s, end_s=one.end_s + offset_s) for one in phones]
        if last > first and moved:
            labels[first:last] = frame_labels(moved, last - first)
    return labels


def clean_words(text: str) -> str:
    """Keep the words of a text, in small letters."""
    kept = "".join(letter if letter.isalpha() or letter == "'" else " " for letter in text.lower())
    return " ".join(kept.split())
