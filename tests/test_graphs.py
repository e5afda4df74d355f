"""The graphs that a film runs: equal to their definitions in torch, whole, and enough for a film without torch."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kdtalker.audio.causal_config import CausalEncoderConfig
from kdtalker.audio.whisper import WHISPER_FILE
from kdtalker.core.errors import InputError
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.causal.header import StudentConfig, StudentHeader
from kdtalker.diffusion.causal.network import StudentNetwork, save_student
from kdtalker.diffusion.denoiser import Denoiser
from kdtalker.diffusion.header import read_motion_header
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.network import GraphDenoiser
from kdtalker.diffusion.solver import TABLE, schedule_of, solver_rows, trace_scheduler
from kdtalker.diffusion.speech import load_model
from kdtalker.renderers.mesh.eyes.painter import rename_older
from kdtalker.weights import graphs
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.find import find
from train.tools.export_graphs import define_graphs

ROOT = Path(__file__).parent.parent
MOTION = find("mesh_motion.safetensors")
DEFINITIONS = define_graphs()
WEIGHTS = {"whisper": WHISPER_FILE, "motion": MOTION.name, "eyes": "mesh_eyes.safetensors",
           "shading": "mesh_shading.safetensors", "interior": "mesh_interior.safetensors"}  # fmt: skip
TOLERANCE = {"whisper": 1e-4, "eyes": 1e-3}  # others 2e-5; of levels where levels come out


def tensors_of(name):
    _, tensors = read_arrays(find(WEIGHTS[name.split("_")[0]]), ())
    return rename_older(tensors) if name == "eyes" else tensors


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_graph_is_what_its_definition_gives(name):
    """Where it is not, `python -m train.tools.export_graphs` has to be run."""
    definition = DEFINITIONS[name]
    with torch.inference_mode():
        wanted = definition.method(*definition.inputs)
    found = graphs.Graph(name, tensors_of(name))(*(value.numpy() for value in definition.inputs))
    for array, tensor in zip(found, [wanted] if torch.is_tensor(wanted) else wanted, strict=True):
        assert array.dtype == tensor.numpy().dtype
        np.testing.assert_allclose(
            array.astype(float), tensor.numpy().astype(float), rtol=0, atol=TOLERANCE.get(name, 2e-5)
        )


def test_the_manifest_names_the_graphs_and_their_weights():
    assert {path.stem for path in graphs.FOLDER.glob("*.onnx")} == set(DEFINITIONS)
    for name, definition in DEFINITIONS.items():
        spec, state = graphs.graph_spec(name), definition.network.state_dict()
        assert spec.dimensions == definition.dimensions
        assert spec.tensors == {key: tuple(state[key].shape) for key in spec.tensors}


def test_the_table_of_the_solver_is_diffusers():
    config = DiffusionMotionModel.load(MOTION).config
    table = np.load(TABLE)
    assert str(table["schedule"]) == schedule_of(config)
    for steps in range(1, 101):
        np.testing.assert_allclose(table[str(steps)], trace_scheduler(config, steps), rtol=1e-5, atol=1e-6)
    other = dataclasses.replace(config, timestep_spacing="trailing")
    assert not np.allclose(solver_rows(other, 6), solver_rows(config, 6))
    np.testing.assert_array_equal(solver_rows(config, 101), trace_scheduler(config, 101))


def motion_of(model, steps, guidance=1.0):
    """Motion (T, 70) of 80 frames of noise for features."""
    draw = np.random.default_rng(1)
    features = draw.standard_normal((80, model.config.audio_input), np.float32)
    canonical, silence = draw.standard_normal((21, 3), np.float32), features[0]
    rest = dataclasses.replace(model.decode(model.normalisation.mean[None], np.zeros(70)), pose=np.zeros((1, 3)))
    state = model.start(canonical, rest, silence, seed=3, sampling=Sampling(steps, guidance))
    return model.advance(state, features, last=True)[0].vector()


@pytest.mark.parametrize(("steps", "guidance"), [(0, 1.0), (3, 1.5)])
def test_a_model_moves_the_same_in_torch_and_as_a_graph(steps, guidance):
    graph, torched = load_model(MOTION, "mesh"), DiffusionMotionModel.load(MOTION)
    assert isinstance(graph.denoiser, GraphDenoiser) and isinstance(torched.denoiser, Denoiser)
    np.testing.assert_allclose(motion_of(graph, steps, guidance), motion_of(torched, steps, guidance), atol=1e-4)


def test_a_model_of_another_architecture_runs_in_torch(tmp_path):
    model = DiffusionMotionModel.load(MOTION)
    config = dataclasses.replace(model.config, layers=2)
    torch.manual_seed(0)
    dataclasses.replace(model, denoiser=Denoiser(config).eval()).save(tmp_path / "mine.safetensors")
    assert isinstance(load_model(tmp_path / "mine.safetensors", "mesh").denoiser, Denoiser)


@pytest.mark.parametrize("damage", [None, b"", b"not a graph"])
def test_a_damaged_graph_is_told(tmp_path, monkeypatch, damage):
    if damage is not None:
        (tmp_path / "eyes.onnx").write_bytes(damage)
    tensors, spec = tensors_of("eyes"), graphs.graph_spec("eyes")
    monkeypatch.setattr(graphs, "FOLDER", tmp_path)
    monkeypatch.setattr(graphs, "graph_spec", lambda name: spec)
    with pytest.raises(InputError, match="eyes.onnx' is missing or damaged.*reinstall"):
        graphs.Graph("eyes", tensors)


def test_weights_of_another_network_are_told():
    with pytest.raises(InputError, match="mine' is another network than that of the graph 'eyes'"):
        graphs.load_graphs(("eyes",), tensors_of("shading"), Path("mine"))


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--steps", "9", "--guidance", "1.2"],
        ["--checkpoint", "mine.safetensors"],
        ["--checkpoint", "student.safetensors", "--lookahead", "4"],
    ],
)
@pytest.mark.parametrize("picture", ["grace_hopper.jpg", "astronaut.png"])
def test_a_film_of_the_mesh_engine_imports_neither_torch_nor_diffusers(tmp_path, picture, options):
    """Of a closed and an open mouth; a checkpoint of the shipped architecture too, and a student of any. Nor does it
    leave traces."""
    (tmp_path / "mine.safetensors").write_bytes(MOTION.read_bytes())
    config = StudentConfig(CausalEncoderConfig((8, 8, 12, 16)), inputs=16, hidden=24)
    header = StudentHeader("mesh", config, read_motion_header(MOTION).normalisation, {})
    save_student(tmp_path / "student.safetensors", StudentNetwork(config), header)
    code = "import sys; from kdtalker.apps.cli import main; code = main(sys.argv[1:]); "
    code += "print(code, sorted({'torch', 'diffusers', 'librosa'} & set(sys.modules)))"
    inputs = ["--image", ROOT / "examples" / picture, "--audio", ROOT / "examples" / "austen_0890.wav"]
    command = [sys.executable, "-c", code, *inputs, "--duration", "0.2", "--output", "film.mp4", "--quiet", *options]
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=inherited | home, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert (tmp_path / "film.mp4").stat().st_size > 1000
    assert not (tmp_path / "home").exists()  # ONNX Runtime keeps no identifier, which it would send
