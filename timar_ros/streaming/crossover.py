"""The head's motion in two bands: slow movement as it was drawn, fast movement as it is to be expected.

Frames are sampled one by one, each around its own expectation given what was heard. Noise that is smooth in time makes
slow movement of that, a person's sway; but the network's gain on it changes from frame to frame, which shakes the head
at 1-4 Hz, with more power than nods and beats have: those lie in the expectation. So of what was drawn around the
expectation the slow part is kept, and the fast part of the expectation may be emphasised, since an average over all
the ways to nod is smaller than any one of them. docs/results.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from timar_ros.streaming.resampling import HEAD

Frames = NDArray[np.float32]

# Of the Butterworth low-pass filter: its delay does not matter, since what it delays was drawn at random.
POLES = 3


class HeadCrossover:
    """One conversation's head pose, turn after turn.

    :param hertz: what was drawn passes below it, what was expected above it; 0: all as drawn.
    :param emphasis: factor on the expectation's movement above it.
    :param rate: frames a second [Hz].
    """

    def __init__(self, hertz: float, emphasis: float, rate: float) -> None:
        self.emphasis = emphasis
        self.enabled = hertz > 0
        self._filter = signal.butter(POLES, hertz, fs=rate) if self.enabled else None
        self._state: NDArray[np.float64] | None = None  # [POLES, 3]

    def apply(self, drawn: Frames, expected: Frames) -> Frames:
        """A turn's frames ``[F, 56]`` as they are to be, from those drawn and those expected ``[F, 56]``.

        With l the low-pass filter: emphasis * expected + l(drawn - emphasis * expected).
        """
        if self._filter is None:
            return drawn
        fast = self.emphasis * expected[:, HEAD].astype(np.float64)
        slow = drawn[:, HEAD] - fast
        if not np.isfinite(slow).all():
            return drawn
        if self._state is None:
            self._state = signal.lfilter_zi(*self._filter)[:, None] * slow[0]
        slow, self._state = signal.lfilter(*self._filter, slow, axis=0, zi=self._state)
        made = drawn.copy()
        made[:, HEAD] = fast + slow
        return made

    def reset(self) -> None:
        """Forget the turns before."""
        self._state = None

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The filter's memory: none before the first turn."""
        return {"state": np.zeros((0, 3)) if self._state is None else self._state.copy()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where :meth:`state_dict` was taken.

        :raises ValueError: when it is not of a crossover.
        """
        values = np.asarray(state["state"], dtype=np.float64)
        self._state = values.reshape(POLES, 3).copy() if values.size else None
