"""Live messages to numpy and back: the codec of `timar_ros.streaming.codec` with rclpy's message classes.

The codec checks sizes and values in both directions. rclpy checks nothing by default: a fixed array of the wrong size
publishes other memory, a float64 sequence garbage. Sequences are array.array objects: assigning them is a hundred times
faster than assigning lists or numpy arrays.
"""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from std_msgs.msg import Header

from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn
from timar_ros.streaming.codec import Audio, Encoder, Motion, audio, motion, to_ns, tracked_bits, turn
from timar_ros.streaming.message_checks import MessageError

__all__ = [
    "Audio",
    "MessageError",
    "Motion",
    "audio",
    "audio_chunk_message",
    "audio_message",
    "motion",
    "motion_gap_message",
    "motion_message",
    "motion_messages",
    "shown_ns",
    "to_ns",
    "to_stamp",
    "tracked_bits",
    "turn",
    "turn_message",
]


def _sequence(values: NDArray[Any]) -> array.array[Any]:
    return array.array("B" if values.dtype == np.uint8 else "f", values.tobytes())


_ENCODER = Encoder(
    {
        "builtin_interfaces/msg/Time": Time,
        "std_msgs/msg/Header": Header,
        "timar_ros/msg/AudioChunk": AudioChunk,
        "timar_ros/msg/FlameMotion": FlameMotion,
        "timar_ros/msg/Turn": Turn,
    },
    _sequence,
)
to_stamp = _ENCODER.stamp
audio_message = _ENCODER.audio
audio_chunk_message = _ENCODER.audio_chunk
motion_message = _ENCODER.motion
motion_messages = _ENCODER.motions
motion_gap_message = _ENCODER.motion_gap
turn_message = _ENCODER.turn


def shown_ns(stamp: Time, info: StreamInfo | None) -> int:
    """Presentation time of the motion for a stamp: later by the playback delay, if that is known."""
    return to_ns(stamp) + (0 if info is None else round(float(info.playback_delay) * 1e9))
