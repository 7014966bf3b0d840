"""Audio files to and from float32 arrays in [-1, 1]."""

from __future__ import annotations

import io
import logging
import os
import struct
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from timar_ros.errors import UserError
from timar_ros.files import atomic_path
from timar_ros.files.reading import existing_file, reading, shown
from timar_ros.motion import MODEL_RATE
from timar_ros.streaming.sound_intake import MIX, VoiceIntake

HEADERLESS = (".raw", ".pcm", ".s16", ".s16le", ".sw", ".f32", ".sln")
MOST_SAMPLES = 1 << 29
"""Most samples, over all channels, to read from one file: 3 hours of mono at 48 kHz."""


def load_channels(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], int]:
    """Read an audio file unchanged: samples [n, channels] in [-1, 1] and its rate [Hz].

    :raises UserError: when the file is missing, no audio, empty or holds samples that are not finite.
    """
    file = existing_file(path, "audio file")
    if file.suffix.lower() in HEADERLESS:
        raise UserError(
            f"audio file {shown(file)} has no header that tells its rate and format; make a WAV of it: "
            f"ffmpeg -f s16le -ar {MODEL_RATE} -ac 1 -i {shown(file)} {shown(file.with_suffix('.wav'))}"
        )
    blocks, rate, count = [], 0, 0
    with (
        reading(file, "as audio", "give a WAV, FLAC, OGG or MP3 file"),
        _Forward(_whole(file)) as sound,
    ):
        rate = int(sound.samplerate)
        # Read block by block: the length in the header may be wrong or unknown (a streamed FLAC).
        while len(block := sound.read(1 << 18, dtype="float32", always_2d=True)):
            blocks.append(block)
            count += block.size
            if count > MOST_SAMPLES:
                raise UserError(
                    f"audio file {shown(file)} has more than {MOST_SAMPLES >> 20} million samples: split it"
                )
    if not blocks:
        raise UserError(f"audio file {shown(file)} is empty: it has a header and no sample")
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise UserError(f"audio file {shown(file)} holds samples that are not finite numbers; export it again")
    return samples, rate


class _Forward(soundfile.SoundFile):
    """A file read from front to back: a stream without a length in its header allows no seeking."""

    def seekable(self) -> bool:
        return False


def _whole(file: Path) -> str | io.BytesIO:
    """The file, or a copy with the right length for a streamed WAV whose length was never filled in."""
    with file.open("rb") as stream:
        begin = stream.read(1 << 16)
    size = file.stat().st_size
    if begin[:4] != b"RIFF" or begin[8:12] != b"WAVE" or size > MOST_SAMPLES:
        return str(file)
    at = 12
    while at + 8 <= len(begin):
        length = struct.unpack_from("<I", begin, at + 4)[0]
        if begin[at : at + 4] == b"data":
            if (length and length != 0xFFFFFFFF) or size <= at + 8:
                return str(file)
            data = bytearray(file.read_bytes())
            struct.pack_into("<I", data, 4, size - 8)
            struct.pack_into("<I", data, at + 4, size - at - 8)
            return io.BytesIO(data)
        at += 8 + length + (length & 1)
    return str(file)


def load_audio(path: str | os.PathLike[str], channel: int = MIX) -> tuple[NDArray[np.float32], int]:
    """Read an audio file at its own rate: the mean of its channels [n], or one of them, and the rate [Hz].

    If channels cancel each other, the first one is taken instead of the mean. A warning reports this, silence, clipping
    and an offset.

    :param channel: number of the channel from 0 on, or MIX.
    :raises UserError: as load_channels, and when the file lacks the channel.
    """
    samples, rate = load_channels(path)
    intake = VoiceIntake(channel)
    intake.judge(samples)
    voice = intake.take(samples)
    _warn(path, intake)
    return voice, rate


def load_conversation(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Read a stereo recording at its own rate: user (left) [n], agent (right) [n] and the rate [Hz].

    :raises UserError: as load_channels, and when the file has not exactly two channels.
    """
    samples, rate = load_channels(path)
    if samples.shape[1] != 2:
        raise UserError(
            f"{path} has {samples.shape[1]} channel(s), but a conversation is stereo: left the user, right the agent"
        )
    voices = []
    for channel, speaker in enumerate(("user", "agent")):
        intake = VoiceIntake(channel)
        voices.append(intake.take(samples))
        _warn(f"{path} ({speaker})", intake)
    return voices[0], voices[1], rate


def _warn(what: str | os.PathLike[str], intake: VoiceIntake) -> None:
    for remark in intake.remarks():
        logging.getLogger(__name__).warning("%s: %s", what, remark)


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

    :raises UserError: when the suffix names no writable format, or the path cannot be written.
    """
    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in ("wav", "flac"):
        raise UserError(f"cannot write {path}: the name must end in .wav or .flac")
    with atomic_path(path) as temporary:
        soundfile.write(temporary, np.clip(samples, -1.0, 1.0), rate, subtype="PCM_16")
