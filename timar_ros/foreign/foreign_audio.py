"""Audio messages of other packages, distinguished by their fields.

Two packages are called ``audio_common_msgs`` and have different fields under the same names (ros-drivers/audio_common
and mgonzs13/audio_common), so a type's name does not identify it. The module imports neither: it accepts messages of
rclpy and of a bag reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from timar_ros.errors import UserError

Samples = npt.NDArray[np.float32]

# GStreamer's names, which ros-drivers uses; other packages share their meaning.
ENCODINGS: dict[str, tuple[str, float]] = {
    "S8": ("i1", 2.0**7),
    "U8": ("u1", 2.0**7),
    "S16LE": ("<i2", 2.0**15),
    "S16BE": (">i2", 2.0**15),
    "S24LE": ("s24", 2.0**23),
    "S32LE": ("<i4", 2.0**31),
    "S32BE": (">i4", 2.0**31),
    "F32LE": ("<f4", 1.0),
    "F32BE": (">f4", 1.0),
    "F64LE": ("<f8", 1.0),
}
SYNONYMS = {
    "SIGNED_8": "S8",
    "UNSIGNED_8": "U8",
    "SIGNED_16": "S16LE",
    "SIGNED_32": "S32LE",
    "SIGNED_24": "S24LE",
    "FLOAT": "F32LE",
    "DOUBLE": "F64LE",
    "FLOAT_32": "F32LE",
    "INT16": "S16LE",
    "FLOAT32": "F32LE",
}
# Arrays of mgonzs13's AudioData by PortAudio's format flags, with their full-scale values.
_PORTAUDIO = {
    1: ("float32_data", 1.0),
    2: ("int32_data", 2.0**31),
    8: ("int16_data", 2.0**15),
    16: ("int8_data", 2.0**7),
}


@dataclass(frozen=True)
class PcmFormat:
    """The format of raw samples: rate [Hz], interleaved channels, encoding (a key of ``ENCODINGS``)."""

    rate: int
    channels: int
    encoding: str

    def __post_init__(self) -> None:
        if not 1000 <= self.rate <= 384_000 or not 1 <= self.channels <= 64:
            raise UserError(f"audio of {self.rate} Hz and {self.channels} channels makes no sense; check the format")
        if self.encoding not in ENCODINGS:
            raise UserError(f"audio encoding {self.encoding!r} is not known; it can be {', '.join(ENCODINGS)}")


@dataclass(frozen=True)
class ForeignAudio:
    """Samples [n, channels] float32 in [-1, 1], their rate [Hz], and the first one's stamp [ns] or None."""

    samples: Samples
    rate: int
    stamp_ns: int | None


def encoding_of(name: str) -> str:
    """The common name of a sample format.

    :raises UserError: for an unknown format.
    """
    plain = name.strip().upper().replace("-", "_")
    plain = SYNONYMS.get(plain, plain)
    if plain not in ENCODINGS:
        raise UserError(f"audio encoding {name!r} is not known; it can be {', '.join(ENCODINGS)}")
    return plain


def format_from_info(message: Any) -> PcmFormat:
    """The format that a ros-drivers ``AudioInfo`` announces.

    :raises UserError: for compressed audio, with the sender's parameters for PCM.
    """
    coding = str(message.coding_format).strip().upper()
    if coding not in ("WAVE", "PCM", "RAW", ""):
        raise UserError(
            f"the audio is {coding.lower()}, which loses time and detail; "
            "run audio_capture with format:=wave sample_format:=S16LE"
        )
    return PcmFormat(int(message.sample_rate), int(message.channels), encoding_of(message.sample_format))


def describe(message: Any) -> str:
    """The family of an audio message, in words for a log; empty for an unknown one."""
    for has, words in (
        (("sample_index", "sample_rate", "data"), "timar_ros/AudioChunk"),
        (("audio_data", "info"), "Audio of mgonzs13's audio_common_msgs"),
        (("frame_sample_count", "channel_count"), "AudioFrame of audio_utils"),
        (("float32_data", "int16_data"), "AudioData of mgonzs13's audio_common_msgs"),
        (("layout", "data"), "raw array of std_msgs"),
    ):
        if all(hasattr(message, field) for field in has):
            return words
    inner = getattr(message, "audio", None)
    if inner is not None:
        return describe(inner)
    return "AudioData of ros-drivers' audio_common_msgs" if hasattr(message, "data") else ""


def decode(message: Any, fallback: PcmFormat | None = None) -> ForeignAudio:
    """The samples of any known audio message.

    :param message: AudioChunk, ros-drivers' AudioData or AudioDataStamped, mgonzs13's Audio, AudioStamped or AudioData,
        audio_utils' AudioFrame, or a std_msgs array (Int16MultiArray, Float32MultiArray, UInt8MultiArray …).
    :param fallback: the format of messages without one (ros-drivers, raw arrays): from an AudioInfo or from the user.
    :raises UserError: for a message that is no audio, a missing format, or contents that do not fit the format.
    """
    header = getattr(message, "header", None)
    stamp = None
    if header is not None:
        stamp = int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
        stamp = stamp or None  # a zero stamp was never filled in
    inner = getattr(message, "audio", None)
    if inner is not None:
        found = decode(inner, fallback)
        return ForeignAudio(found.samples, found.rate, stamp)
    kind = describe(message)
    if kind.startswith("timar_ros"):
        channels = int(message.channels)
        return ForeignAudio(_shape(np.asarray(message.data, np.float32), channels), int(message.sample_rate), stamp)
    if kind.startswith("Audio of mgonzs13"):
        info = message.info
        return ForeignAudio(_portaudio(message.audio_data, int(info.format), int(info.channels)), int(info.rate), stamp)
    if kind.startswith("AudioFrame"):
        form = PcmFormat(int(message.sampling_frequency), int(message.channel_count), encoding_of(message.format))
        return ForeignAudio(_pcm(message.data, form), form.rate, stamp)
    if not kind:
        raise UserError(f"messages of type {type(message).__name__} hold no audio that is known")
    if fallback is None:
        raise UserError(f"{kind} does not say its format; give sample rate, channels and encoding")
    if kind.startswith("AudioData of mgonzs13"):
        flags = [flag for flag, (field, _) in _PORTAUDIO.items() if len(getattr(message, field))]
        if len(flags) > 1:
            raise UserError(f"{kind} fills more than one of its arrays")
        samples = _portaudio(message, flags[0] if flags else 1, fallback.channels)
        return ForeignAudio(samples, fallback.rate, stamp)
    return ForeignAudio(_array(message.data, fallback), fallback.rate, stamp)


def _array(data: Any, form: PcmFormat) -> Samples:
    """Samples of an array: bytes are read by the format; numbers of a wider type are samples already."""
    if isinstance(data, (bytes, bytearray)):
        return _pcm(data, form)
    values = np.asarray(data)
    if values.dtype == np.uint8 or (values.dtype.kind in "iu" and values.dtype.itemsize == 1):
        return _pcm(values.tobytes(), form)
    if values.dtype.kind == "f":
        return _shape(values.astype(np.float32), form.channels)
    if values.dtype.kind != "i" or values.dtype.itemsize not in (2, 4):
        raise UserError(f"samples of type {values.dtype} are not understood")
    return _shape((values / 2.0 ** (8 * values.dtype.itemsize - 1)).astype(np.float32), form.channels)


def _pcm(data: Any, form: PcmFormat) -> Samples:
    raw = bytes(data) if isinstance(data, (bytes, bytearray)) else np.asarray(data).astype(np.uint8).tobytes()
    kind, scale = ENCODINGS[form.encoding]
    width = 3 if kind == "s24" else np.dtype(kind).itemsize
    if len(raw) % (width * form.channels):
        raise UserError(f"{len(raw)} bytes are not whole samples of {form.encoding} with {form.channels} channels")
    if kind == "s24":
        octets = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(octets), 4), np.uint8)
        wide[:, 1:] = octets
        values = wide.view("<i4")[:, 0] / 2.0**31
    else:
        values = np.frombuffer(raw, kind).astype(np.float64)
        if kind == "u1":
            values = values - 128.0
        values = values / scale
    return _shape(values.astype(np.float32), form.channels)


def _portaudio(data: Any, flag: int, channels: int) -> Samples:
    if flag == 32:
        values = (np.asarray(data.uint8_data, np.float64) - 128.0) / 128.0
    elif flag in _PORTAUDIO:
        field, scale = _PORTAUDIO[flag]
        values = np.asarray(getattr(data, field), np.float64) / scale
    else:
        raise UserError(f"PortAudio format {flag} is not understood; it can be 1, 2, 8, 16 or 32")
    return _shape(values.astype(np.float32), channels)


def _shape(values: Samples, channels: int) -> Samples:
    if channels < 1 or values.size % channels:
        raise UserError(f"{values.size} samples cannot be {channels} interleaved channels")
    if not np.isfinite(values).all():
        raise UserError("the audio holds values that are not finite")
    return np.ascontiguousarray(values.reshape(-1, channels), np.float32)
