"""Baselines that do not listen; any model must beat them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from timar_ros.data.dualtalk_folder import DualTalkFolder
from timar_ros.motion import MOTION_SIZE

Array = NDArray[np.float32]


class MeanPose:
    """The training set's mean frame, held still."""

    def __init__(self, training: DualTalkFolder) -> None:
        total, count = np.zeros(MOTION_SIZE), 0
        for clip in training.clips(None):
            frames = training.load(clip)["agent_motion"]
            total += frames.sum(0)
            count += len(frames)
        self.frame = (total / count).astype(np.float32)

    def generate(self, frames: int) -> Array:
        """``[frames, 56]``."""
        return np.tile(self.frame, (frames, 1))


class RandomClip:
    """A random stretch of somebody's motion in the training set, mirrored back and forth when it is too short."""

    def __init__(self, training: DualTalkFolder, seed: int = 0) -> None:
        self.training, self.clips = training, training.clips(None)
        self.rng = np.random.default_rng(seed)

    def generate(self, frames: int) -> Array:
        """``[frames, 56]``."""
        chosen = self.training.load(self.clips[self.rng.integers(len(self.clips))])["agent_motion"]
        start = int(self.rng.integers(0, max(1, len(chosen) - frames + 1)))
        index = np.arange(start, start + frames) % (2 * len(chosen))
        return chosen[np.where(index < len(chosen), index, 2 * len(chosen) - 1 - index)]
