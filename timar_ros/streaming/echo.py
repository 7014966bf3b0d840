"""A half-duplex guard against the robot hearing itself: it attenuates the user's channel while the robot is heard.

The guard is not an echo canceller. With loudspeaker and microphone in one head, use an echo canceller upstream (of the
sound server or the device), and the guard as the last resort.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

SLICE_SECONDS = 0.01
KEPT_SECONDS = 60.0


class EchoGuard:
    """Mutes one stream while another is played.

    :param leak: factor on the user's channel while the agent is heard; 0 mutes it, 1 changes nothing.
    :param delay_ns: how much later than their stamps the agent's samples are played [ns].
    :param threshold: level of the agent's audio (RMS of 10 ms, full scale 1) that counts as sound.
    :param hang_seconds: how long a sound reverberates in the room [s].
    :raises ValueError: for a leak outside 0 to 1.
    """

    def __init__(
        self, leak: float = 0.0, *, delay_ns: int = 0, threshold: float = 0.003, hang_seconds: float = 0.25
    ) -> None:
        if not 0.0 <= leak <= 1.0:
            raise ValueError(f"leak must be from 0 to 1, not {leak}")
        self.leak = leak
        self.delay_ns = delay_ns
        self.threshold = threshold
        self.muted_samples = 0
        self._hang_ns = round(hang_seconds * 1e9)
        self._loud: deque[tuple[int, int]] = deque()  # begin and end of sounds [ns, agent's stamps], in order

    def play(self, stamp_ns: int, rate: int, samples: NDArray[np.float32]) -> None:
        """Take the agent's samples [n] or [n, channels], the first stamped ``stamp_ns``."""
        if self.leak == 1.0:
            return
        mono = samples if samples.ndim == 1 else np.abs(samples).max(axis=1)
        size = max(1, round(rate * SLICE_SECONDS))
        for first in range(0, len(mono), size):
            piece = mono[first : first + size]
            if np.sqrt(np.mean(piece.astype(np.float64) ** 2)) <= self.threshold:
                continue
            begin = stamp_ns + round(first * 1e9 / rate)
            end = stamp_ns + round((first + len(piece)) * 1e9 / rate)
            if self._loud and begin <= self._loud[-1][1] + self._hang_ns:
                self._loud[-1] = (self._loud[-1][0], max(end, self._loud[-1][1]))
            else:
                self._loud.append((begin, end))
        while self._loud and self._loud[0][1] < stamp_ns - KEPT_SECONDS * 1e9:
            self._loud.popleft()

    def silence(self, stamp_ns: int) -> None:
        """Forget the agent's samples stamped ``stamp_ns`` or later: they are not played after all."""
        self._loud = deque((begin, min(end, stamp_ns)) for begin, end in self._loud if begin < stamp_ns)

    def hear(self, stamp_ns: int, rate: int, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The user's samples [n] or [n, channels] after the guard, the first stamped ``stamp_ns``."""
        if self.leak == 1.0 or not len(samples):
            return samples
        times = stamp_ns - self.delay_ns + np.arange(len(samples)) * (1e9 / rate)
        heard = np.zeros(len(samples), bool)
        for begin, end in self._loud:
            if end + self._hang_ns >= times[0] and begin <= times[-1]:
                heard |= (times >= begin) & (times < end + self._hang_ns)
        if not heard.any():
            return samples
        self.muted_samples += int(heard.sum())
        out = samples.copy()
        out[heard] *= np.float32(self.leak)
        return out
