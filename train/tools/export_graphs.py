"""Export the networks of the mesh engine as graphs for ONNX Runtime: `python -m train.tools.export_graphs`.

The graphs are made from the definitions in torch, in the dimensions of the weights that the package holds; they have no
weights, those stay in their files. Run it after a change of a network, of its dimensions or of the shipped motion
model's scheduler.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from kdtalker.audio import whisper
from kdtalker.audio.mel import MEL_COLUMNS_PER_FRAME
from kdtalker.audio.whisper_network import WhisperConfig, WhisperNetwork
from kdtalker.core.files import write_atomically
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.core.options import controls
from kdtalker.diffusion.denoiser import LEADING_TOKENS
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.network import ADAPTER, DENOISER, network_dimensions
from kdtalker.diffusion.solver import SCHEDULE, TABLE, schedule_of, trace_scheduler
from kdtalker.renderers.mesh.eyes import painter
from kdtalker.renderers.mesh.eyes.unet import VIEW_CHANNELS, PartUNet
from kdtalker.renderers.mesh.mouth import networks
from kdtalker.renderers.mesh.mouth.frame import CELL_PX, GEOMETRY_SIZE, HEIGHT_PX, MAPS, WIDTH_PX
from kdtalker.renderers.mesh.mouth.interior import COLOUR_SIZE, MouthInterior
from kdtalker.renderers.mesh.mouth.ratio_network import RatioNetwork
from kdtalker.renderers.mesh.mouth.ratio_tensors import CELL_CHANNELS, CELLS
from kdtalker.weights.checkpoint import read_checkpoint
from kdtalker.weights.find import find
from kdtalker.weights.graphs import FOLDER, MANIFEST
from train.harness.command import command

OPSET = 20  # of ONNX; ONNX Runtime knows it from 1.17 on
BATCH = torch.export.Dim("batch", min=1, max=1024)


@dataclass(frozen=True)
class Definition:
    """Hold the source of a graph: a method of a network, example inputs, which of their axes vary, and the network's
    dimensions."""

    network: nn.Module
    method: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    varying: tuple[dict[int, Any], ...] | None
    dimensions: dict[str, Any]


class _Method(nn.Module):
    """Call a method of a network as `forward`."""

    def __init__(self, definition: Definition) -> None:
        super().__init__()
        self.network, self._method = definition.network, definition.method

    def forward(self, *inputs: Tensor) -> Any:
        return self._method(*inputs)


def define_graphs() -> dict[str, Definition]:
    """List the graphs, in the dimensions of the shipped weights, with random example inputs."""
    torch.manual_seed(0)
    return {**_define_speech(), **_define_painters()}


def load_whisper() -> WhisperNetwork:
    """Load the Whisper encoder in torch."""
    header, state = read_checkpoint(find(whisper.WHISPER_FILE), ["config"])
    network = WhisperNetwork(WhisperConfig(**header["config"]))
    network.load_state_dict({name: value for name, value in state.items() if name != "mel_filters"})
    return network.eval().requires_grad_(False)


def _define_speech() -> dict[str, Definition]:
    encoder, model = load_whisper(), DiffusionMotionModel.load(find("mesh_motion.safetensors"))
    denoiser: Any = model.denoiser
    config = model.config
    half = torch.export.Dim("half", min=16, max=encoder.positions.shape[0])
    tokens, dimensions = LEADING_TOKENS + config.window, network_dimensions(config)
    features = torch.randn(2, config.window, config.audio_input)
    audio = torch.randn(2, config.window, config.audio_width)
    given = (torch.randn(2, tokens, MOTION_WIDTH), torch.randint(0, 1000, (2, tokens)).float(), audio)
    block_end = whisper.LEFT_FRAMES + whisper.WhisperEncoder.block_frames
    columns = MEL_COLUMNS_PER_FRAME * (block_end + whisper.RIGHT_FRAMES)
    mel = torch.randn(1, encoder.conv1.in_channels, columns)
    steps = torch.arange(whisper.STEPS_PER_FRAME * whisper.LEFT_FRAMES, whisper.STEPS_PER_FRAME * block_end)
    sizes = {"layers": len(encoder.blocks), "heads": encoder.blocks[0].heads}
    frames = torch.export.Dim("frames", min=2, max=2000)  # of a window
    window, whole = {0: BATCH, 1: frames}, {0: BATCH, 1: frames + LEADING_TOKENS}
    return {
        whisper.GRAPH: Definition(
            encoder,
            lambda mel, steps: torch.cat(encoder(mel, steps)[-whisper.LAYERS_KEPT :], -1),
            (mel, steps),
            ({2: 2 * half}, {0: torch.export.Dim("kept", min=2, max=encoder.positions.shape[0])}),
            sizes,
        ),
        ADAPTER: Definition(denoiser, denoiser.adapt, (features,), (window,), dimensions),
        DENOISER: Definition(denoiser, denoiser.forward, given, (whole, whole, window), dimensions),
    }


def _define_painters() -> dict[str, Definition]:
    interior = MouthInterior.load(find("mesh_interior.safetensors"))
    inputs = _mouth_inputs(interior)
    mask = torch.rand(HEIGHT_PX, WIDTH_PX)
    photographed = (_picture(HEIGHT_PX, WIDTH_PX)[0], mask, inputs[1], inputs[3])

    def light(maps: Tensor, geometry: Tensor, jaw: Tensor, *codes: Tensor) -> list[Tensor]:
        lips = maps[None], geometry[None], jaw[None]
        return [values[0] for values in interior.light(lips, *(code[None] for code in codes))]

    return {
        painter.GRAPH: define_eyes(PartUNet.load(find("mesh_eyes.safetensors"))),
        networks.SHADING: define_shading(RatioNetwork.load(find("mesh_shading.safetensors"))),
        networks.ENCODE: _define(interior, interior.encode, *photographed),
        networks.LIGHT: _define(interior, light, *inputs),
        networks.CELLS: define_interior_cells(interior),
    }


def define_eyes(network: PartUNet) -> Definition:
    """Define the graph that paints lids."""
    side: Any = network.dimensions["side_px"]
    return _define(network, network.layers, _picture(side, side, VIEW_CHANNELS), _picture(side, side, VIEW_CHANNELS))


def define_shading(network: RatioNetwork) -> Definition:
    """Define the graph that shades the skin around the mouth."""
    return _define(network, network.predict_cells, torch.randn(1, CELL_CHANNELS, CELLS, CELLS))


def define_interior_cells(network: MouthInterior) -> Definition:
    """Define the graph that draws the inside of the mouth but for the teeth."""

    def predict_light_logits(maps: Tensor, geometry: Tensor, jaw: Tensor, *codes: Tensor) -> list[Tensor]:
        lips = maps[None], geometry[None], jaw[None]
        return [values[0] for values in network.predict_light_logits(lips, *(code[None] for code in codes))]

    return _define(network, predict_light_logits, *_mouth_inputs(network))


def _mouth_inputs(network: MouthInterior) -> tuple[Tensor, ...]:
    """Draw maps, geometry and jaw of lips, and colour, style and place of codes."""
    lips = (torch.randn(MAPS, HEIGHT_PX // CELL_PX, WIDTH_PX // CELL_PX), torch.randn(GEOMETRY_SIZE), torch.randn(2))
    return (*lips, torch.rand(COLOUR_SIZE), torch.randn(network.style_size), torch.randn(2, 3))


def _define(network: Any, method: Callable[..., Any], *inputs: Tensor) -> Definition:
    return Definition(network, method, inputs, None, network.dimensions)


def _picture(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (1, height, width, channels), dtype=torch.uint8)


def export(definition: Definition) -> tuple[bytes, dict[str, tuple[int, ...]]]:
    """Export a graph without weights. Returns it with the shapes of the tensors that it takes from a weight file."""
    import onnx
    import onnxscript.optimizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Method(definition).eval(), definition.inputs, dynamo=True, optimize=False, verbose=False,
            opset_version=OPSET, external_data=False,
            dynamic_shapes=None if definition.varying is None else (definition.varying,),
        )  # fmt: skip
    assert program is not None
    onnxscript.optimizer.optimize_ir(program.model, should_fold=_takes_no_weights)
    model, kept, tensors = program.model_proto, definition.network.state_dict(), {}
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix("network.")
        if name not in kept:
            continue
        _rename(model.graph, tensor.name, name)
        tensors[name] = tuple(tensor.dims)
        tensor.ClearField("raw_data")
        tensor.name, tensor.data_location = name, onnx.TensorProto.EXTERNAL
        for key, value in {"location": "weights", "offset": 0, "length": 4 * int(np.prod(tensor.dims))}.items():
            tensor.external_data.add(key=key, value=str(value))
    _drop_comments(model)
    return model.SerializeToString(), tensors


def _takes_no_weights(node: Any) -> bool | None:
    """Tell that a node must not be computed beforehand where its input is a weight; else None, which lets it be."""
    return False if any(value is not None and value.is_initializer() for value in node.inputs) else None


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a value where nodes take it."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _drop_comments(model: Any) -> None:
    """Drop what only says where in the definition a node comes from."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]


def solver_table() -> dict[str, Any]:
    """Trace the shipped model's scheduler for every number of steps that the options know."""
    config = DiffusionMotionModel.load(find("mesh_motion.safetensors")).config
    (most,) = (control.maximum for name, _, control in controls() if name == "steps")
    rows = {str(steps): trace_scheduler(config, steps) for steps in range(1, int(most) + 1)}
    return {SCHEDULE: np.array(schedule_of(config)), **rows}


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


@command
def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    manifest = {}
    for name, definition in define_graphs().items():
        graph, tensors = export(definition)
        write_atomically(FOLDER / f"{name}.onnx", partial(_write, graph))
        manifest[name] = {"dimensions": definition.dimensions, "tensors": tensors}
        print(f"{name}: {len(graph) / 1000:.0f} kB, {len(tensors)} tensors", flush=True)
    write_atomically(FOLDER / MANIFEST, partial(_write, json.dumps(manifest, indent=1).encode()))
    table = solver_table()
    write_atomically(TABLE, lambda file: np.savez_compressed(file, **table))
    print(f"{TABLE.name}: {len(table) - 1} numbers of steps, {TABLE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
