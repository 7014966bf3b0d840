"""A small DualTalk folder made of plain numbers, for tests that need one without speech engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from timar_ros.data.audio_files import write_audio
from timar_ros.data.motion_files import write_motion


def person(seed: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Speech [640·frames] in bursts and motion [frames,56] that moves plausibly."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames) / 25
    loud = np.repeat((np.sin(time + seed) > 0).astype(np.float32), 640)
    speech = 0.1 * loud * rng.standard_normal(640 * frames).astype(np.float32)
    motion = 0.3 * np.sin(time[:, None] * rng.uniform(0.5, 6, 56) + rng.uniform(0, 6, 56))
    motion += 0.05 * rng.standard_normal((frames, 56))
    motion[:, 50:] *= 0.2
    motion[:, 50] += 0.05
    return speech.astype(np.float32), motion.astype(np.float32)


def write_pair(folder: Path, name: str, seed: int = 0, frames: int = 250) -> None:
    """The four files of a conversation."""
    folder.mkdir(parents=True, exist_ok=True)
    for speaker in (1, 2):
        speech, motion = person(10 * seed + speaker, frames)
        write_audio(folder / f"{name}_speaker{speaker}.wav", speech)
        write_motion(folder / f"{name}_speaker{speaker}.npz", motion)
