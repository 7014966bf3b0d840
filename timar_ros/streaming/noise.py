"""A turn's diffusion noise, a pure function of (seed, turn number): the same on every device, whatever came before."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from timar_ros.motion import HEAD, MOTION_SIZE

Frames = NDArray[np.float32]

_NOISE, _MOVEMENT = 0, 2
# The correlated noise forgets noise older than this many time constants (0.1 %): with one pole, and with two.
_TAIL, _LONG_TAIL = 7, 6
# Two equal poles, each this much faster, have about the memory of one.
_DOUBLE = 1.6


def turn_noise(
    seed: int,
    turn: int,
    steps: int,
    frames: int,
    width: int = MOTION_SIZE,
    correlation: float = 0.0,
    head_correlation: float = 0.0,
) -> tuple[Frames, Frames]:
    """Unit normal noise of one turn: ``(initial [F, 56], steps [S, F, 56])``, from counter-based Philox on the CPU.

    :param correlation: time constant in frames of a first-order autoregression over the frames, which runs on from turn
        to turn; every frame by itself stays unit normal. 0: white, as in the paper.
    :param head_correlation: the same for the head pose alone, but of second order, smooth in speed: first-order noise
        shakes a head at nodding frequencies. 0: like the other columns.
    """
    white = functools.partial(_white, seed, steps=steps, frames=frames, width=width)
    drawn = white(turn).copy() if correlation <= 0 else _filtered(white, turn, _correlation_kernel(frames, correlation))
    if head_correlation > 0:
        drawn[..., HEAD] = _filtered(white, turn, _smooth_kernel(frames, head_correlation), HEAD)
    return drawn[0], drawn[1:]


def movement_noise(seed: int, turn: int, coefficients: int) -> Frames:
    """Unit normal noise ``[K, 3]`` of a turn's head movement, for a model that draws it as one (joint head)."""
    return _generator(seed, turn, _MOVEMENT).standard_normal((coefficients, 3), dtype=np.float32)


@functools.lru_cache(maxsize=256)
def movement_noise_of_hop(seed: int, hop: int, frames: int) -> Frames:
    """Unit normal noise ``[H, 3]`` of one hop's frames, from which turns that overlap take the noise of a movement."""
    return _generator(seed, hop, _MOVEMENT).standard_normal((frames, 3), dtype=np.float32)


@functools.lru_cache(maxsize=64)
def _white(seed: int, turn: int, steps: int, frames: int, width: int) -> Frames:
    drawn = _generator(seed, turn, _NOISE).standard_normal((steps + 1, frames, width), dtype=np.float32)
    drawn.flags.writeable = False  # shared with later turns
    return drawn


def _filtered(white: Callable[[int], Frames], turn: int, kernel: Frames, columns: slice = slice(None)) -> Frames:
    """The kernel over the white noise of this and earlier turns, ``[S + 1, F, columns]``."""
    blocks = kernel.shape[1] // kernel.shape[0]
    past = [white(turn - back)[..., columns] for back in reversed(range(blocks))]
    return np.asarray(np.einsum("fg,sgw->sfw", kernel, np.concatenate(past, axis=1), dtype=np.float32))


@functools.cache
def _correlation_kernel(frames: int, correlation: float) -> Frames:
    """One pole: ``exp(-t / correlation)``, t in frames."""
    lags = math.ceil(_TAIL * correlation / frames) * frames
    return _kernel(frames, np.exp(-np.arange(lags + 1) / correlation))


@functools.cache
def _smooth_kernel(frames: int, correlation: float) -> Frames:
    """Two equal poles: ``(t + 1) exp(-1.6 t / correlation)``, t in frames."""
    lags = math.ceil(_LONG_TAIL * correlation / frames) * frames
    time = np.arange(lags + 1)
    return _kernel(frames, (time + 1) * np.exp(-_DOUBLE * time / correlation))


def _kernel(frames: int, response: NDArray[np.float64]) -> Frames:
    """Weights ``[F, blocks·F]`` of the white noise of this and earlier turns in each frame, rows of unit norm.

    Every frame sums the same number of terms of the impulse response, so that the process is stationary across turns.
    """
    lags = len(response) - 1
    response = response / np.linalg.norm(response)
    kernel = np.zeros((frames, lags + frames), np.float32)
    for frame in range(frames):
        kernel[frame, frame : frame + lags + 1] = response[::-1]
    return kernel


def _generator(seed: int, turn: int, stream: int) -> np.random.Generator:
    key = np.array([seed % 2**64, turn % 2**64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))
