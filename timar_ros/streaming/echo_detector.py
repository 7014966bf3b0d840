"""Tells a partner's voice from the robot's echo in a microphone while the robot speaks, and detects barge-in.

An adaptive filter predicts the loudspeaker's echo in the microphone. A residual above the filter's usual error is
somebody else's voice. The filter is the partitioned-block Kalman filter in the frequency domain (G. Enzner and P. Vary,
"Frequency-domain adaptive Kalman filter for acoustic echo control", Signal Processing 86, 2006; partitions: F. Kuech,
E. Mabande and G. Enzner, ICASSP 2014). The filter needs no step size and is robust to double talk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timar_ros.motion import MODEL_RATE

Floats = NDArray[np.float32]

BLOCK = 512
"""Samples judged at a time: 32 ms at 16 kHz."""
BLOCK_SECONDS = BLOCK / MODEL_RATE
LONGEST_DELAY = 1.5
"""Longest delay from the reference to its echo [s]."""
ROOM = 0.4
"""Reverberation that the filter covers beyond the delay [s]."""
BAND = (300.0, 4000.0)
"""Frequency band in which voices are compared [Hz]; motors are lower."""
FORGETTING = 0.9998
"""How constant the echo's path is, from block to block."""
LEARNT = 0.1
"""How much one block reduces the filter's uncertainty. The theory says a half; a voice, unlike noise, gives less."""
PARTNER_ABOVE = 6.5
"""The partner is this far above the expected residual echo and the noise [dB]."""
QUIETEST = -65.0
"""Below this level nobody speaks [dBFS]."""
NOISE_RISE = 0.5
"""How fast the noise floor's estimate rises [dB/s]; it falls at once."""
REST_RISE, REST_FALL = 4.0, 8.0
"""How fast the estimate of the residual echo rises and falls [dB/s]."""
REST_START = 0.0
"""Residual echo before the filter has adapted [dB]: all of the echo may remain."""
MEMORY = 0.98
"""How long the search for the delay remembers: 50 blocks."""
FIRST_SEARCH, SEARCH_EVERY = 30, 10
"""Blocks before the first search for the delay, and from one to the next."""
ALIKE = 0.15
"""Mean coherence above which microphone and reference match."""
SEARCHES = 3
"""A new delay must be found this often in a row to be accepted."""
SILENT = -120.0
DECAY = 60.0
"""How fast reverberation decays in the room [dB/s]."""
BARGE_IN = 0.3
"""The partner speaks over the agent for this long [s] …"""
BARGE_WINDOW = 0.8
"""… within this long [s]: a barge-in."""


@dataclass(frozen=True)
class Judgement:
    """The classification of one microphone block."""

    partner: bool
    """Somebody else than the robot is heard."""
    own: bool
    """The robot's own voice is heard."""
    barge_in: bool
    """A barge-in begins with this block."""
    score: float
    """Level of the microphone above the robot's expected echo and the noise [dB]."""


class EchoDetector:
    """Judges a microphone's blocks of 32 ms against what is played. Both at 16 kHz and on one time axis."""

    def __init__(self) -> None:
        self._partitions = round((LONGEST_DELAY + ROOM) / BLOCK_SECONDS)
        self._reach = round(ROOM / BLOCK_SECONDS) + 2
        frequency = np.arange(BLOCK + 1) * MODEL_RATE / (2 * BLOCK)
        self._band = (frequency >= BAND[0]) & (frequency <= BAND[1])
        bins = BLOCK + 1
        self._spectra = np.zeros((self._partitions + self._reach, bins), np.complex64)  # played, newest first
        self._before = np.zeros((2, BLOCK), np.float32)
        # For the search for the delay: cross-spectra of the microphone and each earlier played block.
        self._cross = np.zeros((self._partitions, int(self._band.sum())), np.complex64)
        self._powers = np.full((2, int(self._band.sum())), 1e-6, np.float32)
        self._searched = 0
        self._elsewhere = 0
        self._delay: int | None = None
        self._noise = -40.0
        self._tail = SILENT
        self._recent: list[bool] = []
        self._barging = False
        self._learn_anew(None)

    @property
    def delay(self) -> float | None:
        """Delay from the played audio to its echo, in steps of 32 ms [s]; None while unknown."""
        return None if self._delay is None else self._delay * BLOCK_SECONDS

    def _learn_anew(self, delay: int | None) -> None:
        bins = BLOCK + 1
        self._delay = delay
        self._filter = np.zeros((self._reach, bins), np.complex64)
        # The direct sound may be louder in the microphone than it was played; the room's answer dies away.
        falling = 10.0 * 10.0 ** (-np.arange(self._reach) / self._reach * 3.0)
        self._doubt = np.repeat(falling[:, None], bins, axis=1).astype(np.float32)
        self._error_power = np.full(bins, 1e-4, np.float32)
        self._rest = REST_START

    def judge(self, played: Floats, heard: Floats) -> Judgement:
        """Judge the next block of played samples [512] and heard samples [512]."""
        played, heard = played.astype(np.float32), heard.astype(np.float32)
        self._spectra[1:] = self._spectra[:-1]
        self._spectra[0] = np.fft.rfft(np.concatenate([self._before[0], played]))
        self._search(np.fft.rfft(np.concatenate([self._before[1], heard])))
        self._before = np.stack([played, heard]).astype(np.float32)
        error, echo = (heard, np.zeros_like(heard)) if self._delay is None else self._cancel(heard, self._delay)
        if self._delay is None:  # all that was played in the last seconds may be heard now
            loudest = np.sqrt((np.abs(self._spectra[:, self._band]) ** 2).sum(axis=1).max() / (2 * BLOCK) / BLOCK)
            echo = np.full_like(heard, loudest)
        microphone, left, own = (self._level(block) for block in (heard, error, echo))
        self._noise = min(max(left, QUIETEST - 15.0), self._noise + NOISE_RISE * BLOCK_SECONDS)
        # Reverberation beyond the filter outlasts the block's own echo.
        self._tail = max(own, self._tail - DECAY * BLOCK_SECONDS)
        expected = 10.0 * np.log10(10.0 ** ((self._tail + self._rest) / 10.0) + 10.0 ** (self._noise / 10.0))
        score = float(min(left, microphone) - expected)
        partner = score > PARTNER_ABOVE and left > QUIETEST
        sounding = self._tail > max(self._noise + 6.0, QUIETEST)
        if own > self._noise + 10.0:
            missed = left - self._tail
            step = REST_RISE if missed > self._rest else -REST_FALL
            self._rest = float(np.clip(self._rest + step * BLOCK_SECONDS, -45.0, 6.0))
        return Judgement(partner, sounding, self._barge(partner and sounding), score)

    def _barge(self, over: bool) -> bool:
        """Whether the partner's speech over the agent's becomes a barge-in now."""
        self._recent = [*self._recent, over][-round(BARGE_WINDOW / BLOCK_SECONDS) :]
        enough = sum(self._recent) * BLOCK_SECONDS >= BARGE_IN
        begins, self._barging = enough and not self._barging, enough or (self._barging and any(self._recent))
        return begins

    def _level(self, block: Floats) -> float:
        """Level in the voices' band [dBFS]."""
        spectrum = np.fft.rfft(block * self._window, 2 * BLOCK)[self._band]
        return float(10.0 * np.log10(np.sum(np.abs(spectrum) ** 2) * 2 / (BLOCK * 2 * BLOCK * 0.375) + 1e-12))

    _window = np.hanning(BLOCK).astype(np.float32)

    def _search(self, heard: NDArray[np.complex128]) -> None:
        """Follow the delay: the echo path begins at the best match of microphone and reference."""
        past = self._spectra[: self._partitions, self._band]
        now = heard[self._band].astype(np.complex64)
        self._cross = MEMORY * self._cross + (1 - MEMORY) * past.conj() * now
        powers = np.stack([np.abs(past[0]) ** 2, np.abs(now) ** 2])
        self._powers = (MEMORY * self._powers + (1 - MEMORY) * powers).astype(np.float32)
        self._searched += 1
        if self._searched % SEARCH_EVERY or self._searched < FIRST_SEARCH:
            return
        likeness = (np.abs(self._cross) ** 2 / (self._powers[0] * self._powers[1] + 1e-12)).mean(axis=1)
        best = int(likeness.argmax())
        if likeness[best] < ALIKE or likeness[best] < 2.0 * np.median(likeness):
            return
        begin = max(0, best - 1)
        if self._delay is not None and abs(begin - self._delay) <= 2:
            self._elsewhere = 0
            return
        self._elsewhere += 1
        if self._delay is None or self._elsewhere >= SEARCHES:
            self._elsewhere = 0
            self._learn_anew(begin)

    def _cancel(self, heard: Floats, delay: int) -> tuple[Floats, Floats]:
        """The microphone without the predicted echo, and the predicted echo, each [512]."""
        spectra = self._spectra[delay : delay + self._reach]
        weights, doubt = self._filter, self._doubt
        echo = np.fft.irfft((spectra * weights).sum(axis=0))[BLOCK:].astype(np.float32)
        error = heard - echo
        padded = np.fft.rfft(np.concatenate([np.zeros(BLOCK, np.float32), error])).astype(np.complex64)
        power = (spectra.real**2 + spectra.imag**2).astype(np.float32)
        self._error_power = (0.8 * self._error_power + 0.2 * np.abs(padded) ** 2).astype(np.float32)
        gain = doubt / ((power * doubt).sum(axis=0) + self._error_power + 1e-6)
        change = np.fft.irfft(gain * spectra.conj() * padded, axis=1)
        change[:, BLOCK:] = 0.0  # circular convolution must not wrap around
        weights += np.fft.rfft(change, axis=1)
        weights *= FORGETTING
        doubt *= 1.0 - LEARNT * np.minimum(gain * power, 1.0)
        doubt *= FORGETTING**2
        doubt += (1.0 - FORGETTING**2) * (weights.real**2 + weights.imag**2)
        return error, echo
