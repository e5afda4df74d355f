"""Checkpoints that anyone may have written: one sentence that names the file, without torch, memory or time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from test_diffusion import AS_PUBLISHED, TINY, begin, make_features, make_model

from kdtalker.core.errors import InputError
from kdtalker.diffusion.header import check_checkpoint
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.speech import load_model
from kdtalker.weights.find import find

ROOT = Path(__file__).parents[2]
SHIPPED = find("mesh_motion.safetensors")
with safe_open(SHIPPED, framework="numpy") as file:
    METADATA = file.metadata()


def header(name, **changes):
    """The shipped model's header, fields of one of its values changed."""
    return {name: json.dumps(json.loads(METADATA[name]) | changes)}


def calibration(**changes):
    """A calibration that does nothing, fields of it changed."""
    neutral = {"mouth_projection": np.eye(21).tolist(), "mouth_guidance": 1.0, "head_gain": [1.0] * 6}
    return {"calibration": json.dumps(neutral | changes)}


SIZE = 2**40
NONSENSE = {
    **{f"config {text}": ({"config": text}, "config is") for text in ("null", "[]", "[1, 2]", '"text"', "3", "NaN")},
    "config empty": ({"config": "{}"}, "is missing or unknown"),
    "config with more": (header("config", depth=1), "'depth' is missing or unknown"),
    **{
        f"{name} {value}": (header("config", **{name: value}), f"model's {name} is {value}, wanted")
        for name, value in {
            "width": SIZE, "layers": SIZE, "heads": -1, "head_width": 0, "time_width": SIZE, "audio_input": SIZE,
            "adapter_blocks": -3, "train_timesteps": SIZE, "window": SIZE, "overlap": -1,
        }.items()
    },
    "odd width": (header("config", width=191), "wanted an even number"),
    "width text": (header("config", width="1" * 9999), "gives width as '1111"),
    "width true": (header("config", width=True), "gives width as True, wanted int"),
    "not a number": (header("config", dropout=float("nan")), "model's dropout is nan"),
    "endless": (header("config", beta_end=float("inf")), "betas run from"),
    "unknown schedule": (header("config", beta_schedule="x" * 9999), "model's beta_schedule is 'xxx"),
    "unknown encoder": (header("config", audio_encoder="ear"), "hears through 'ear', known are whisper-tiny.en and"),
    **{f"normalisation {x}": ({"normalisation": x}, "normalisation is") for x in ("null", "[]", '"text"', "1")},
    "normalisation empty": ({"normalisation": "{}"}, "normalisation's mean is None, wanted 70 numbers"),
    "mean null": (header("normalisation", mean=None), "mean is None, wanted 70 numbers"),
    "mean of texts": (header("normalisation", mean=["1"] * 70), "mean is \\['1', '1'"),
    "mean of lists": (header("normalisation", mean=[[1]] * 70), "mean is \\[\\[1\\]"),
    "mean too short": (header("normalisation", mean=[1.0]), r"mean has the shape \(1,\), wanted \(70,\)"),
    "mean NaN": (header("normalisation", mean=[float("nan")] * 70), "mean holds numbers that cannot be used"),
    "mean 1e300": (header("normalisation", mean=[1e300] * 70), "mean holds numbers that cannot be used"),
    "mean 10^400": (header("normalisation", mean=[10**400] * 70), "mean holds numbers that cannot be used"),
    "std 0": (header("normalisation", std=[0.0] * 70), "std holds numbers that cannot be used"),
    **{f"card {text}": ({"card": text}, "card is") for text in ("null", "[]", "3", '{"name": 3}')},
    **{f"space {text}": ({"space": text}, "keypoint space is") for text in ("null", "3", "[]", '"moon"')},
    **{f"calibration {text}": ({"calibration": text}, "calibration is") for text in ("null", "[]", "3", '{"a": 1}')},
    "projection too small": (calibration(mouth_projection=[[1.0]]), r"mouth_projection has the shape \(1, 1\)"),
    "projection of texts": (calibration(mouth_projection=[["a"] * 21] * 21), "mouth_projection holds something else"),
    "guidance -1": (calibration(mouth_guidance=-1), "mouth_guidance is -1.0, wanted 0 to 6"),
    "guidance 10^400": (calibration(mouth_guidance=10**400), "mouth_guidance h"),
    "gain NaN": (calibration(head_gain=[float("nan")] * 6), "head_gain has the shape"),
    "another space": ({"space": '"liveportrait"'}, "the space 'liveportrait', this engine draws 'mesh'"),
    "broken": ({"config": "{"}, "header that cannot be read"),
    "deep": ({"config": "[" * 100_000}, "header that cannot be read"),
    "long number": ({"config": "1" * 100_000}, "header that cannot be read|config is 1111"),
    "no card": ({"card": None}, "without 'card' in its header"),
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Writes a checkpoint with the shipped header, some values (None: none) replaced; returns its path."""

    def write(changes, tensors=None):
        metadata = {name: text for name, text in {**METADATA, **changes}.items() if text is not None}
        save_file(tensors or {"a": np.zeros(3, np.float32)}, tmp_path / "mine.safetensors", metadata)
        return tmp_path / "mine.safetensors"

    return write


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_in_a_header_ends_in_one_sentence_at_once(write, case):
    changes, told = NONSENSE[case]
    path, began = write(changes), time.process_time()
    for read in (check_checkpoint, load_model):
        with pytest.raises(InputError, match=told) as caught:
            read(path, "mesh")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300 + len(str(path))
    assert time.process_time() - began < 1


def test_what_is_no_checkpoint_is_told_before_torch_is_imported(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(SHIPPED.read_bytes()[:100_000])
    (tmp_path / "long.safetensors").write_bytes((10**10).to_bytes(8, "little") + b"{}")
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04]\x94.")
    code = """
import sys
from pathlib import Path
from kdtalker.diffusion.header import check_checkpoint
from kdtalker.core.errors import InputError
print(check_checkpoint(Path(sys.argv[1]), "mesh").config.width)
for name in sys.argv[2:]:
    try:
        check_checkpoint(Path(name), "mesh")
    except InputError as error:
        print(error)
print("torch" in sys.modules)
"""
    names = ["cut.safetensors", "long.safetensors", "pickle.safetensors", "none.safetensors", ".", "x" * 300]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(SHIPPED), *names]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    told = ["192", *["cannot be read as a model"] * 3, "There is no", "is not a file", "There is no", "False"]
    assert len(done.stdout.splitlines()) == len(told)
    assert all(words in line for words, line in zip(told, done.stdout.splitlines(), strict=True)), done.stdout


def test_the_shipped_model_passes():
    assert check_checkpoint(SHIPPED, "mesh").config == DiffusionMotionModel.load(SHIPPED).config


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_name_the_file(write, value):
    tensors = load_file(SHIPPED)
    tensors["output.bias"] = np.full_like(tensors["output.bias"], value)
    path = write({}, tensors)
    with pytest.raises(InputError, match=r"mine.safetensors' holds numbers that are not finite in output\.bias"):
        load_model(path, "mesh")


@pytest.mark.parametrize(
    ("config", "weight", "mean_of_scale", "told"),
    [(TINY, 1e30, 1, "beyond any motion"), (TINY, 3e38, 1, "beyond any motion"), (AS_PUBLISHED, 0, -1, "a scale")],
)
def test_a_model_whose_numbers_run_away_or_that_draws_a_scale_below_0_is_told(config, weight, mean_of_scale, told):
    model = make_model(config)
    model.denoiser.output.weight.data.fill_(weight)
    model.normalisation.mean[0] = mean_of_scale
    with pytest.raises(InputError, match=told):
        model.advance(begin(model), make_features(3), last=True)
