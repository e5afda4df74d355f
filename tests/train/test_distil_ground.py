"""The ground of distillation: labels, figures, codebook, probe, cached teacher."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_shards import shard
from toy_training import command

from kdtalker.core.errors import InputError
from kdtalker.core.pcm import encode_wav
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.media.sound import read_sound
from train.distil.alignment import clean_words, read_segments
from train.distil.cache import TeacherRecord, encode_clip, find_clips, load_records, load_teacher
from train.distil.ceiling import measure_teacher
from train.distil.codebook import fit_codebook, quantise
from train.distil.distiller import UNLABELLED
from train.distil.figures import best_delay, bootstrap_interval, calibration_error, linear_cka, phone_figures, softmax
from train.distil.methods.codes import code_logits
from train.distil.phones import PHONES, SILENCE, VISEMES, frame_labels, is_border, viseme_of_phone
from train.distil.probe import PhoneProbe, fit_probe
from train.evaluate.closures import Phone

RNG = np.random.default_rng(3)


def record(name="a", frames=60, split="train", width=24):
    labels = np.repeat(RNG.integers(0, 40, frames // 4), 4).astype(np.int8)
    features = RNG.standard_normal((frames, width)).astype(np.float16)
    features[np.arange(frames), labels % width] += 6
    return TeacherRecord(
        name, f"speaker {name}", split, (0.1 * RNG.standard_normal(640 * frames)).astype(np.float16), labels,
        RNG.standard_normal((frames, 70)).astype(np.float32), True, RNG.standard_normal(133).astype(np.float32),
        features, RNG.standard_normal((3, frames, 70)).astype(np.float16),
    )  # fmt: skip


def test_every_phone_has_one_viseme():
    assert len(PHONES) == 40 and PHONES[-1] == SILENCE and sum(map(len, VISEMES)) == 40
    assert sorted(set(viseme_of_phone())) == list(range(len(VISEMES)))


def test_frames_are_labelled_by_what_covers_most_of_them():
    labels = frame_labels([Phone("B", 0.04, 0.11), Phone("AA", 0.11, 0.16), Phone("(NULL)", 0.16, 0.2)], 6)
    assert [PHONES[label] for label in labels] == [SILENCE, "B", "B", "AA", SILENCE, SILENCE]
    assert is_border(labels).tolist() == [True, True, True, True, True, False]


def test_words_are_read_from_what_lies_beside_a_sound(tmp_path):
    sound = tmp_path / "a.ogg"
    assert read_segments(sound, 3) == []
    (tmp_path / "a.txt").write_text("0.5\t1.5\tBin blue.\n2\t3\tat F!\n")
    assert read_segments(sound, 3) == [(0.5, 1.5, "Bin blue."), (2.0, 3.0, "at F!")]
    (tmp_path / "a.txt").write_text("only words\nof it")
    assert read_segments(sound, 3) == [(0.0, 3, "only words of it")]
    (tmp_path / "a.align").write_text("0 10 sil\n10 20 bin\n20 30 blue\n")
    assert read_segments(sound, 3) == [(0.0, 3, "bin blue")]
    assert clean_words("It's 3, Blue-green!") == "it's blue green"


def test_calibration_error_of_toys():
    confidence = np.full((1000, 2), (0.7, 0.3), np.float32)
    labels = (np.arange(1000) % 10 >= 7).astype(int)  # right in 70 %
    for equal_mass in (False, True):
        assert calibration_error(confidence, labels, equal_mass=equal_mass) == pytest.approx(0, abs=0.02)
    assert calibration_error(confidence, 0 * labels) == pytest.approx(0.3, abs=1e-6)
    drawn = softmax(2 * RNG.standard_normal((500, 5)).astype(np.float32))
    assert 0 <= calibration_error(drawn, RNG.integers(0, 5, 500)) <= 1


def test_phone_figures_of_a_perfect_and_a_confused_student():
    labels = np.repeat([PHONES.index(name) for name in ("P", "AA", "S", "SIL")], 5)
    right = 20.0 * np.eye(40, dtype=np.float32)[labels]
    found = phone_figures(right, np.append(labels, UNLABELLED)[:20])
    assert found["FER"] == found["viseme error"] == 0 and found["p b m recall"] == 1 and found["NLL"] < 1e-6
    confused = right.copy()
    confused[:5] = 20.0 * np.eye(40, dtype=np.float32)[PHONES.index("M")]  # looks alike
    found = phone_figures(confused, labels)
    assert found["FER"] == 0.25 and found["viseme error"] == 0 and found["FER macro"] == 0.25
    assert phone_figures(right[:5], np.full(5, labels[0]))["FER inside"] == 0


def test_likeness_of_features_does_not_know_rotation_and_scale():
    rows = RNG.standard_normal((200, 6))
    turned = 3 * rows @ np.linalg.qr(RNG.standard_normal((6, 6)))[0] + 5
    assert linear_cka(rows, turned) == pytest.approx(1) and linear_cka(rows, RNG.standard_normal((200, 6))) < 0.3


def test_a_delay_is_found():
    teacher = RNG.standard_normal((80, 5))
    for delay in range(5):
        student = np.concatenate([np.zeros((delay, 5)), teacher])[:80]
        assert best_delay(student + 0.1 * RNG.standard_normal((80, 5)), teacher) == delay


def test_the_bootstrap_covers_the_mean():
    low, high = bootstrap_interval(RNG.standard_normal(200) + 1)
    assert low < 1.1 and high > 0.9 and high - low < 0.5


def test_codes_are_the_centres_of_clusters():
    centres = np.array([[0, 0], [9, 0], [0, 9]], np.float32)
    states = (np.repeat(centres, 50, 0) + 0.1 * RNG.standard_normal((150, 2))).astype(np.float32)
    found = fit_codebook(states, 3)
    assert np.allclose(found[np.argsort(found @ [1, 2])], centres, atol=0.1)
    assert np.abs(quantise(states, found) - states).max() < 0.6
    two = torch.from_numpy(np.stack([states[:1], states[60:61]]))[None]  # samples of one frame, of two codes
    posterior = code_logits(two, torch.from_numpy(found), 0.5).exp()
    assert sorted(posterior[0, 0].tolist()) == pytest.approx([0, 0.5, 0.5], abs=0.01)


def test_the_probe_learns_phones_and_loads(tmp_path):
    torch.set_num_threads(1)
    records = [record(name, split=split) for name, split in (("a", "train"), ("b", "train"), ("c", "val"))]
    probe = fit_probe(records, 60)
    logits = probe(torch.from_numpy(records[2].features.astype(np.float32)))
    chance = phone_figures(np.zeros((60, 40), np.float32), records[2].labels)["NLL"]
    assert phone_figures(logits.numpy(), records[2].labels)["NLL"] < 0.8 * chance
    probe.save(tmp_path / "probe.safetensors")
    again = PhoneProbe.load(tmp_path / "probe.safetensors")
    assert torch.equal(again(torch.ones(1, 24)), probe(torch.ones(1, 24)))
    with pytest.raises(InputError, match="No clip for training has labels"):
        fit_probe([replace(records[0], labels=np.full(60, UNLABELLED, np.int8))], 1)


def test_records_are_read_as_they_were_written(tmp_path):
    made = record()
    made.save(tmp_path)
    (found,) = load_records(tmp_path)
    for name, value in vars(made).items():
        assert np.array_equal(getattr(found, name), value)
    with pytest.raises(InputError, match="holds no outputs"):
        load_records(tmp_path / "none")


def test_the_teacher_is_cached_once(tmp_path, capsys):
    (tmp_path / "shards").mkdir()
    shard("a", frames=30).save(tmp_path / "shards")
    arguments = ["cache", tmp_path / "shards", "--out", tmp_path / "out", "--samples", 2, "--workers", 1]
    assert command("distil", *arguments) == 0
    (made,) = load_records(tmp_path / "out")
    assert made.features.shape == (30, 2304) and made.samples.shape == (2, 30, 70) and made.has_motion
    assert made.samples[0].std() > 0 and not np.array_equal(made.samples[0], made.samples[1])
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert command("distil", *arguments) == 0 and "1 clips" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (tmp_path / "b.wav").write_bytes(encode_wav(0.1 * RNG.standard_normal(16_000), 16_000))
    for options in ([], ["--faces", tmp_path / "out"]):
        out = tmp_path / f"sounds{len(options)}"
        arguments = ["cache", tmp_path / "b.wav", "--out", out, "--samples", 1, "--workers", 1, *options]
        assert command("distil", *arguments) == 0
    mean, other = (load_records(tmp_path / f"sounds{count}")[0].portrait for count in (0, 2))
    assert np.abs(mean).max() < 1e-4  # its own numbers are the means
    assert np.allclose(other[:63], made.portrait[:63], atol=1e-4)  # between two faces that are the same
    assert np.abs(made.motion[:, 7:] - other[70:]).max(1).min() < 1e-3  # in one of its frames


def test_pauses_are_digital_silence(tmp_path):
    tone = 0.3 * np.sin(np.arange(8000) / 8)
    quiet = 0.001 * RNG.standard_normal(8000)
    sound = np.concatenate([quiet, tone, quiet, 0.5 * tone, quiet])
    (tmp_path / "a.wav").write_bytes(encode_wav(sound, 16_000))
    for out in ("one", "two"):
        arguments = tmp_path / "a.wav", "--out", tmp_path / out, "--minutes", 1
        assert command("data.pauses", *arguments) == 0
    first, second = (sorted((tmp_path / out).iterdir()) for out in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second] and len(first) == 2
    assert first[0].read_bytes() != first[1].read_bytes()
    sound = np.concatenate(list(read_sound(first[0])))
    assert len(sound) >= 30 * 16_000
    loud = np.flatnonzero(np.abs(sound) > 0.02)
    gaps = np.flatnonzero(np.diff(loud) > 4000)
    assert len(gaps) > 5 and (np.diff(loud)[gaps] < 3.2 * 16_000).all()
    for gap in gaps:
        middle = sound[loud[gap] + 2000 : loud[gap + 1] - 2000]
        assert (middle == 0).all()
    (tmp_path / "b.wav").write_bytes(encode_wav(np.zeros(16_000), 16_000))
    assert command("data.pauses", tmp_path / "b.wav", "--out", tmp_path / "three") == 2
    assert not (tmp_path / "three").exists()


def test_limited_features_hear_no_further():
    encoder, _ = load_teacher(None)
    sound = (0.2 * RNG.standard_normal(640 * 12)).astype(np.float32)
    other = sound.copy()
    other[640 * 8 :] = 0
    ours, theirs = (encode_clip(encoder, one, 4) for one in (sound, other))
    assert ours.shape == (12, 2304) and np.array_equal(ours[:4], theirs[:4])  # frame 3 hears frame 7
    assert not np.allclose(ours[4], theirs[4])


def test_the_ceiling_is_measured_as_students_are():
    plain = Normalisation(np.zeros(70), np.ones(70), np.zeros(63), np.ones(63))
    found = measure_teacher([record(split="val")], PhoneProbe(24), plain)
    assert {"FER", "NLL", "ECE", "r", "r mean", "amplitude"} <= set(found)
    real = record(split="val")
    copied = replace(real, samples=np.repeat(real.motion[None], 2, 0).astype(np.float16))
    assert measure_teacher([copied], PhoneProbe(24), plain)["r"] == pytest.approx(1, abs=1e-3)
    with pytest.raises(InputError, match="No clip is of the split 'val'"):
        measure_teacher([record()], PhoneProbe(24), plain)


def test_clips_of_one_name_are_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.wav").touch()
    with pytest.raises(InputError, match="Two clips are named"):
        find_clips([tmp_path / "one", tmp_path / "two"], [])
    with pytest.raises(InputError, match="does not exist"):
        find_clips([tmp_path / "three"], [])
