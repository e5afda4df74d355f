"""Figures of closing lips on mouths and sounds with a known answer."""

from pathlib import Path

import numpy as np

from kdtalker.media.sound import read_sound
from train.evaluate.closures import MouthOpenings, Phone, align_phones, read_transcript

EXAMPLES = Path(__file__).parents[2] / "examples"
PHONES = [Phone("SIL", 0, 1), Phone("B", 1, 1.1), Phone("AA", 1.1, 1.6), Phone("M", 1.6, 1.7), Phone("SIL", 1.7, 1.9)]


def test_lips_that_close_in_time_are_seen_and_late_ones_are_not():
    opening = np.full(50, 0.2)
    opening[:24], opening[28] = 0.01, 0.02
    found = MouthOpenings.of(opening, PHONES)
    assert found.closing.tolist() == [0.02, 0.2]
    assert len(found.vowels) == 1 and found.vowels[0] > 0.1
    assert (found.silence == 0.01).all() and 14 <= len(found.silence) <= 17
    assert "at 50 % of 2 p, b, m" in found.describe(0.05) and "in 100 % of" in found.describe(0.05)


def test_the_threshold_lies_between_closed_and_open():
    found = MouthOpenings(np.array([0.01, 0.02, 0.03]), np.array([0.02, 0.1, 0.2]), np.zeros(0))
    assert found.threshold() == 0.03


def test_a_sentence_is_aligned_with_its_sound():
    samples = np.concatenate(list(read_sound(EXAMPLES / "austen_0890.wav")))
    phones = align_phones(samples, (EXAMPLES / "austen_0890.txt").read_text())
    assert [phone.name for phone in phones if phone.name in "PBM"] == ["B", "B", "P"]
    assert phones[0].start_s == 0 and abs(phones[-1].end_s - len(samples) / 16_000) < 0.1


def test_read_transcript_grid_are_read(tmp_path):
    (tmp_path / "one.align").write_text("0 23750 sil\n23750 29500 bin\n29500 34000 blue\n53000 74500 sil\n")
    assert read_transcript(tmp_path / "one.align") == "bin blue"
