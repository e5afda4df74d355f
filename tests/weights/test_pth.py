"""Weight files as trainers save them: tensors are read whatever lies beside them, nothing is run, and what is refused
can be converted."""

import argparse
import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import typing
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import regenerate_all

from kdtalker.audio.wav2lip import Wav2LipEncoder, Wav2LipNetwork, load_wav2lip, rename_published
from kdtalker.core.errors import InputError
from kdtalker.weights import files as weight_files
from kdtalker.weights import find as finding
from kdtalker.weights.convert import convert_pth
from kdtalker.weights.pth import flatten_tensors, read_pth
from kdtalker.weights.strict import load_strictly, read_tensors

ROOT = Path(__file__).parents[2]
TENSOR = "module.audio_encoder.0.conv_block.0.weight"
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zipped", "old"])


def saved(value, zipped=True, **how):
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped, **how)
    return buffer.getvalue()


class Code:
    """Unpickled, it makes a folder."""

    def __init__(self, path, call=os.mkdir):
        self.call, self.path = call, str(path)

    def __reduce__(self):
        return self.call, (self.path,)


@pytest.fixture
def foreign(monkeypatch):
    """Makes a class of a library that is not here, as far as pickle looks."""

    def make(module, name, *bases, **content):
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            package = ".".join(parts[:end])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, type(sys)(package))
        kind = type(name, bases, {"__module__": module, **content})
        monkeypatch.setattr(sys.modules[module], name, kind, raising=False)
        return kind

    return make


# --- what is read ---------------------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("kept", [0, 10, 500, -100])
def test_both_formats_are_read_whole_or_not_at_all(tmp_path, zipped, kept):
    path = tmp_path / "a.pth"
    content = saved({"state_dict": {"w": torch.arange(1000.0)}}, zipped)
    path.write_bytes(content)
    assert torch.equal(read_pth(path)["state_dict"]["w"], torch.arange(1000.0))
    path.write_bytes(content[:kept])
    with pytest.raises(InputError, match=r"a\.pth' cannot be read as a .pth file, it is damaged, cut short or another"):
        read_pth(path)


@FORMATS
def test_the_settings_of_a_trainer_are_read_as_blanks(tmp_path, foreign, zipped):
    """KDTalker's trainer saves its omegaconf settings, whose types are told by typing, beside the weights."""
    node = foreign("omegaconf.nodes", "AnyNode")
    settings = foreign("omegaconf.dictconfig", "DictConfig")()
    mode = foreign("config.structured", "Mode", __reduce__=lambda self: (type(self), ()))
    settings.content = {"betas": node(), "mode": mode()}
    settings.types = [typing.Tuple[typing.Any, ...], typing.Optional[float], dict, float]  # noqa: UP006, UP045
    path = tmp_path / "a.pth"
    path.write_bytes(saved({"model": {"w": torch.ones(2)}, "cfg": settings}, zipped))
    assert b"Ellipsis" in path.read_bytes() and b"getitem" in path.read_bytes()
    content = read_pth(path)
    assert torch.equal(content["model"]["w"], torch.ones(2))
    assert type(content["cfg"]).__module__ == "kdtalker.weights.pth" and vars(content["cfg"]) == {}


@FORMATS
def test_numbers_of_numpy_and_arguments_beside_the_weights_are_read_as_blanks(tmp_path, zipped):
    beside = {
        "best_val": np.float32(0.5),
        "step": np.int64(3),
        "curve": np.arange(3.0),
        "args": argparse.Namespace(lr=1e-4, out=Path("runs")),
    }
    path = tmp_path / "a.pth"
    path.write_bytes(saved({"model": {"w": torch.ones(2)}, **beside}, zipped))
    content = read_pth(path)
    assert torch.equal(content["model"]["w"], torch.ones(2))
    assert {type(content[name]).__module__ for name in beside} == {"kdtalker.weights.pth"}


def test_a_file_that_was_saved_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(2)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(read_pth(tmp_path / "a.pth")["w"], torch.ones(2))


# --- what is refused ------------------------------------------------------------------------------------------------


@FORMATS
def test_code_is_refused_by_name_and_not_run(tmp_path, zipped):
    path = tmp_path / "evil.pth"
    path.write_bytes(saved({"model": Code(tmp_path / "run")}, zipped))
    for stub_code in (False, True):
        with pytest.raises(InputError, match=r"holds code \(posix.mkdir\) that no weights need; it is refused"):
            read_pth(path, stub_code=stub_code)
    path.write_bytes(saved({"model": Code(tmp_path / "run", os.makedirs), "a": Code("1+1", eval)}, zipped))
    with pytest.raises(InputError, match=r"holds code \(builtins.eval, os.makedirs\)"):
        read_pth(path)
    path.write_bytes(saved({"model": Code("1+1", eval)}, zipped))
    with pytest.raises(
        InputError, match=r"holds code \(builtins.eval\), .*`kdtalker weights convert .*/evil.pth` keeps"
    ):
        read_pth(path)
    path.write_bytes(saved({"model": Code(tmp_path / "none.pth", torch.load)}, zipped))
    with pytest.raises(InputError, match="holds more than tensors and plain values; `kdtalker weights convert"):
        read_pth(path)
    path.write_bytes(pickle.dumps({"model": Code(tmp_path / "run")}))
    with pytest.raises(InputError, match="or another kind of file"):
        read_pth(path)
    assert not (tmp_path / "run").exists()


def test_one_tensor_is_no_model(tmp_path):
    (tmp_path / "a.pth").write_bytes(saved(torch.ones(2)))
    with pytest.raises(InputError, match="holds one Tensor, wanted tensors under names"):
        read_pth(tmp_path / "a.pth")


def with_pickle(data):
    """A zipped `.pth` with another pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/version", b"3\n")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        with_pickle(b"\x80\x02})" + b"\x85" * 5000 + b"Ns."),
        with_pickle(b"\x80\x02."),
        with_pickle(b""),
        with_pickle(b"\x80\x02}X\xff\xff\xff\x7fa."),
        saved({"w": torch.ones(9)}).replace(b"data.pkl", b"data.bin"),
        b"PK\x03\x04" * 100,
        b"\x80\x02" * 100,
    ],
    ids=["deep tuples", "no object", "no pickle", "two GB of text", "another zip", "no zip", "no end"],
)
def test_damage_ends_in_one_sentence(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pth' cannot be read as a .pth file, it is damaged"):
        read_pth(tmp_path / "a.pth")


def test_dicts_without_end_and_tensors_that_are_not_stored_are_refused(tmp_path):
    endless = {"w": torch.ones(1)}
    endless["again"] = endless
    many = {"w": torch.ones(1)}
    for _ in range(30):
        many = {"a": many, "b": many}
    strange = (torch.ones(1).expand(10**12), torch.ones(2, device="meta"), torch.eye(2).to_sparse())
    for content in (endless, many, *({"w": tensor} for tensor in strange)):
        with pytest.raises(
            InputError, match="a.pth' holds (dicts within dicts without end|w as a tensor of another kind)"
        ):
            flatten_tensors(content, tmp_path / "a.pth")


# --- what is converted ----------------------------------------------------------------------------------------------


def command(*words, **how):
    call = [sys.executable, str(ROOT / "inference.py"), "weights", "convert", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(call, capture_output=True, text=True, timeout=100, check=False, env=environment, **how)


@pytest.fixture
def refused(tmp_path, foreign):
    """Wav2Lip's file with what is refused beside its weights, and its tensors by their names in the file."""
    layout = json.loads((ROOT / "tests" / "golden" / "liveportrait_layout.json").read_text())["wav2lip"]
    state = regenerate_all(layout)
    tied = {"a": state[TENSOR], "b": state[TENSOR].flatten(1).T, "n": torch.tensor(3)}
    (tmp_path / "kept").mkdir()
    beside = {
        "cfg": foreign("easydict", "EasyDict", dict)(lr=1e-4, more={"x": 1}),
        "run": Code(tmp_path / "kept", shutil.rmtree),
        "log": foreign("mytrainer", "Log")(),
        "lr": [1.0],
    }
    path = tmp_path / "wav2lip.pth"
    path.write_bytes(saved({"state_dict": state, "tied": tied, **beside}))
    named = {"state_dict": state, "tied": tied}
    return path, {f"{part}.{name}": value for part, values in named.items() for name, value in values.items()}


def test_a_refused_file_is_converted_and_the_engine_reads_the_same_numbers(tmp_path, refused):
    path, tensors = refused
    with pytest.raises(InputError, match=r"holds code \(.*mytrainer.Log.*`kdtalker weights convert"):
        load_wav2lip(lambda name: finding.find(name, tmp_path))
    done = command(path.name, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = finding.find(path.name, tmp_path)
    assert found == path.with_suffix(".safetensors")
    told = f"{found.name}: {len(tensors)} tensors of '{path.name}', {found.stat().st_size:,} bytes, sha256 "
    assert done.stdout == told + weight_files.sha256_of(found) + "\n"
    read = read_tensors(found)
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in read)
    state = rename_published({name.removeprefix("state_dict."): value for name, value in tensors.items()})
    encoders = load_wav2lip(lambda name: found), Wav2LipEncoder(load_strictly(Wav2LipNetwork, state, path))
    sound = np.random.default_rng(0).standard_normal(6400).astype(np.float32) / 10
    features = [encoder.flush(encoder.encode(encoder.start(), sound)[1]) for encoder in encoders]
    assert len(features[0]) == 10
    np.testing.assert_allclose(*features, rtol=1e-4, atol=1e-4)  # sums of tensors that lie elsewhere in memory
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["kept", path.name, found.name]  # nothing was run


@FORMATS
def test_what_is_beside_the_weights_is_not_imported(tmp_path, foreign, zipped):
    beside = {
        "state": foreign("gone.a", "State", __getstate__=lambda self: (1, 2), __setstate__=lambda self, _: None)(),
        "made": foreign("gone.a", "Made", __reduce__=lambda self: (type(self), (1, "a")))(),
        "class": foreign("gone.b", "Class"),
    }
    path = tmp_path / "a.pth"
    path.write_bytes(saved({"w": torch.arange(3.0), **beside}, zipped))
    for name in ("gone", "gone.a", "gone.b"):
        del sys.modules[name]
    convert_pth(path)
    assert read_tensors(tmp_path / "a.safetensors").keys() == {"w"}
    assert not [name for name in sys.modules if name.startswith("gone")]


def test_what_is_there_stays_unless_it_is_a_file(tmp_path):
    path, out = tmp_path / "a.pth", tmp_path / "out.safetensors"
    path.write_bytes(saved({"w": torch.ones(100_000)}))
    out.write_bytes(b"old")
    folder, pipe = (tmp_path / f"{name}.safetensors" for name in ("folder", "pipe"))
    folder.mkdir()
    os.mkfifo(pipe)
    for target, told in ((folder, "is a folder"), (pipe, "is a device, pipe or socket")):
        with pytest.raises(InputError, match=f"{target.name}' {told}"):
            convert_pth(path, target)
    hard = tmp_path / "hard.safetensors"
    hard.hardlink_to(path)
    with pytest.raises(InputError, match="is one of the inputs and would be overwritten"):
        convert_pth(path, hard)
    with pytest.raises(InputError, match="wanted a name that ends in .safetensors"):
        convert_pth(path, tmp_path / "a.pt")
    with pytest.raises(InputError, match="no folder '.*none'"):
        convert_pth(path, tmp_path / "none" / "a.safetensors")
    before = {entry.name for entry in tmp_path.iterdir()}
    assert convert_pth(path, out).startswith(f"{out}: 1 tensors of ")
    assert torch.equal(read_tensors(out)["w"], torch.ones(100_000))
    assert {entry.name for entry in tmp_path.iterdir()} == before


def test_a_full_disk_ends_in_1_and_leaves_the_old_file(tmp_path):
    (tmp_path / "a.pth").write_bytes(saved({"w": torch.ones(100_000)}))
    (tmp_path / "a.safetensors").write_bytes(b"old")
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))}
    done = command("a.pth", "a.safetensors", cwd=tmp_path, **limit)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
    assert "'a.safetensors' cannot be written" in done.stderr
    assert {entry.name: entry.stat().st_size for entry in tmp_path.iterdir()}["a.safetensors"] == 3
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (saved({"epoch": 3}), "holds no tensors under names"),
        (saved([torch.ones(2)]), "holds one list"),
        (saved({"w": torch.ones(2)}, pickle_protocol=4), "let that write its tensors as .safetensors"),
        (b"hello", "damaged"),
    ],
)
def test_what_cannot_be_converted_is_told_in_a_sentence(tmp_path, content, told):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        convert_pth(tmp_path / "a.pth")
    assert "a.pth" in str(caught.value) and len(list(tmp_path.iterdir())) == 1
