"""How much the partner's head moves, relative to an average person: people adopt each other's liveliness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timar_ros.motion import HEAD, MOTION_RATE

WINDOW = round(10 * MOTION_RATE)
"""Frames of the partner in the average."""

LEAST, MOST = 0.5, 1.5
"""The factor stays within these."""


class PartnerAmplitude:
    """One partner's tracked head over the last ten seconds.

    :param average: deviation of an average person's head, geometric mean of the axes [rad].
    """

    def __init__(self, average: float) -> None:
        self._average = average
        self.reset()

    def reset(self) -> None:
        """Forget the partner."""
        self._poses: NDArray[np.float32] = np.zeros((0, 3), np.float32)

    def push(self, motion: ArrayLike | None) -> float:
        """Take a turn's frames ``[F, 56]`` (NaN: not tracked; None: none); return the factor on the agent's liveliness.

        The factor is 1 without frames, and proportionally nearer to 1 with less than ten seconds of frames.
        """
        if motion is not None:
            poses = np.asarray(motion, np.float32)[:, HEAD]
            self._poses = np.concatenate([self._poses, poses[np.isfinite(poses).all(1)]])[-WINDOW:]
        if len(self._poses) < MOTION_RATE:
            return 1.0
        deviation = np.log(np.maximum(self._poses.std(0), 1e-4)).mean() - np.log(self._average)
        known = len(self._poses) / WINDOW
        return float(np.clip(np.exp(known * deviation), LEAST, MOST))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The poses of the last ten seconds, fit for ``np.savez``."""
        return {"poses": self._poses.copy()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Resume from a :meth:`state_dict`."""
        self._poses = np.asarray(state["poses"], np.float32).reshape(-1, 3)[-WINDOW:]
