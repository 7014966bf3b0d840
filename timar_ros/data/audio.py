"""Audio files to and from float32 arrays in [-1, 1]."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from timar_ros.data.files import atomic_path
from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE


def load_channels(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], int]:
    """Read an audio file as it is: samples [n, channels] in [-1, 1] and its rate [Hz].

    :raises UserError: when the file is missing, no audio, empty or holds samples that are not finite.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"audio file {file} not found" if not file.exists() else f"{file} is not a file")
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise UserError(f"cannot read {file} as audio ({error}); give a WAV, FLAC, OGG or MP3 file") from error
    if len(samples) == 0:
        raise UserError(f"audio file {file} is empty")
    if not np.isfinite(samples).all():
        raise UserError(f"audio file {file} holds samples that are not finite numbers; export it again")
    return samples, int(rate)


def load_audio(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], int]:
    """Read an audio file at its own rate: the mean of its channels [n] and the rate [Hz]. Raises as load_channels."""
    samples, rate = load_channels(path)
    return samples.mean(axis=1, dtype=np.float32), rate


def load_conversation(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Read a stereo recording at its own rate: user (left) [n], agent (right) [n] and the rate [Hz].

    :raises UserError: as load_channels, and when the file has not exactly two channels.
    """
    samples, rate = load_channels(path)
    if samples.shape[1] != 2:
        raise UserError(
            f"{path} has {samples.shape[1]} channel(s), but a conversation is stereo: left the user, right the agent"
        )
    return np.ascontiguousarray(samples[:, 0]), np.ascontiguousarray(samples[:, 1]), rate


def read_audio(path: str | os.PathLike[str], rate: int = MODEL_RATE) -> NDArray[np.float32]:
    """Read an audio file as one channel (the mean) at ``rate`` [Hz], shape [n]. Raises as load_channels."""
    samples, own_rate = load_audio(path)
    return resample_audio(samples, own_rate, rate)


def resample_audio(samples: NDArray[np.float32], rate: int, target: int) -> NDArray[np.float32]:
    """Resample a whole recording [n] from ``rate`` to ``target`` [Hz]: linear phase, no delay."""
    if rate == target:
        return samples
    return np.asarray(soxr.resample(samples, rate, target), dtype=np.float32)


def write_audio(path: str | os.PathLike[str], samples: NDArray[np.float32], rate: int = MODEL_RATE) -> None:
    """Write samples [n] or [n, channels] as 16-bit WAV or FLAC (by the suffix), atomically; clipped to [-1, 1].

    :raises UserError: when the suffix is no format that can be written, or the path cannot be written.
    """
    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in ("wav", "flac"):
        raise UserError(f"cannot write {path}: the name must end in .wav or .flac")
    with atomic_path(path) as temporary:
        soundfile.write(temporary, np.clip(samples, -1.0, 1.0), rate, subtype="PCM_16")
