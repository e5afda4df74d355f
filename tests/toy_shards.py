"""Shards without films: a mean face that nods and opens its mouth as loudly as it hums."""

import numpy as np

from kdtalker.core.motion import KEYPOINTS, MESH_SPACE, Motion
from kdtalker.face.landmarks import LIP_PAIRS
from kdtalker.renderers.mesh.geometry import FaceModel
from train.data.shards import Shard

SMALL_MODEL = """
[model]
width = 32
layers = 1
heads = 2
head_width = 16
time_width = 16
audio_width = 16
adapter_blocks = 1
window = 16
context = 4
overlap = 3
"""


def shard(name="a", frames=60, split="train", wide=1.0):
    """One stretch of a face 200 px wide, its sound in time with its mouth, which opens so many times as wide."""
    rng, face = np.random.default_rng(list(name.encode())), FaceModel.load()
    time_s = np.arange(frames) / 25
    loudness = np.abs(np.sin(2 * np.pi * (time_s * rng.uniform(1, 2) + rng.uniform())))
    pose = np.stack([5 * np.sin(time_s * speed) for speed in rng.uniform(1, 3, 3)], 1)
    expression = np.zeros((frames, KEYPOINTS, 3))
    lower = LIP_PAIRS[0][1]
    expression[..., 1] = 0.1 * wide * loudness[:, None] * face.spreads[lower] / np.abs(face.spreads[lower]).sum()
    still = np.ones((frames, 1))
    motion = Motion(200 * still, pose, np.tile([300.0, 300, 0], (frames, 1)), expression, MESH_SPACE)
    hum = np.sin(2 * np.pi * 180 * np.arange(640 * frames) / 16000) * np.repeat(loudness, 640)
    landmarks = face.pose_vertices(face.mean, motion).astype(np.float32)
    return Shard(landmarks, (0.3 * hum).astype(np.float16), True, 0, name, split, f"films/{name}.mp4", 0)


def write_shards(folder, names="abc", held_out="d"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shard(name).save(folder)
    for name in held_out:
        shard(name, split="val").save(folder)
    return folder


def write_config(path, shards, run, extra="", model=SMALL_MODEL):
    """A config whose training takes seconds."""
    common = 'tracker = "none"\ndevice = "cpu"\nbatch = 4\nshortest_window = 8\n'
    path.write_text(f'shards = "{shards}"\nrun = "{run}"\n{common}{extra}\n{model}')
    return path
