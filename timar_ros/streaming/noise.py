"""A turn's diffusion noise, a pure function of (seed, turn number): the same on every device, whatever came before."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.float32]

_NOISE, _ORDER = 0, 1
_TAIL = 7  # the correlated noise forgets what is this many time constants old (0.1 %)


def turn_noise(
    seed: int, turn: int, steps: int, frames: int, width: int = 56, correlation: float = 0.0
) -> tuple[Frames, Frames]:
    """Unit normal noise of one turn: ``(initial [F, 56], steps [S, F, 56])``, from counter-based Philox on the CPU.

    :param correlation: time constant in frames of a first-order autoregression over the frames, which runs on from turn
        to turn; every frame by itself stays unit normal. 0: white, as in the paper.
    """
    if correlation <= 0:
        drawn = _white(seed, turn, steps, frames, width)
    else:
        kernel = _correlation_kernel(frames, correlation)
        blocks = kernel.shape[1] // frames
        past = [_white(seed, turn - back, steps, frames, width) for back in reversed(range(blocks))]
        drawn = np.einsum("fg,sgw->sfw", kernel, np.concatenate(past, axis=1), dtype=np.float32)
    return drawn[0], drawn[1:]


def frame_order(seed: int, turn: int, frames: int, order: str) -> NDArray[np.int64]:
    """The order in which iterated decoding takes a turn's frames ``[F]``: ``left_to_right`` or ``random``."""
    if order == "left_to_right":
        return np.arange(frames)
    return _generator(seed, turn, _ORDER).permutation(frames)


def _white(seed: int, turn: int, steps: int, frames: int, width: int) -> Frames:
    return _generator(seed, turn, _NOISE).standard_normal((steps + 1, frames, width), dtype=np.float32)


@functools.cache
def _correlation_kernel(frames: int, correlation: float) -> Frames:
    """Weights ``[F, blocks·F]`` of the white noise of this and earlier turns in each frame, rows of unit norm.

    Every frame sums the same number of terms of the impulse response, so that the process is stationary across turns.
    """
    lags = math.ceil(_TAIL * correlation / frames) * frames
    response = np.exp(-np.arange(lags + 1) / correlation)
    response /= np.linalg.norm(response)
    kernel = np.zeros((frames, lags + frames), np.float32)
    for frame in range(frames):
        kernel[frame, frame : frame + lags + 1] = response[::-1]
    return kernel


def _generator(seed: int, turn: int, stream: int) -> np.random.Generator:
    key = np.array([seed % 2**64, turn % 2**64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))
