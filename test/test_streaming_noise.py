"""Sampling noise that is smooth for the head: unit normal in every frame, running on from turn to turn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from timar_ros.streaming.noise import turn_noise

HEAD = slice(53, 56)
SECONDS = 25.0


def frames_of(turns: int, **correlation: float) -> NDArray[np.float32]:
    """Initial noise of many turns on end ``[turns·25, 56]``."""
    return np.concatenate([turn_noise(3, turn, 2, 25, **correlation)[0] for turn in range(turns)])


def test_only_the_head_is_smooth() -> None:
    plain, smooth = frames_of(40), frames_of(40, head_correlation=1.0 * SECONDS)
    assert np.array_equal(plain[:, :53], smooth[:, :53])
    assert not np.allclose(plain[:, HEAD], smooth[:, HEAD])


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_smooth_noise_stays_unit_normal_and_has_no_seams(seconds: float) -> None:
    frames = frames_of(600, head_correlation=seconds * SECONDS)[:, HEAD]
    assert frames.std() == pytest.approx(1.0, abs=0.1)
    steps = np.abs(np.diff(frames, axis=0)).mean(1)
    borders = np.arange(24, len(steps), 25)
    assert steps[borders].mean() == pytest.approx(np.delete(steps, borders).mean(), rel=0.15)


def test_smooth_noise_does_not_nod() -> None:
    """Of its power next to nothing lies between 1 and 4 Hz; first-order noise of that memory has ten times as much."""

    def share(frames: NDArray[np.float32]) -> float:
        hertz, power = signal.welch(frames[:, 53], fs=25, nperseg=250)
        return float(power[(hertz >= 1) & (hertz <= 4)].sum() / power.sum())

    smooth, first_order = frames_of(300, head_correlation=50.0), frames_of(300, correlation=50.0)
    assert share(smooth) < 0.01
    assert share(first_order) > 3 * share(smooth)


def test_it_is_a_function_of_seed_and_turn_whatever_came_before() -> None:
    options = {"correlation": 10.0, "head_correlation": 50.0}
    forward = [turn_noise(5, turn, 5, 25, **options) for turn in range(20)]
    again = [turn_noise(5, turn, 5, 25, **options) for turn in reversed(range(20))][::-1]
    for one, other in itertools.chain(zip(forward, again, strict=True)):
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])
    one[0][:] = 0.0  # what is given out is the caller's own
    assert np.array_equal(turn_noise(5, 19, 5, 25, **options)[0], other[0])
