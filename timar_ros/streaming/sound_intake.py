"""One speaker's voice from a microphone, a file or a topic: choice of the channel and faults of the sound.

The running normaliser removes a constant offset (:mod:`timar_ros.streaming.normalise`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError

Floats = NDArray[np.float32]

MIX = -1
"""Instead of a channel's number: the mean of all channels."""
CANCELS = 0.01
"""Where the mean of the channels has less than this share of their power, they cancel each other (anti-phase)."""
SILENT = 1e-4
"""No sample beyond this (-80 dBFS) is silence: a microphone that is muted or not connected."""
CLIPPED = 0.999
"""Samples from here on are at the end of the range."""
CLIPPED_SHARE = 1e-3
"""This share of samples at the end of the range is audible as distortion."""
OFFSET = 0.02
"""A mean beyond this is an offset of the hardware, worth a remark."""


@dataclass
class Heard:
    """Sums over the samples since the last call of :meth:`VoiceIntake.remarks`."""

    samples: int = 0
    total: float = 0.0
    peak: float = 0.0
    clipped: int = 0


class VoiceIntake:
    """Takes one channel [n] out of samples [n, channels], in pieces, and notes faults of the sound.

    With :data:`MIX`, once channels cancel each other, the first channel replaces their mix.

    :param channel: number of the channel from 0 on, or MIX.
    """

    def __init__(self, channel: int = MIX) -> None:
        self.channel = channel
        self.cancels = False
        """Whether the channels were found to be in anti-phase."""
        self._powers = np.zeros(2)  # of the channels and of their mean, with less weight on older parts
        self._heard = Heard()

    def take(self, samples: Floats) -> Floats:
        """The voice [n] of samples [n] or [n, channels].

        :raises UserError: when the samples lack the channel.
        """
        voice = samples if samples.ndim == 1 else self._one(samples)
        if len(voice):
            heard = self._heard
            size = np.abs(voice)
            heard.samples += len(voice)
            heard.total += float(voice.sum(dtype=np.float64))
            heard.peak = max(heard.peak, float(size.max()))
            heard.clipped += int(np.count_nonzero(size >= CLIPPED))
        return voice

    def judge(self, samples: Floats) -> None:
        """Check a whole recording [n, channels] for channels that cancel, before its first piece is taken."""
        if self.channel == MIX and samples.ndim == 2 and samples.shape[1] > 1 and len(samples):
            each = float(np.square(samples, dtype=np.float64).mean())
            mean = float(np.square(samples.mean(axis=1), dtype=np.float64).mean())
            self.cancels = each > SILENT**2 and mean < CANCELS * each

    def remarks(self) -> list[str]:
        """Faults of the sound since the last call, in words; empty without faults or without samples."""
        heard, self._heard = self._heard, Heard()
        said = []
        if self.cancels:
            said.append("the channels cancel each other (anti-phase): the first one is taken")
        if not heard.samples:
            return said
        if heard.peak <= SILENT:
            said.append("silence: no sample beyond -80 dBFS")
        if heard.clipped > CLIPPED_SHARE * heard.samples:
            said.append(f"clipping: {heard.clipped / heard.samples:.1%} of the samples are at the end of the range")
        if abs(mean := heard.total / heard.samples) > OFFSET:
            said.append(f"an offset of {mean:.2f}")
        return said

    def _one(self, samples: Floats) -> Floats:
        count = samples.shape[1]
        if self.channel >= count:
            raise UserError(f"channel {self.channel} is wanted, but the sound has {count} (numbered from 0)")
        if self.channel != MIX:
            return np.ascontiguousarray(samples[:, self.channel])
        mixed: Floats = samples.mean(axis=1, dtype=np.float32)
        if count == 1 or not len(samples):
            return mixed
        if not self.cancels:
            both = np.array([np.square(part, dtype=np.float64).sum() for part in (samples, mixed)])
            self._powers = 0.9 * self._powers + 0.1 * both / (count * len(samples), len(samples))
            each, mean = self._powers
            self.cancels = bool(each > SILENT**2 and mean < CANCELS * each)
        return np.ascontiguousarray(samples[:, 0]) if self.cancels else mixed
