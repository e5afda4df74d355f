"""BlockSpan streaming with look-ahead: encode sound in pieces of any size on a fixed grid of blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.rates import SAMPLES_PER_FRAME, frame_count

CarryT = TypeVar("CarryT")


@dataclass(frozen=True)
class BlockSpan:
    """Describe the block to encode: its first frame, its number of frames, and whether the sound ends with it."""

    first_frame: int
    frames: int
    is_last: bool = False


@dataclass(frozen=True)
class BlockState(Generic[CarryT]):
    """Hold one stream as a value: pending samples (N,) from the next block's left context on, what the encoder carries
    from block to block, samples taken and frames given so far."""

    pending: Array
    carry: CarryT
    samples: int = 0
    frames: int = 0


class BlockEncoder(ABC, Generic[CarryT]):
    """Implement `AudioEncoder` over `encode_block`. Each block is encoded from the same samples by the same operations,
    so features do not depend, to the bit, on how the sound was cut; the state does not grow with the sound.

    block_frames: frames of a block. left_samples, right_samples: context before its first and after its last sample,
    the latter being the look-ahead; before the sound there are zeros. last_block_frames: the most frames that a block
    may have at the end of the sound, where look-ahead is not waited for.
    """

    block_frames: int
    left_samples: int
    right_samples: int

    @property
    @abstractmethod
    def feature_size(self) -> int:
        """C, the number of features a frame."""

    @property
    def latency_frames(self) -> int:
        return self.block_frames - 1 + frame_count(self.right_samples)

    @property
    def last_block_frames(self) -> int:
        return self.block_frames

    @abstractmethod
    def start_carry(self) -> CarryT:
        """Return the initial recurrent state, which the first block gets."""

    @abstractmethod
    def encode_block(self, carry: CarryT, samples: Array, block: BlockSpan) -> tuple[Array, CarryT]:
        """Encode samples (left_samples + 640 frames + right_samples,); return features (frames, C) and the next carry.
        The last block may have fewer frames: it gets the samples of a full one, and features beyond its own are cut."""

    def start(self) -> BlockState[CarryT]:
        return BlockState(np.zeros(self.left_samples, np.float32), self.start_carry())

    def encode(self, state: BlockState[CarryT], samples: Array) -> tuple[Array, BlockState[CarryT]]:
        pending = np.concatenate([state.pending, np.asarray(samples, np.float32)])
        state = replace(state, pending=pending, samples=state.samples + len(samples))
        parts = [np.zeros((0, self.feature_size), np.float32)]
        while len(state.pending) >= self._span(self.block_frames):
            features, state = self._next(state, self.block_frames)
            parts.append(features)
        return np.concatenate(parts), replace(state, pending=state.pending.copy())

    def flush(self, state: BlockState[CarryT]) -> Array:
        total, parts = frame_count(state.samples), [np.zeros((0, self.feature_size), np.float32)]
        while state.frames < total:
            frames = min(total - state.frames, self.last_block_frames)
            missing = max(0, self._span(max(frames, self.block_frames)) - len(state.pending))
            state = replace(state, pending=np.pad(state.pending, (0, missing)))
            features, state = self._next(state, frames, is_last=state.frames + frames == total)
            parts.append(features)
        return np.concatenate(parts)

    def _span(self, frames: int) -> int:
        return self.left_samples + frames * SAMPLES_PER_FRAME + self.right_samples

    def _next(
        self, state: BlockState[CarryT], frames: int, *, is_last: bool = False
    ) -> tuple[Array, BlockState[CarryT]]:
        block = BlockSpan(state.frames, frames, is_last)
        samples = state.pending[: self._span(max(frames, self.block_frames))]
        features, carry = self.encode_block(state.carry, samples, block)
        pending = state.pending[frames * SAMPLES_PER_FRAME :]
        return features[:frames], replace(state, pending=pending, carry=carry, frames=state.frames + frames)
