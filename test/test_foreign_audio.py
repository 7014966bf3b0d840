"""Audio messages of other packages, by stand-ins with the same fields."""

from __future__ import annotations

import array
from types import SimpleNamespace as Message

import numpy as np
import pytest

from timar_ros.errors import UserError
from timar_ros.foreign.foreign_audio import PcmFormat, decode, describe, encoding_of, format_from_info

TONE = (np.sin(np.arange(640) * 0.1) * 0.5).astype(np.float32)
INT16 = (TONE * 32768).astype("<i2")


def header(seconds: int = 7, nanoseconds: int = 5) -> Message:
    return Message(stamp=Message(sec=seconds, nanosec=nanoseconds), frame_id="")


def ros_drivers(stamped: bool) -> Message:
    data = Message(data=array.array("B", INT16.tobytes()))
    return Message(header=header(), audio=data) if stamped else data


def mgonzs13(flag: int, values: np.ndarray, channels: int = 1) -> Message:
    empty = {f: array.array("f") for f in ("float32_data", "int32_data", "int16_data", "int8_data", "uint8_data")}
    field = {1: "float32_data", 2: "int32_data", 8: "int16_data", 16: "int8_data", 32: "uint8_data"}[flag]
    data = Message(**{**empty, field: values})
    info = Message(format=flag, channels=channels, rate=44100, chunk=len(values))
    return Message(header=header(), audio=Message(audio_data=data, info=info))


def test_ros_drivers_with_and_without_stamp() -> None:
    form = PcmFormat(16000, 1, "S16LE")
    stamped = decode(ros_drivers(stamped=True), form)
    assert stamped.stamp_ns == 7_000_000_005
    assert stamped.rate == 16000
    np.testing.assert_allclose(stamped.samples[:, 0], TONE, atol=1 / 32768)
    bare = decode(ros_drivers(stamped=False), form)
    assert bare.stamp_ns is None
    np.testing.assert_array_equal(bare.samples, stamped.samples)
    assert "ros-drivers" in describe(ros_drivers(stamped=True))


def test_ros_drivers_needs_a_format() -> None:
    with pytest.raises(UserError, match="does not say its format"):
        decode(ros_drivers(stamped=True))


@pytest.mark.parametrize(
    ("flag", "values", "tolerance"),
    [
        (1, TONE, 1e-7),
        (2, (TONE.astype(np.float64) * 2**31).astype(np.int32), 1e-6),
        (8, INT16, 1 / 32768),
        (16, (TONE * 128).astype(np.int8), 1 / 128),
        (32, (TONE * 128 + 128).astype(np.uint8), 1 / 128),
    ],
)
def test_mgonzs13_formats(flag: int, values: np.ndarray, tolerance: float) -> None:
    got = decode(mgonzs13(flag, values))
    assert got.rate == 44100
    assert got.stamp_ns == 7_000_000_005
    np.testing.assert_allclose(got.samples[:, 0], TONE, atol=tolerance)
    assert "mgonzs13" in describe(mgonzs13(flag, values))


def test_interleaved_channels_stay_apart() -> None:
    pairs = np.stack([TONE, -TONE], axis=1)
    got = decode(mgonzs13(1, pairs.ravel(), channels=2))
    np.testing.assert_array_equal(got.samples, pairs)


def test_audio_utils_frame() -> None:
    message = Message(
        header=header(0, 0),
        format="signed_16",
        channel_count=1,
        sampling_frequency=16000,
        frame_sample_count=len(INT16),
        data=array.array("B", INT16.tobytes()),
    )
    got = decode(message)
    np.testing.assert_allclose(got.samples[:, 0], TONE, atol=1 / 32768)
    assert got.stamp_ns is None  # zero is a stamp that nobody filled in


@pytest.mark.parametrize("values", [INT16, TONE, INT16.view(np.uint8)])
def test_raw_arrays(values: np.ndarray) -> None:
    message = Message(layout=Message(), data=values)
    got = decode(message, PcmFormat(16000, 1, "S16LE"))
    np.testing.assert_allclose(got.samples[:, 0], TONE, atol=1 / 32768)


def test_24_bits() -> None:
    wide = (TONE.astype(np.float64) * 2**23).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
    got = decode(Message(data=wide.tobytes()), PcmFormat(48000, 1, "S24LE"))
    np.testing.assert_allclose(got.samples[:, 0], TONE, atol=2**-22)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message(data=b"\0\0\0"), "not whole samples"),
        (Message(text="hello"), "no audio"),
        (Message(layout=Message(), data=np.array([np.nan], np.float32)), "not finite"),
        (Message(layout=Message(), data=np.arange(4, dtype=np.int64)), "not understood"),
        (mgonzs13(8, INT16[:3], channels=2), "cannot be 2"),
    ],
)
def test_what_does_not_fit_is_refused(message: Message, words: str) -> None:
    with pytest.raises(UserError, match=words):
        decode(message, PcmFormat(16000, 1, "S16LE"))


def test_info() -> None:
    info = Message(channels=2, sample_rate=48000, sample_format="S16LE", bitrate=0, coding_format="WAVE")
    assert format_from_info(info) == PcmFormat(48000, 2, "S16LE")
    info.coding_format = "MP3"
    with pytest.raises(UserError, match="format:=wave"):
        format_from_info(info)
    with pytest.raises(UserError, match="not known"):
        encoding_of("adpcm")
