"""Messages to numpy and back, one helper each. Sizes and values are always checked, in both directions.

rclpy checks nothing by default: a fixed array of the wrong size publishes foreign memory, a float64 sequence garbage.
Sequences are filled with array.array, a hundred times faster than assigning lists or numpy.
"""

from __future__ import annotations

import array
import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import ArrayLike, NDArray

from timar_ros.motion import EXPRESSION, HEAD, JAW
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn

if TYPE_CHECKING:
    from timar_ros.streaming.turns import TurnInput

Floats = NDArray[np.float32]

FRAME = 56
PARTS = {"expression": EXPRESSION, "jaw": JAW, "head_pose": HEAD}
BITS = {"expression": Turn.EXPRESSION, "jaw": Turn.JAW, "head_pose": Turn.HEAD_POSE}
MAX_RATE = 384_000
MAX_MAGNITUDE = 1e3
"""Beyond this neither an expression coefficient nor an angle [rad] is anything but a fault of the sender."""


class MessageError(ValueError):
    """A message that cannot be what its definition says; the text names the field."""


def to_stamp(nanoseconds: int) -> Time:
    """Nanoseconds since the epoch as a ROS stamp."""
    seconds, rest = divmod(int(nanoseconds), 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)


def to_ns(stamp: Time) -> int:
    """A ROS stamp as nanoseconds since the epoch."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def shown_ns(stamp: Time, info: StreamInfo | None) -> int:
    """When that is shown which was said at a stamp: later by the playback delay, where that is known."""
    return to_ns(stamp) + (0 if info is None else round(float(info.playback_delay) * 1e9))


def floats(values: ArrayLike) -> array.array[float]:
    """Any shape, row-major, as the content of a ``float32[]`` field."""
    return array.array("f", np.ascontiguousarray(values, np.float32).tobytes())


def octets(values: ArrayLike) -> array.array[int]:
    """Any shape, row-major, as the content of a ``uint8[]`` field."""
    return array.array("B", np.ascontiguousarray(values, np.uint8).tobytes())


@dataclass(frozen=True)
class Audio:
    """An AudioChunk's content: ``samples`` [n, channels] float32 in [-1, 1], first sample at ``stamp_ns``."""

    stamp_ns: int
    stream_id: int
    sample_index: int
    rate: int
    samples: Floats
    end: bool


@dataclass(frozen=True)
class Motion:
    """A FlameMotion's content: ``frames`` [n, 56] float32 (NaN where not known), first frame at ``stamp_ns``.

    ``speaking`` is [n] uint8 or None when not known; ``turn`` is 0 for a tracker.
    """

    stamp_ns: int
    rate: float
    turn: int
    frames: Floats
    speaking: NDArray[np.uint8] | None

    def since(self, time_ns: int) -> Motion:
        """Its frames that are to be shown at a time or later; there may be none."""
        period = 1e9 / self.rate
        gone = min(len(self.frames), max(0, math.ceil((time_ns - self.stamp_ns) / period)))
        speaking = None if self.speaking is None else self.speaking[gone:]
        return replace(
            self, stamp_ns=self.stamp_ns + round(gone * period), frames=self.frames[gone:], speaking=speaking
        )


def audio_message(
    stamp_ns: int,
    sample_index: int,
    rate: int,
    samples: ArrayLike,
    *,
    stream_id: int = 0,
    end: bool = False,
    frame_id: str = "",
) -> AudioChunk:
    """Samples [n] or [n, channels] as an AudioChunk."""
    data = np.asarray(samples, np.float32)
    if data.ndim not in (1, 2) or (data.ndim == 2 and not 1 <= data.shape[1] <= 255):
        raise MessageError(f"audio must be [n] or [n, channels], not {data.shape}")
    if not np.isfinite(data).all():
        raise MessageError("audio holds values that are not finite")
    made = AudioChunk(stream_id=stream_id, sample_index=int(sample_index), sample_rate=int(rate), end_of_stream=end)
    made.header.stamp = to_stamp(stamp_ns)
    made.header.frame_id = frame_id
    made.channels = 1 if data.ndim == 1 else data.shape[1]
    made.data = floats(data)
    return made


def audio(message: AudioChunk) -> Audio:
    """An AudioChunk's content.

    :raises MessageError: for no rate, no channels, a length that the channels do not divide, or values not finite.
    """
    if not 0 < message.sample_rate <= MAX_RATE:
        raise MessageError(f"sample_rate is {message.sample_rate} Hz")
    if message.channels < 1 or len(message.data) % message.channels:
        raise MessageError(f"{len(message.data)} samples cannot be {message.channels} interleaved channels")
    data = np.frombuffer(message.data, np.float32).reshape(-1, message.channels)
    if not np.isfinite(data).all():
        raise MessageError("data holds values that are not finite")
    return Audio(
        to_ns(message.header.stamp),
        message.stream_id,
        message.sample_index,
        message.sample_rate,
        data,
        message.end_of_stream,
    )


def motion_message(
    stamp_ns: int,
    rate: float,
    frames: ArrayLike,
    *,
    turn: int = 0,
    speaking: ArrayLike | None = None,
    frame_id: str = "",
) -> FlameMotion:
    """Frames [n, 56] as one FlameMotion. A part that is NaN throughout becomes an empty array ("not known").

    :raises MessageError: for a wrong shape, infinite values, or a part known in some frames only (see
        `motion_messages`).
    """
    data = _frames(frames)
    made = FlameMotion(rate=float(rate), turn=int(turn))
    made.header.stamp = to_stamp(stamp_ns)
    made.header.frame_id = frame_id
    for name, columns in PARTS.items():
        part = data[:, columns]
        known = np.isfinite(part).all()
        if not known and not np.isnan(part).all():
            raise MessageError(f"{name} is known in some of the frames only, or infinite")
        setattr(made, name, floats(part if known else ()))
    if speaking is not None:
        flags = np.asarray(speaking, np.uint8)
        if flags.shape != (len(data),):
            raise MessageError(f"speaking must be [{len(data)}], not {flags.shape}")
        made.speaking = octets(flags)
    return made


def motion_messages(stamp_ns: int, rate: float, frames: ArrayLike) -> list[FlameMotion]:
    """A tracker's frames [n, 56] with gaps (NaN) as as few messages as say the same; frames all NaN are left out."""
    data = _frames(frames)
    tracked = tracked_bits(data)
    edges = [0, *(np.flatnonzero(np.diff(tracked)) + 1).tolist(), len(data)]
    made = []
    for first, last in itertools.pairwise(edges):
        if last == first or tracked[first] == 0:
            continue
        piece = data[first:last].copy()
        for name, columns in PARTS.items():
            if not tracked[first] & BITS[name]:
                piece[:, columns] = np.nan
        made.append(motion_message(stamp_ns + round(first * 1e9 / rate), rate, piece))
    return made


def motion(message: FlameMotion) -> Motion:
    """A FlameMotion's content, NaN where not known.

    :raises MessageError: for lengths that do not fit each other, a rate that is none, or impossible values.
    """
    if not 0.0 < message.rate <= 1000.0:
        raise MessageError(f"rate is {message.rate} Hz")
    counts = set()
    for name, columns in PARTS.items():
        count, rest = divmod(len(getattr(message, name)), columns.stop - columns.start)
        if rest:
            raise MessageError(f"{name} has {len(getattr(message, name))} values")
        if count:
            counts.add(count)
    if len(counts) > 1:
        raise MessageError(f"its parts have different numbers of frames: {sorted(counts)}")
    length = counts.pop() if counts else len(message.speaking)
    frames = np.full((length, FRAME), np.nan, np.float32)
    for name, columns in PARTS.items():
        values = np.frombuffer(getattr(message, name), np.float32)
        if values.size:
            if not (np.abs(values) <= MAX_MAGNITUDE).all():
                raise MessageError(f"{name} holds values that are not finite or beyond {MAX_MAGNITUDE:g}")
            frames[:, columns] = values.reshape(length, -1)
    speaking = None
    if len(message.speaking):
        if len(message.speaking) != length:
            raise MessageError(f"speaking has {len(message.speaking)} values for {length} frames")
        speaking = np.frombuffer(message.speaking, np.uint8)
    return Motion(to_ns(message.header.stamp), float(message.rate), message.turn, frames, speaking)


def tracked_bits(frames: Floats) -> NDArray[np.uint8]:
    """For each of the frames [n, 56] the sum of Turn's bits of the parts that are wholly known."""
    bits = np.zeros(len(frames), np.uint8)
    for name, columns in PARTS.items():
        bits |= np.where(np.isfinite(frames[:, columns]).all(axis=1), BITS[name], 0).astype(np.uint8)
    return bits


def turn_message(turn: TurnInput, motion_rate: float) -> Turn:
    """A turn of the conversation as a message: NaN columns of the user's motion become zeros and cleared bits."""
    made = Turn(number=turn.number, duration=float(turn.duration), motion_rate=float(motion_rate))
    made.header.stamp = to_stamp(turn.stamp_ns)
    made.phase = Turn.PLANNED if turn.planned else Turn.COMPLETE
    made.sample_rate = round(len(turn.agent_speech) / turn.duration)
    made.agent_speech = floats(turn.agent_speech)
    made.lost_agent_samples = int(turn.lost_agent)
    if turn.planned:
        return made
    if len(turn.user_speech) != len(turn.agent_speech):
        raise MessageError(f"speech of {len(turn.user_speech)} (user) and {len(turn.agent_speech)} (agent) samples")
    made.user_speech = floats(turn.user_speech)
    made.lost_user_samples = int(turn.lost_user)
    if turn.user_motion is not None:
        frames = _frames(turn.user_motion)
        bits = tracked_bits(frames)
        known = frames.copy()
        for name, columns in PARTS.items():
            known[bits & BITS[name] == 0, columns] = 0.0
        made.user_motion = floats(known)
        made.user_tracked = octets(bits)
    return made


def turn(message: Turn) -> TurnInput:
    """A Turn message's content; what was not tracked is NaN again, and None where nothing was.

    :raises MessageError: when the lengths do not fit rate and duration.
    """
    samples = round(message.sample_rate * message.duration)
    count = round(message.motion_rate * message.duration)
    planned = message.phase == Turn.PLANNED
    expected = {"agent_speech": samples, "user_speech": 0 if planned else samples}
    for name, length in expected.items():
        if len(getattr(message, name)) != length or samples < 1:
            raise MessageError(
                f"{name} has {len(getattr(message, name))} samples, {length} belong to "
                f"{message.duration:g} s at {message.sample_rate} Hz"
            )
        if not np.isfinite(np.frombuffer(getattr(message, name), np.float32)).all():
            raise MessageError(f"{name} holds values that are not finite")
    frames = None
    if len(message.user_motion):
        if len(message.user_motion) != count * FRAME or len(message.user_tracked) != count:
            raise MessageError(
                f"user_motion has {len(message.user_motion)} values, {count} x {FRAME} belong to the turn"
            )
        frames = np.frombuffer(message.user_motion, np.float32).reshape(count, FRAME).copy()
        if not (np.abs(frames) <= MAX_MAGNITUDE).all():
            raise MessageError(f"user_motion holds values that are not finite or beyond {MAX_MAGNITUDE:g}")
        bits = np.frombuffer(message.user_tracked, np.uint8)
        for name, columns in PARTS.items():
            frames[bits & BITS[name] == 0, columns] = np.nan
        if not bits.any():
            frames = None
    from timar_ros.streaming.turns import TurnInput

    return TurnInput(
        number=message.number,
        stamp_ns=to_ns(message.header.stamp),
        duration=float(message.duration),
        user_speech=np.frombuffer(message.user_speech, np.float32) if not planned else np.zeros(samples, np.float32),
        agent_speech=np.frombuffer(message.agent_speech, np.float32),
        user_motion=frames,
        planned=planned,
        lost_user=message.lost_user_samples,
        lost_agent=message.lost_agent_samples,
    )


def _frames(frames: ArrayLike) -> Floats:
    data = np.asarray(frames, np.float32)
    if data.ndim != 2 or data.shape[1] != FRAME or not len(data):
        raise MessageError(f"motion must be [n, {FRAME}] with n >= 1, not {data.shape}")
    if np.isinf(data).any():
        raise MessageError("motion holds infinite values")
    return data
