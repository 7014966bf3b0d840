"""Validation during training: the loss of fixed, unchanged clips, and motion sampled for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from timar_ros.baselines.dualtalk import DualTalk
from timar_ros.data.motion_statistics import MAX_LAG, correlation_at
from timar_ros.model import Timar
from timar_ros.motion import EXPRESSION, HEAD, JAW, JAW_OPENING, SAMPLES_PER_FRAME
from timar_ros.training.fixed_clips import FixedClips
from timar_ros.training.objective import Objective, sample_clips
from timar_ros.training.run_config import TrainConfig

BATCH = 4


class Validation:
    """Loads an even choice of the validation split's clips and measures a model on them."""

    def __init__(self, config: TrainConfig, turn_frames: int, skip: frozenset[str]) -> None:
        data = config.data
        self.clips = FixedClips(config, data.validation_split or "test", data.validation_clips, turn_frames, skip)
        self.options = replace(config.optimiser, change_weight=0.0)  # so that losses compare

    @torch.no_grad()
    def measure(self, model: Timar | DualTalk, accelerator: Any) -> dict[str, float]:
        """Loss, MSE and spread by group of columns, and how the jaw follows the agent's speech (``val_jaw_energy``)."""
        model.eval()
        objective = Objective(model, self.options)
        sums = torch.zeros(3)
        truths, predictions, speeches = [], [], []
        generator = torch.Generator().manual_seed(0)
        for _, batch in self.clips.batches(BATCH, accelerator.device):
            with accelerator.autocast():
                sums += torch.stack([part.detach().float().cpu() for part in objective(batch)])
                if isinstance(model, DualTalk):
                    motion = model(batch["agent_speech"], batch["user_speech"], batch["user_motion"])
                else:
                    motion = sample_clips(model, batch, generator)
            truths.append(batch["agent_motion"].cpu().numpy())
            predictions.append(motion.float().cpu().numpy())
            speeches.append(batch["agent_speech"].cpu().numpy())
        truth, prediction, speech = (np.concatenate(parts) for parts in (truths, predictions, speeches))
        found = {"val_loss": float(sums[0] / sums[2]), "val_mse": float(sums[1] / sums[2])}
        for name, part in (("exp", EXPRESSION), ("jaw", JAW), ("pose", HEAD)):
            t, p = truth[..., part], prediction[..., part]
            found[f"val_mse_{name}"] = float(np.square(t - p).mean())
            found[f"val_sd_{name}"] = float(p.std(1).mean() / max(float(t.std(1).mean()), 1e-9))
        found["val_jaw_energy"] = jaw_follows(speech, prediction[..., JAW_OPENING])
        found["val_jaw_energy_truth"] = jaw_follows(speech, truth[..., JAW_OPENING])
        return found


def jaw_follows(speech: np.ndarray, jaw: np.ndarray, smoothing: int = 5) -> float:
    """Mean correlation over clips of smoothed log-energy of speech ``[B, 640·T]`` and jaw opening ``[B, T]``."""
    power = np.square(speech.reshape(*jaw.shape, SAMPLES_PER_FRAME)).mean(-1)
    energy = np.log(np.sqrt(power) + 1e-2)
    kernel = np.ones(smoothing) / smoothing
    found = []
    for e, j in zip(energy, jaw, strict=True):
        smooth = np.convolve(e, kernel, "same")
        if smooth.std() > 1e-3 and j.std() > 1e-6:
            found.append(max(correlation_at(smooth, j, lag) for lag in range(-MAX_LAG, MAX_LAG + 1)))
    return float(np.mean(found)) if found else 0.0
