"""Messages to numpy and back: AudioChunk, FlameMotion and Turn, written once for live topics and for bags.

Reading works on any object that has the message's fields: rclpy's classes hold sequences as ``array.array``, rosbags'
classes as numpy arrays. :class:`Encoder` writes messages of the given classes. Nothing here needs ROS.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timar_ros.motion import MOTION_SIZE, PARTS
from timar_ros.streaming.message_checks import MessageError, check_fields
from timar_ros.streaming.turns.turn_types import TurnInput

Floats = NDArray[np.float32]

COMPLETE, PLANNED = 0, 1
"""Values of ``Turn.phase``."""
BITS = {"expression": 1, "jaw": 2, "head_pose": 4}
"""Bits of ``Turn.user_tracked``."""


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
        """The frames to show at a time or later; there may be none."""
        period = 1e9 / self.rate
        gone = min(len(self.frames), max(0, math.ceil((time_ns - self.stamp_ns) / period)))
        speaking = None if self.speaking is None else self.speaking[gone:]
        return replace(
            self, stamp_ns=self.stamp_ns + round(gone * period), frames=self.frames[gone:], speaking=speaking
        )


# Reading


def to_ns(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` (or Duration) in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def samples_of(message: Any) -> Floats:
    """An AudioChunk's samples [n, channels], with unchecked values.

    :raises MessageError: for no channels, or a length that the channels do not divide.
    """
    channels = int(message.channels)
    if channels < 1 or len(message.data) % channels:
        raise MessageError(f"{len(message.data)} samples cannot be {channels} interleaved channels")
    return np.asarray(message.data, np.float32).reshape(-1, channels)


def audio(message: Any) -> Audio:
    """An AudioChunk's content.

    :raises MessageError: for a field that breaks its rule, or a length that the channels do not divide.
    """
    check_fields(message, "timar_ros/msg/AudioChunk")
    data = samples_of(message)
    return Audio(
        to_ns(message.header.stamp),
        int(message.stream_id),
        int(message.sample_index),
        int(message.sample_rate),
        data,
        bool(message.end_of_stream),
    )


def frames_of(message: Any) -> Floats:
    """A FlameMotion's frames [n, 56], with unchecked values; parts missing from the message are NaN.

    :raises MessageError: for arrays of no whole number of frames, or of different numbers of frames.
    """
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
    frames = np.full((length, MOTION_SIZE), np.nan, np.float32)
    for name, columns in PARTS.items():
        if len(getattr(message, name)):
            frames[:, columns] = np.asarray(getattr(message, name), np.float32).reshape(length, -1)
    return frames


def motion(message: Any) -> Motion:
    """A FlameMotion's content, NaN where not known.

    :raises MessageError: for a field that breaks its rule, or lengths that do not fit each other.
    """
    check_fields(message, "timar_ros/msg/FlameMotion")
    frames = frames_of(message)
    speaking = None
    if len(message.speaking):
        if len(message.speaking) != len(frames):
            raise MessageError(f"speaking has {len(message.speaking)} values for {len(frames)} frames")
        speaking = np.asarray(message.speaking, np.uint8)
    return Motion(to_ns(message.header.stamp), float(message.rate), int(message.turn), frames, speaking)


def user_motion_of(message: Any) -> Floats | None:
    """The user's frames of a Turn, [F, 56] with NaN where not tracked; None when nothing was tracked at all."""
    bits = np.asarray(message.user_tracked, np.uint8)
    if not bits.any():
        return None
    frames = np.array(message.user_motion, np.float32).reshape(-1, MOTION_SIZE)
    for name, columns in PARTS.items():
        frames[bits & BITS[name] == 0, columns] = np.nan
    return frames


def tracked_bits(frames: Floats) -> NDArray[np.uint8]:
    """For each of the frames [n, 56] the sum of Turn's bits for the fully known parts."""
    bits = np.zeros(len(frames), np.uint8)
    for name, columns in PARTS.items():
        bits |= np.where(np.isfinite(frames[:, columns]).all(axis=1), BITS[name], 0).astype(np.uint8)
    return bits


def turn(message: Any) -> TurnInput:
    """A Turn message's content; untracked values become NaN, and motion without any tracked value None.

    :raises MessageError: for a field that breaks its rule, or lengths that do not fit rate and duration.
    """
    check_fields(message, "timar_ros/msg/Turn")
    samples = round(message.sample_rate * message.duration)
    count = round(message.motion_rate * message.duration)
    planned = message.phase == PLANNED
    expected = {"agent_speech": samples, "user_speech": 0 if planned else samples}
    for name, length in expected.items():
        if len(getattr(message, name)) != length or samples < 1:
            raise MessageError(
                f"{name} has {len(getattr(message, name))} samples, {length} belong to "
                f"{message.duration:g} s at {message.sample_rate} Hz"
            )
    # Bags recorded before rolling mode lack this field.
    ahead = np.asarray(getattr(message, "agent_ahead", ()), np.float32)
    frames = None
    if len(message.user_motion):
        if len(message.user_motion) != count * MOTION_SIZE or len(message.user_tracked) != count:
            raise MessageError(
                f"user_motion has {len(message.user_motion)} values, {count} x {MOTION_SIZE} belong to the turn"
            )
        frames = user_motion_of(message)
    return TurnInput(
        number=int(message.number),
        stamp_ns=to_ns(message.header.stamp),
        duration=float(message.duration),
        user_speech=np.zeros(samples, np.float32) if planned else np.asarray(message.user_speech, np.float32),
        agent_speech=np.asarray(message.agent_speech, np.float32),
        user_motion=frames,
        planned=planned,
        agent_ahead=ahead if len(ahead) else None,
        lost_user=int(message.lost_user_samples),
        lost_agent=int(message.lost_agent_samples),
    )


# Writing


@dataclass(frozen=True)
class Encoder:
    """Makes messages of one kind of classes.

    :ivar types: the classes by the types' full names (``timar_ros/msg/Turn``), called with all fields by name.
    :ivar sequence: converts a flat array to a field's content.
    :ivar strict: refuse values that no receiver accepts. False is for copies of recordings: audio stays unchanged, and
        a part that is not known in every frame becomes not known.
    """

    types: Mapping[str, Any]
    sequence: Callable[[NDArray[Any]], Any]
    strict: bool = True

    def stamp(self, nanoseconds: int) -> Any:
        """Nanoseconds since the epoch as a ``builtin_interfaces/Time``."""
        seconds, rest = divmod(int(nanoseconds), 1_000_000_000)
        return self.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=rest)

    def header(self, stamp_ns: int, frame_id: str = "") -> Any:
        """A ``std_msgs/Header``."""
        return self.types["std_msgs/msg/Header"](stamp=self.stamp(stamp_ns), frame_id=frame_id)

    def audio(
        self,
        stamp_ns: int,
        sample_index: int,
        rate: int,
        samples: ArrayLike,
        *,
        stream_id: int = 0,
        end: bool = False,
        frame_id: str = "",
    ) -> Any:
        """Samples [n] or [n, channels] as an AudioChunk.

        :raises MessageError: for a wrong shape, or (strict) values that are not finite.
        """
        data = np.asarray(samples, np.float32)
        if data.ndim not in (1, 2) or (data.ndim == 2 and not 1 <= data.shape[1] <= 255):
            raise MessageError(f"audio must be [n] or [n, channels], not {data.shape}")
        if self.strict and not np.isfinite(data).all():
            raise MessageError("audio holds values that are not finite")
        return self.types["timar_ros/msg/AudioChunk"](
            header=self.header(stamp_ns, frame_id),
            stream_id=stream_id,
            sample_index=int(sample_index),
            sample_rate=int(rate),
            channels=1 if data.ndim == 1 else data.shape[1],
            data=self._floats(data),
            end_of_stream=end,
        )

    def audio_chunk(self, chunk: Any) -> Any:
        """A chunk of a stream, any object with the fields of :class:`Audio`, as an AudioChunk; samples as in `audio`.

        :raises MessageError: as :meth:`audio`.
        """
        return self.audio(
            chunk.stamp_ns, chunk.sample_index, chunk.rate, chunk.samples, stream_id=chunk.stream_id, end=chunk.end
        )

    def motion(
        self,
        stamp_ns: int,
        rate: float,
        frames: ArrayLike,
        *,
        turn: int = 0,
        speaking: ArrayLike | None = None,
        from_plan: bool = False,
        frame_id: str = "",
    ) -> Any:
        """Frames [n, 56] as one FlameMotion. A part that is NaN throughout becomes an empty array ("not known").

        :raises MessageError: for a wrong shape or (strict) infinite values, or a part known in some frames only (see
            :meth:`motions`).
        """
        data = self._frames(frames)
        parts = {}
        for name, columns in PARTS.items():
            part = data[:, columns]
            known = bool(np.isfinite(part).all())
            if self.strict and not known and not np.isnan(part).all():
                raise MessageError(f"{name} is known in some of the frames only, or infinite")
            parts[name] = self._floats(part if known else ())
        flags = np.asarray(() if speaking is None else speaking, np.uint8)
        if speaking is not None and flags.shape != (len(data),):
            raise MessageError(f"speaking must be [{len(data)}], not {flags.shape}")
        return self.types["timar_ros/msg/FlameMotion"](
            header=self.header(stamp_ns, frame_id),
            rate=float(rate),
            turn=int(turn),
            speaking=self._octets(flags),
            from_plan=bool(from_plan),
            **parts,
        )

    def motions(self, stamp_ns: int, rate: float, frames: ArrayLike) -> list[Any]:
        """A tracker's frames [n, 56] with gaps (NaN) as the fewest equivalent FlameMotions, without frames all NaN."""
        data = self._frames(frames)
        tracked = tracked_bits(data)
        edges = [0, *(np.flatnonzero(np.diff(tracked)) + 1).tolist(), len(data)]
        messages = []
        for first, last in itertools.pairwise(edges):
            if last == first or tracked[first] == 0:
                continue
            piece = data[first:last].copy()
            for name, columns in PARTS.items():
                if not tracked[first] & BITS[name]:
                    piece[:, columns] = np.nan
            messages.append(self.motion(stamp_ns + round(first * 1e9 / rate), rate, piece))
        return messages

    def motion_gap(self, stamp_ns: int, rate: float) -> Any:
        """A tracker's FlameMotion without frames: no frame from before this stamp follows."""
        nothing = {name: self._floats(()) for name in PARTS}
        return self.types["timar_ros/msg/FlameMotion"](
            header=self.header(stamp_ns),
            rate=float(rate),
            turn=0,
            speaking=self._octets(()),
            from_plan=False,
            **nothing,
        )

    def turn(self, turn: TurnInput, motion_rate: float) -> Any:
        """A turn of the conversation as a Turn: NaN columns of the user's motion become zeros and cleared bits.

        :raises MessageError: for speech of different lengths, or frames of a wrong shape.
        """
        user_speech: Floats = np.zeros(0, np.float32)
        known, bits = np.zeros(0, np.float32), np.zeros(0, np.uint8)
        if not turn.planned:
            if len(turn.user_speech) != len(turn.agent_speech):
                raise MessageError(
                    f"speech of {len(turn.user_speech)} (user) and {len(turn.agent_speech)} (agent) samples"
                )
            user_speech = turn.user_speech
            if turn.user_motion is not None:
                frames = self._frames(turn.user_motion)
                bits, known = tracked_bits(frames), frames.copy()
                for name, columns in PARTS.items():
                    known[bits & BITS[name] == 0, columns] = 0.0
        return self.types["timar_ros/msg/Turn"](
            header=self.header(turn.stamp_ns),
            number=int(turn.number),
            phase=PLANNED if turn.planned else COMPLETE,
            duration=float(turn.duration),
            sample_rate=round(len(turn.agent_speech) / turn.duration),
            user_speech=self._floats(user_speech),
            agent_speech=self._floats(turn.agent_speech),
            agent_ahead=self._floats(() if turn.agent_ahead is None else turn.agent_ahead),
            motion_rate=float(motion_rate),
            user_motion=self._floats(known),
            user_tracked=self._octets(bits),
            lost_user_samples=0 if turn.planned else int(turn.lost_user),
            lost_agent_samples=int(turn.lost_agent),
        )

    def _frames(self, frames: ArrayLike) -> Floats:
        data = np.asarray(frames, np.float32)
        if data.ndim != 2 or data.shape[1] != MOTION_SIZE or not len(data):
            raise MessageError(f"motion must be [n, {MOTION_SIZE}] with n >= 1, not {data.shape}")
        if self.strict and np.isinf(data).any():
            raise MessageError("motion holds infinite values")
        return data

    def _floats(self, values: ArrayLike) -> Any:
        return self.sequence(np.ascontiguousarray(values, np.float32).reshape(-1))

    def _octets(self, values: ArrayLike) -> Any:
        return self.sequence(np.ascontiguousarray(values, np.uint8).reshape(-1))
