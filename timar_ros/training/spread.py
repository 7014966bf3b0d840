"""Matches the spread of sampled motion to the data's after training.

Few sampling steps give too little spread: each step's variance is right for the network's training input, a true frame
with noise, but sampling steps build on their own samples (with 5 steps the head lacks a fifth of its variance). The
face has too much spread, since every frame samples anew what the network cannot know: a face's resting shape. A
constant on the learned variance of each column, found by bisection, corrects both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from timar_ros.model import Timar
from timar_ros.motion import HEAD
from timar_ros.training.dataset import mean_motion
from timar_ros.training.fixed_clips import FixedClips
from timar_ros.training.objective import clip_conditioning
from timar_ros.training.run_config import TrainConfig

CLIPS, BATCH = 64, 8
# The learned variance's share of its range lies in [-1, 1]: a column moves by at most half of that.
RANGE, HALVINGS = 1.0, 8


@torch.no_grad()
def match_spread(model: Timar, config: TrainConfig, skip: frozenset[str] = frozenset()) -> Tensor:
    """Change ``model`` so that its motion for clips of the training split has their variance, column by column.

    The data's variance is about each file's own mean: differences between faces at rest are no movement.

    :returns: the constants added to the learned variance's share of its range, ``[56]``.
    """
    fixed = FixedClips(config, config.data.split, CLIPS, model.config.turn_frames, skip)
    conditioning, truth = [], []
    model.eval()
    for clips, batch in fixed.batches(BATCH, model.device):
        conditioning.append(clip_conditioning(model, batch, batch["agent_mask"]).flatten(0, 1))
        means = torch.from_numpy(np.stack([mean_motion(clip.pair.npz(clip.agent)) for clip in clips]))
        if config.data.neutral_head:
            means[:, HEAD] = torch.from_numpy(fixed.clips.set_head)  # the clips' mean head pose
        offset = model.standardise(means.to(model.device)).unsqueeze(1)
        truth.append((model.standardise(batch["agent_motion"]) - offset).flatten(0, 1))
    z, wanted = torch.cat(conditioning), torch.cat(truth).square().mean(0)
    generator = torch.Generator().manual_seed(config.seed)
    shape = (len(z), len(wanted))
    initial = torch.randn(shape, generator=generator).to(z.device)
    added = torch.randn((model.config.sampling_steps, *shape), generator=generator).to(z.device)
    bias = model.diffloss.net.final_layer.linear.bias[len(wanted) :]
    learned = bias.clone()

    def spread(added_bias: Tensor) -> Tensor:
        bias.copy_(learned + added_bias)
        return model.diffloss.sample(z, (initial, added)).frames.var(0)

    change = bisect(spread, wanted)
    bias.copy_(learned + change)
    return change


def bisect(spread: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """The argument in [-:data:`RANGE`, :data:`RANGE`] at which each of the rising values ``[n]`` equals ``wanted``.

    The result lies at the nearer end for an unreachable value.
    """
    low, high = torch.full_like(wanted, -RANGE), torch.full_like(wanted, RANGE)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = spread(middle) < wanted
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return (low + high) / 2
