"""The head's motion in two bands: slow movement from the sample, fast movement from the posterior mean.

The model samples frames one by one, each around its posterior mean. Noise that is smooth in time gives slow movement, a
person's sway. But the network's gain on the noise changes from frame to frame, which shakes the head at 1-4 Hz with
more power than nods and beats have; nods and beats lie in the mean. So only the slow part of a sample's deviation from
the mean is kept. The fast part of the mean may be emphasised, since an average over all possible nods is smaller than
any one nod.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from timar_ros.motion import HEAD

Frames = NDArray[np.float32]
_Values = NDArray[np.float64]

# Order of the low pass. Its delay does not matter: the delayed signal is random.
ORDER = 3


class HeadCrossover:
    """One conversation's head pose, turn after turn.

    :param hertz: the sample's deviation from the mean passes below it; 0: the whole sample passes, without emphasis.
    :param emphasis: factor on the mean's movement above it.
    :param rate: frames a second [Hz].
    """

    def __init__(self, hertz: float, emphasis: float, rate: float) -> None:
        self.enabled = hertz > 0
        self._gain = emphasis - 1
        if self.enabled:
            self._slow = _Filter(ORDER, hertz, rate, "low")
            # First order gives a shelf without a bump.
            self._fast = _Filter(1, hertz, rate, "high")

    def apply(self, drawn: Frames, expected: Frames) -> Frames:
        """A turn's frames ``[F, 56]`` from its samples and posterior means ``[F, 56]``."""
        if not self.enabled:
            return drawn
        mean = expected[:, HEAD].astype(np.float64)
        around = drawn[:, HEAD] - mean
        if not np.isfinite(around).all():
            return drawn
        crossed = drawn.copy()
        crossed[:, HEAD] = mean + self._slow.apply(around) + self._gain * self._fast.apply(mean)
        return crossed

    def reset(self) -> None:
        """Forget earlier turns."""
        if self.enabled:
            self._slow.state = self._fast.state = None

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The filters' memory ``[ORDER + 1, 3]``: none before the first turn."""
        if not self.enabled or self._slow.state is None or self._fast.state is None:
            return {"state": np.zeros((0, 3))}
        return {"state": np.concatenate([self._slow.state, self._fast.state])}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Resume from a :meth:`state_dict`.

        :raises ValueError: when the state is not a crossover's.
        """
        self.reset()
        values = np.asarray(state["state"], dtype=np.float64)
        if not values.size:
            return
        values = values.reshape(ORDER + 1, 3)
        if self.enabled:
            self._slow.state, self._fast.state = values[:ORDER].copy(), values[ORDER:].copy()


class _Filter:
    """A Butterworth filter that begins as if its first input had always been there."""

    def __init__(self, order: int, hertz: float, rate: float, kind: Literal["low", "high"]) -> None:
        self.b, self.a = signal.butter(order, hertz, kind, fs=rate)
        self.state: _Values | None = None

    def apply(self, values: _Values) -> _Values:
        if self.state is None:
            self.state = signal.lfilter_zi(self.b, self.a)[:, None] * values[0]
        filtered, self.state = signal.lfilter(self.b, self.a, values, axis=0, zi=self.state)
        return np.asarray(filtered)
