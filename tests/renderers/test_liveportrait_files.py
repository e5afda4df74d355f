"""The real command line over weight files of the published engine that cannot be used: exit 2, one sentence."""

import cv2
import pytest
import torch
import toy
from safetensors.torch import save_file
from test_cli import REAL, assert_fails, call, film, write_wav
from test_pth import Code
from test_template import template, written

from kdtalker.renderers.liveportrait.nets.retargeting import EYES, LIPS, STITCHING, RetargetingNetwork
from kdtalker.weights.table import LIVEPORTRAIT, SPEECH

SMALL, LARGE = "stitching_retargeting_module.pth", "spade_generator.pth"


@pytest.fixture
def folder(tmp_path):
    """A portrait, a voice, and weights of which the first ones that are read are good."""
    cv2.imwrite(str(tmp_path / "face.png"), toy.picture()[..., ::-1])
    write_wav(tmp_path / "voice.wav", toy.sound(0.2))
    weights = tmp_path / "files"
    weights.mkdir()
    for name in LIVEPORTRAIT:
        if name != LARGE:
            (weights / name).write_bytes(b"not looked at")
    parts = {"shoulder": STITCHING, "mouth": LIPS, "eye": EYES}
    state = {
        f"retarget_{part}": {f"module.{name}": value for name, value in RetargetingNetwork(widths).state_dict().items()}
        for part, widths in parts.items()
    }
    torch.save(state, weights / SMALL)
    save_file({"fc.weight": torch.zeros(512, 256, 3, 3), "other": torch.zeros(1)}, large(weights))
    return tmp_path


def large(weights):
    return (weights / LARGE).with_suffix(".safetensors")


def lose_two(weights):
    (weights / "wav2lip.pth").unlink()
    (weights / SMALL).unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


FAULTS = {
    "two are missing": (
        lose_two,
        rf"no 'wav2lip.pth' \(.*; licence: research only.*'{SMALL}' \(.*licence: MIT\) in '.*/files' or .*'.*/weights' "
        rf".*`kdtalker weights get wav2lip.pth {SMALL} --weights files` fetches them",
    ),
    "another network": (lambda weights: None, r"another network .* lacks G_middle_0\.conv_0\.bias, .* more"),
    "half a download": (lambda weights: cut(weights / SMALL), rf"{SMALL}' cannot be read as a .pth file"),
    "half a download of the other kind": (lambda weights: cut(large(weights)), "cannot be read as safetensors"),
    "code in it": (
        lambda weights: torch.save({"a": Code(weights / "run")}, weights / SMALL),
        rf"{SMALL}' holds code \(posix.mkdir\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_cannot_be_used_end_in_2_with_one_line(folder, fault):
    damage, told = FAULTS[fault]
    damage(folder / "files")
    arguments = (*film(output="new.mp4"), "--engine", "liveportrait", "--weights", "files", "--device", "cpu")
    assert_fails(folder, arguments, 2, told, program=REAL)


def test_another_file_than_expected_is_used_with_a_warning(folder):
    """Half a download here, so that the film still ends in one sentence."""
    large(folder / "files").unlink()
    (folder / "files" / LARGE).write_bytes(b"another")
    arguments = (*film(output="new.mp4"), "--engine", "liveportrait", "--weights", "files", "--device", "cpu")
    done = call(folder, *arguments, program=REAL)
    warning, error = toy.sentences(done.stderr)
    assert done.returncode == 2 and f"{LARGE}' is used, though it is another file than expected: its sha256" in warning
    assert f"{LARGE}' cannot be read as a .pth file, it is damaged" in error


def test_what_follows_a_film_needs_no_files_for_speech(folder):
    for name in SPEECH:
        (folder / "files" / name).unlink()
    written(folder / "a.pkl", template())
    arguments = ("--image", "face.png", "--motion", "a.pkl", "--output", "new.mp4", "--engine", "liveportrait")
    assert_fails(folder, (*arguments, "--weights", "files"), 2, "another network", program=REAL)
