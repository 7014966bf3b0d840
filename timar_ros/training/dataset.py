"""Training batches: clips, augmented and masked, the same for a seed with any number of processes.

All random values of a clip come from (seed, step, place in the batch), those of a whole batch from (seed, step). So a
run continues bit for bit after a stop, and two processes together see the same clips as one process alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from timar_ros.data.audio_files import read_audio
from timar_ros.data.dualtalk_folder import Clip, DualTalkFolder, load_motion, load_speech
from timar_ros.data.pace_augmentation import change_speed
from timar_ros.errors import UserError
from timar_ros.motion import HEAD, MOTION_RATE, MOTION_SIZE, SAMPLES_PER_FRAME
from timar_ros.streaming.activity import ActivityDetector
from timar_ros.training.audio_augmentation import augment
from timar_ros.training.masks import draw_masks, mask_share
from timar_ros.training.run_config import TrainConfig

Batch = dict[str, Tensor]
# Independent streams of random numbers of one run.
ORDER, SHARE, CLIP = 0, 1, 2


class TrainingClips(Dataset[dict[str, "Tensor | str"]]):
    """Clips by (step, place, index): ``index`` selects the clip, step and place seed all its random values."""

    def __init__(
        self, config: TrainConfig, turn_frames: int, diffusion_steps: int, skip: frozenset[str] = frozenset()
    ) -> None:
        data = config.data
        self.config, self.turn_frames, self.diffusion_steps = config, turn_frames, diffusion_steps
        self.frames = round(data.clip_seconds * MOTION_RATE)
        if self.frames % turn_frames:
            raise UserError(
                f"data.clip_seconds {data.clip_seconds} is no whole number of turns of {turn_frames} frames"
            )
        self.folder = DualTalkFolder(data.path, data.split, skip=skip)
        self.clips = self.folder.clips(data.clip_seconds)
        if not self.clips:
            raise UserError(f"{data.path}/{data.split}: no conversation is as long as a clip ({data.clip_seconds} s)")
        self.last_start: dict[str, int] = {}
        for clip in self.folder.clips(None):
            self.last_start[clip.pair.name] = clip.frames
        self.set_head = np.zeros(3, np.float32)
        if data.neutral_head:
            training = DualTalkFolder(data.path, "train", skip=skip)
            self.set_head = np.mean([mean_head(pair.npz(s)) for pair in training.pairs for s in (1, 2)], axis=0)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int, int]) -> dict[str, Tensor | str]:
        step, place, index = key
        config = self.config
        rng = np.random.default_rng([config.seed, CLIP, step, place])
        share = mask_share(config.masks, np.random.default_rng([config.seed, SHARE, step]))
        clip = self.clips[index]
        wanted = self.frames
        if config.augment.speed:
            wanted = round(self.frames * (1 + rng.uniform(-config.augment.speed, config.augment.speed)))
        available = self.last_start[clip.pair.name]
        wanted = min(wanted, available)
        start = clip.start
        if config.data.random_starts:
            start = int(rng.integers(0, available - wanted + 1))
        start = min(start, available - wanted)
        clip = Clip(clip.pair, clip.agent, start, wanted)
        item = self.folder.load(clip)
        if wanted != self.frames:
            item = change_speed(item, self.frames)
        user_speech, agent_speech = augment(item["user_speech"], item["agent_speech"], config.augment, rng, self._voice)
        user_motion = np.array(item["user_motion"])
        masks = draw_masks(self.frames, self.turn_frames, share, config.masks, rng)
        for samples, heard in ((user_speech, masks.user_heard), (agent_speech, masks.agent_heard)):
            if heard < self.frames:
                samples[heard * SAMPLES_PER_FRAME :] = 0
        for group in masks.untracked:
            user_motion[:, group] = np.nan
        agent_motion = np.array(item["agent_motion"])
        if config.data.neutral_head:
            agent_motion[:, HEAD] += self.set_head - mean_head(clip.pair.npz(clip.agent))
        silent = np.zeros(self.frames, bool)
        if config.optimiser.listening_weight != 1:
            spoken = speaks(clip.pair.wav(clip.agent))[clip.start : clip.start + clip.frames]
            silent = ~spoken[np.linspace(0, len(spoken) - 1, self.frames).round().astype(int)]
        draws = config.optimiser.noise_draws
        return {
            "name": clip.name,
            "user_speech": torch.from_numpy(user_speech),
            "agent_speech": torch.from_numpy(agent_speech),
            "user_motion": torch.from_numpy(user_motion),
            "agent_motion": torch.from_numpy(agent_motion),
            "agent_mask": torch.from_numpy(masks.agent),
            "agent_silent": torch.from_numpy(silent),
            "agent_style": torch.tensor(head_style(clip.pair.npz(clip.agent))),
            "user_speech_drop": torch.from_numpy(masks.user_speech),
            "user_motion_drop": torch.from_numpy(masks.user_motion),
            "timesteps": torch.from_numpy(self._timesteps(draws, rng)),
            "noise": torch.from_numpy(rng.standard_normal((draws, self.frames, MOTION_SIZE), np.float32)),
        }

    def _voice(self, samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """A stretch of somebody's speech from another conversation, ``[samples]``, for babble."""
        pair = self.folder.pairs[rng.integers(len(self.folder.pairs))]
        available = self.last_start.get(pair.name, 0)
        frames = -(-samples // SAMPLES_PER_FRAME)
        start = int(rng.integers(0, max(1, available - frames)))
        return load_speech(pair.wav(int(rng.integers(1, 3))), start, frames, True)[:samples]

    def _timesteps(self, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Noise levels of a clip's draws, ``[draws, T]``."""
        options = self.config.optimiser
        steps = rng.integers(0, self.diffusion_steps, (draws, self.frames))
        first = round(options.noisiest_share * draws)
        if first:
            levels = np.linspace(0, self.diffusion_steps - 1, options.bound_steps or 5).round().astype(np.int64)
            steps[:first] = levels[-1]
            steps[first : 2 * first] = rng.choice(levels, (first, self.frames))
        return steps


class StepSampler(Sampler[list[tuple[int, int, int]]]):
    """Selects each step's clips: a fresh permutation every epoch, cut into steps across epoch boundaries.

    Yields this process's share of every step from ``first_step`` on, as lists of (step, place, index).
    """

    def __init__(
        self,
        clips: int,
        batch_size: int,
        micro_batch: int,
        steps: int,
        seed: int,
        first_step: int,
        rank: int,
        world: int,
    ) -> None:
        if batch_size % (world * micro_batch):
            raise UserError(
                f"optimiser.batch_size {batch_size} must be a multiple of "
                f"processes x micro_batch = {world} x {micro_batch}"
            )
        self.clips, self.batch_size, self.micro_batch, self.steps = clips, batch_size, micro_batch, steps
        self.seed, self.first_step, self.rank, self.world = seed, first_step, rank, world

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.batch_size // (self.world * self.micro_batch)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        epoch, order = -1, np.empty(0, int)
        for step in range(self.first_step, self.steps):
            keys = []
            for place in range(self.batch_size):
                drawn = step * self.batch_size + place
                if drawn // self.clips != epoch:
                    epoch = drawn // self.clips
                    order = np.random.default_rng([self.seed, ORDER, epoch]).permutation(self.clips)
                keys.append((step, place, int(order[drawn % self.clips])))
            mine = keys[self.rank :: self.world]
            for first in range(0, len(mine), self.micro_batch):
                yield mine[first : first + self.micro_batch]


def collate(samples: list[dict[str, Tensor | str]]) -> dict[str, Tensor | list[str]]:
    """Stack samples; ``timesteps`` and ``noise`` get draws as first axis (``[draws, B, T]``), as the loss needs."""
    batch: dict[str, Tensor | list[str]] = {}
    for key, value in samples[0].items():
        if isinstance(value, str):
            batch[key] = [str(sample[key]) for sample in samples]
            continue
        stacked = torch.stack([torch.as_tensor(sample[key]) for sample in samples])
        batch[key] = stacked.transpose(0, 1).contiguous() if key in ("timesteps", "noise") else stacked
    return batch


@lru_cache(maxsize=65536)
def mean_motion(path: Path) -> NDArray[np.float32]:
    """Mean over a whole file, ``[56]``."""
    return np.asarray(load_motion(path).mean(0))


def mean_head(path: Path) -> NDArray[np.float32]:
    """Mean head pose of a whole file, ``[3]`` axis-angle."""
    return mean_motion(path)[HEAD]


@lru_cache(maxsize=65536)
def head_style(path: Path) -> np.float32:
    """Liveliness of a whole file's head: the logarithm of its pose's deviation [rad], a mean over the axes."""
    deviation = load_motion(path)[:, HEAD].std(0)
    return np.float32(np.log(np.maximum(deviation, 1e-4)).mean())


@lru_cache(maxsize=65536)
def speaks(path: Path) -> NDArray[np.bool_]:
    """Frames of a file in which somebody speaks, ``[T]`` (boolean)."""
    return ActivityDetector().process(read_audio(path))


def motion_statistics(
    folder: DualTalkFolder, clips: list[Clip], neutral_head: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of every motion column over the agents' frames of ``clips``, each ``[56]``.

    :param neutral_head: head poses are taken relative to their file's mean, for the deviation.
    """
    parts = []
    for clip in clips:
        motion = np.array(folder.load(clip)["agent_motion"])
        if neutral_head:
            # The set's mean is added below: subtracting every file's own mean keeps only the mean of means.
            motion[:, HEAD] -= mean_head(clip.pair.npz(clip.agent))
        parts.append(motion)
    frames = np.concatenate(parts)
    if not np.isfinite(frames).all():
        raise UserError(f"{clips[0].pair.folder}: motion holds NaN or infinity; timar data check lists the files")
    mean = frames.mean(0)
    if neutral_head:
        mean[HEAD] += np.mean([mean_head(clip.pair.npz(clip.agent)) for clip in clips], axis=0)
    return mean, np.maximum(frames.std(0), 1e-4)
