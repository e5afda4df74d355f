"""Extract motion in LivePortrait's keypoint space with its own motion extractor."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from kdtalker.core.arrays import Array, Image
from kdtalker.core.motion import KEYPOINTS, Motion
from kdtalker.media.video import read_video
from kdtalker.renderers.liveportrait.canvas import SIDE_PX, warp_crop
from kdtalker.renderers.liveportrait.crops import speech_square
from kdtalker.renderers.liveportrait.nets.motion_extractor import MotionExtractor
from kdtalker.renderers.liveportrait.renderer import INPUT_PX, decode_motion
from kdtalker.weights.find import find
from kdtalker.weights.strict import load_strictly, read_tensors
from train.data.shards import Shard, save_published

BATCH = 16


@lru_cache(maxsize=1)
def load_extractor() -> MotionExtractor:
    """Load the motion extractor, once a process. Raises InputError where its weights are missing."""
    path = find("motion_extractor.pth")
    return load_strictly(MotionExtractor, read_tensors(path), path).requires_grad_(False)


def add_published(film: Path, shards: list[Shard], out: Path, extractor: MotionExtractor) -> None:
    """Extract and save the motion of each shard of a film."""
    for shard in shards:
        frames = islice(read_video(film), shard.start_frame, shard.start_frame + len(shard.landmarks))
        save_published(out, shard, *published_motion(frames, shard.landmarks[0], extractor))


@torch.inference_mode()
def published_motion(frames: Iterable[Image], landmarks: Array, extractor: MotionExtractor) -> tuple[Motion, Array]:
    """Extract motion (T) and mean canonical keypoints (21, 3) of frames, cropped by KDTalker's square around the
    landmarks (468, 3) of the first one."""
    square = speech_square(landmarks).to_picture(SIDE_PX)
    waiting, motions, keypoints = [], [], []
    faces = (warp_crop(frame, square) for frame in frames)
    while waiting := list(islice(faces, BATCH)):
        small = [cv2.resize(face, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA) for face in waiting]
        raw = extractor(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255)
        motions.append(decode_motion(raw))
        keypoints.append(raw.kp.numpy().reshape(-1, KEYPOINTS, 3))
    return Motion.concatenate(motions), np.concatenate(keypoints).mean(0)
