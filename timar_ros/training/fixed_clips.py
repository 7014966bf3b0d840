"""A split's unchanged clips, evenly chosen and the same every time, for measuring a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from timar_ros.data.dualtalk_folder import Clip
from timar_ros.model.diffusion import TRAINING_STEPS
from timar_ros.training.dataset import TrainingClips, collate
from timar_ros.training.run_config import AugmentConfig, MaskConfig, TrainConfig


class FixedClips:
    """Up to ``count`` clips of a split, without augmentation, with a fully known user and every agent frame masked."""

    def __init__(self, config: TrainConfig, split: str, count: int, turn_frames: int, skip: frozenset[str]) -> None:
        plain = replace(
            config,
            data=replace(config.data, split=split, random_starts=False),
            augment=AugmentConfig(),
            masks=MaskConfig(full_share=1.0, token_drop=0.0),
            optimiser=replace(config.optimiser, noise_draws=1),
        )
        self.clips = TrainingClips(plain, turn_frames, TRAINING_STEPS, skip)
        self.chosen: list[int] = np.linspace(0, len(self.clips) - 1, min(count, len(self.clips))).astype(int).tolist()

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[list[Clip], dict[str, Tensor]]]:
        """The clips, ``size`` at a time, and their batch from :func:`timar_ros.training.dataset.collate`."""
        for first in range(0, len(self.chosen), size):
            indices = self.chosen[first : first + size]
            batch = collate([self.clips[0, first + place, index] for place, index in enumerate(indices)])
            tensors = {key: value.to(device) for key, value in batch.items() if isinstance(value, Tensor)}
            yield [self.clips.clips[index] for index in indices], tensors
