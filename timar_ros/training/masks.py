"""Masks of the model's input in training, drawn clip by clip so that they do not depend on the process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import truncnorm

from timar_ros.motion import PARTS
from timar_ros.training.run_config import MaskConfig


def mask_share(options: MaskConfig, rng: np.random.Generator) -> float:
    """The share of agent frames that one batch masks: a truncated normal (paper), or all of them."""
    if rng.random() < options.full_share:
        return 1.0
    low, high = ((edge - options.mean) / options.deviation for edge in (options.minimum, 1.0))
    return float(truncnorm.rvs(low, high, loc=options.mean, scale=options.deviation, random_state=rng))


@dataclass(frozen=True)
class ClipMasks:
    """The masks of one clip of T frames."""

    agent: NDArray[np.bool_]
    """Agent frames to predict, ``[T]``."""
    user_speech: NDArray[np.bool_]
    """User speech tokens that become ``fake_latent``, ``[T]``."""
    user_motion: NDArray[np.bool_]
    """User motion tokens that become ``fake_latent``, ``[T]``."""
    untracked: tuple[slice, ...]
    """Column groups of the user's motion that count as not tracked."""
    user_heard: int
    """Number of known frames of the user: later frames are dropped."""
    agent_heard: int
    """Number of known frames of the agent's own speech: silence follows."""


def draw_masks(frames: int, turn_frames: int, share: float, options: MaskConfig, rng: np.random.Generator) -> ClipMasks:
    """Draw a clip's masks; ``share`` is the batch's (:func:`mask_share`); the number of masked frames is rounded up."""
    agent = np.zeros(frames, bool)
    agent[rng.permutation(frames)[: int(np.ceil(share * frames))]] = True
    speech, motion = rng.random((2, frames)) < options.token_drop
    turns = np.repeat(rng.random(-(-frames // turn_frames)) < options.turn_drop, turn_frames)[:frames]
    untracked: tuple[slice, ...] = ()
    if rng.random() < options.tracker_drop:
        motion = np.ones(frames, bool)
    elif rng.random() < options.group_drop:
        groups = tuple(PARTS.values())
        lost = rng.permutation(3)[: rng.integers(1, 3)]
        untracked = tuple(groups[i] for i in lost)
    speech, motion, user_heard, agent_heard = speech | turns, motion | turns, frames, frames
    if options.unheard and rng.random() < options.unheard:
        # The cut removes nothing, a part, or the whole turn; the agent's speech is known for at least a fifth of a
        # second.
        user_heard -= int(rng.choice([turn_frames, int(rng.integers(0, turn_frames + 1)), 0], p=[0.5, 0.25, 0.25]))
        if rng.random() < 0.75:
            agent_heard -= turn_frames - int(rng.integers(max(1, turn_frames // 5), turn_frames + 1))
        speech[user_heard:] = motion[user_heard:] = True
    if options.user_drop and rng.random() < options.user_drop:
        speech, motion = np.ones(frames, bool), np.ones(frames, bool)
    return ClipMasks(agent, speech, motion, untracked, user_heard, agent_heard)
