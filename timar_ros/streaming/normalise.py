"""Normalization of speech to zero mean and unit variance: of the whole clip, as in the paper, or of past speech.

The speech encoder was trained on normalised recordings. Offline the whole file is known (``clip``); a live stream has
only its past, and much of the past may be silence (``running``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE
from timar_ros.streaming.activity import FRAME_SAMPLES
from timar_ros.streaming.sampling_options import NORMALISING

EPSILON = 1e-7  # added to the variance, as the encoder's own feature extractor does

# Prior level of speech, and the weight of this prior in seconds of speech.
PRIOR_POWER = 0.1**2  # power of active speech: -20 dBFS
PRIOR_SPEECH = 0.5
# A recording's variance includes its silence. Prior share of time that one of two people speaks, and its weight [s].
PRIOR_SHARE = 0.5
PRIOR_TIME = 30.0
LOWEST_SHARE = 0.2  # limits how much louder a listener's later words become than a speaker's words
LOWEST_SCALE = 0.002  # -54 dBFS: quieter speech is not amplified further
# A mean above both this share of the speech's level and this least value is a hardware offset, not chance.
OFFSET_SHARE, OFFSET_LEAST = 0.1, 0.001
MEMORY = 120.0  # memory in seconds: of speech for the level, of time for the rest


class Normaliser(Protocol):
    """Scales one speaker's turns."""

    def apply(self, speech: NDArray[np.float32], active: NDArray[np.bool_], keep: bool = True) -> NDArray[np.float32]:
        """Normalise a turn.

        :param speech: samples ``[N]`` at 16 kHz in [-1, 1].
        :param active: whether the speaker speaks, ``[F]`` frames of 640 samples.
        :param keep: whether the turn is remembered for later ones.
        """
        ...

    def reset(self) -> None:
        """Forget the speaker."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The speaker's statistics, fit for ``np.savez``."""
        ...

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where :meth:`state_dict` was taken."""


class ClipNormaliser:
    """Normalises by mean and variance of a whole recording ``[n]``, as in the paper; not causal."""

    def __init__(self, clip: NDArray[np.float32]) -> None:
        self._mean = float(np.mean(clip, dtype=np.float64))
        self._scale = float(np.sqrt(np.var(clip, dtype=np.float64) + EPSILON))

    def apply(
        self,
        speech: NDArray[np.float32],
        active: NDArray[np.bool_],  # noqa: ARG002
        keep: bool = True,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Normalise a turn; see :class:`Normaliser`."""
        return ((speech - self._mean) / self._scale).astype(np.float32)

    def reset(self) -> None:
        """Nothing to forget: the clip stays."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The clip's mean and scale."""
        return {"clip": np.array([self._mean, self._scale])}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take mean and scale from :meth:`state_dict`."""
        self._mean, self._scale = (float(value) for value in state["clip"])


@dataclass(frozen=True)
class _Heard:
    """Sums over past speech, with less weight on older parts; times in seconds."""

    sounding: float = 0.0  # time with speech
    energy: float = 0.0  # power times that time
    time: float = 0.0
    total: float = 0.0  # sample values times time
    varied: float = 0.0  # as energy, of the frames without their means

    def and_then(self, speech: NDArray[np.float32], active: NDArray[np.bool_]) -> _Heard:
        frames = speech[: len(active) * FRAME_SAMPLES].astype(np.float64).reshape(len(active), FRAME_SAMPLES)
        seconds = FRAME_SAMPLES / MODEL_RATE
        sounding = float(np.count_nonzero(active)) * seconds
        time = len(active) * seconds
        energy = float(np.square(frames[active]).mean(axis=1).sum()) * seconds
        varied = float(frames[active].var(axis=1).sum()) * seconds
        # The level forgets by seconds of speech and the rest by time, so that a long silence does not change the level.
        kept_speech = max(0.0, 1.0 - sounding / MEMORY)
        kept = max(0.0, 1.0 - time / MEMORY)
        return _Heard(
            sounding=kept_speech * self.sounding + sounding,
            energy=kept_speech * self.energy + energy,
            time=kept * self.time + time,
            total=kept * self.total + float(frames.mean(axis=1).sum()) * seconds,
            varied=kept_speech * self.varied + varied,
        )

    @property
    def offset(self) -> float:
        """The signal's constant offset; 0 where speech without an offset can have this mean."""
        level = float(np.sqrt(self.varied / self.sounding if self.sounding else PRIOR_POWER))
        found = self.total / self.time if self.time else 0.0
        return found if abs(found) > max(OFFSET_LEAST, OFFSET_SHARE * level) else 0.0

    @property
    def mean(self) -> float:
        # The prior mean 0 is wrong for a signal with an offset.
        return self.offset or self.total / (self.time + PRIOR_TIME)

    @property
    def scale(self) -> float:
        # The prior is mixed in as a level [dB]: as a power it would outweigh a far quieter microphone for too long.
        offset = self.offset
        energy = self.varied if offset else self.energy
        heard = max(energy / self.sounding, 1e-12) if self.sounding else PRIOR_POWER
        weight = self.sounding / (PRIOR_SPEECH + self.sounding)
        power = PRIOR_POWER ** (1.0 - weight) * heard**weight
        share = (PRIOR_TIME * PRIOR_SHARE + self.sounding) / (PRIOR_TIME + self.time)
        variance = (power - (0.0 if offset else self.mean**2)) * max(min(share, 1.0), LOWEST_SHARE)
        return float(np.sqrt(max(variance, 0.0) + EPSILON).clip(LOWEST_SCALE))


class RunningNormaliser:
    """Normalises by past speech, the current turn included, starting from a prior; causal.

    The variance is estimated as (power while the speaker speaks) × (share of the time that he speaks). So silence never
    drives the gain up: the power changes only with speech, the share slowly and down to a limit.
    """

    def __init__(self) -> None:
        self._heard = _Heard()

    def apply(self, speech: NDArray[np.float32], active: NDArray[np.bool_], keep: bool = True) -> NDArray[np.float32]:
        """Normalise a turn; see :class:`Normaliser`."""
        heard = self._heard.and_then(speech, active)
        if keep:
            self._heard = heard
        return ((speech - heard.mean) / heard.scale).astype(np.float32)

    @property
    def scale(self) -> float:
        """The divisor of the last turn."""
        return self._heard.scale

    def reset(self) -> None:
        """Forget the speaker."""
        self._heard = _Heard()

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The speaker's statistics."""
        return {"heard": np.array(astuple(self._heard), dtype=np.float64)}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        values = [float(value) for value in state["heard"]]
        self._heard = _Heard(*values, *values[1:2] * (len(values) == 4))  # 4: saved by a version without offsets


def make_normaliser(kind: str, clip: NDArray[np.float32] | None = None) -> Normaliser:
    """The normaliser of one speaker.

    :param kind: ``clip`` or ``running``.
    :param clip: the speaker's whole recording ``[n]`` at 16 kHz; ``clip`` needs it.
    :raises UserError: on another kind, or when ``clip`` has no recording.
    """
    if kind == "running":
        return RunningNormaliser()
    if kind != "clip":
        raise UserError(f"normalising = '{kind}': use {' or '.join(NORMALISING)}")
    if clip is None:
        raise UserError("normalising = 'clip' needs the whole recording, which a live stream is not: use 'running'")
    return ClipNormaliser(clip)
