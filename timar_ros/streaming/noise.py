"""A turn's diffusion noise, a pure function of (seed, turn number): the same on every device, whatever came before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NOISE, _ORDER = 0, 1


def turn_noise(
    seed: int, turn: int, steps: int, frames: int, width: int = 56
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit normal noise of one turn: ``(initial [F, 56], steps [S, F, 56])``, from counter-based Philox on the CPU."""
    drawn = _generator(seed, turn, _NOISE).standard_normal((steps + 1, frames, width), dtype=np.float32)
    return drawn[0], drawn[1:]


def frame_order(seed: int, turn: int, frames: int, order: str) -> NDArray[np.int64]:
    """The order in which iterated decoding takes a turn's frames ``[F]``: ``left_to_right`` or ``random``."""
    if order == "left_to_right":
        return np.arange(frames)
    return _generator(seed, turn, _ORDER).permutation(frames)


def _generator(seed: int, turn: int, stream: int) -> np.random.Generator:
    key = np.array([seed % 2**64, turn % 2**64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))
