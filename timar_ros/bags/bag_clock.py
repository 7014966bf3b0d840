"""Clock steps in a recording: found once and removed from arrivals and stamps.

Replay, report and conversion read messages through the same :class:`BagClock`, so that they agree on the conversation's
length. A recording without a step stays unchanged, to the bit.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from timar_ros.streaming.clock_steps import CONFIRM, NS, ClockSteps, near, spoken

CHUNK = "timar_ros/msg/AudioChunk"
TURN = "timar_ros/msg/Turn"
STAMPED = frozenset(
    {
        CHUNK,
        TURN,
        "timar_ros/msg/FlameMotion",
        "sensor_msgs/msg/JointState",
        "trajectory_msgs/msg/JointTrajectory",
        "geometry_msgs/msg/PoseStamped",
        "audio_common_msgs/msg/AudioStamped",
        "audio_common_msgs/msg/AudioDataStamped",
    }
)
"""Types whose first field is a header with a stamp that counts in the conversation."""
LONGEST_PAUSE = 600 * NS
"""A longer time without any message [ns] is a step of the recorder's clock, or a pause to cut out."""

Times = tuple[int, int]
"""Corrections to add to a message's arrival and stamp [ns]."""


class BagClock:
    """Corrections of each message's time of arrival and stamp.

    :param messages: topic, type, time of arrival [ns] and CDR bytes of every message of ``STAMPED`` types, in the order
        of arrival.
    :param decode: a message of a type from its bytes.
    """

    def __init__(self, messages: Iterable[tuple[str, str, int, bytes]], decode: Callable[[str, bytes], Any]) -> None:
        self.warnings: list[str] = []
        """Findings, one line each."""
        self._segments: dict[str, tuple[list[int], list[Times]]] = {}
        self._singles: dict[tuple[str, int], Times] = {}
        self._decode = decode
        arrivals = ClockSteps(forward=LONGEST_PAUSE)
        self._clocks: dict[tuple[str, int], ClockSteps] = {}
        self._pending: dict[tuple[str, int], list[tuple[int, Times]]] = {}
        self._streams: dict[str, tuple[int, int, int]] = {}
        self._found: list[int] = []
        self._reached: dict[tuple[str, int], int] = {}
        self._far = 0
        counts: Counter[str] = Counter()
        for topic, msgtype, arrived, data in messages:
            number = counts[topic]
            counts[topic] += 1
            placed = arrivals.place(arrived)
            if placed.verdict == "step":
                self.warnings.append(f"the recorder's clock stepped ({spoken(placed.step_ns)}): taken out")
            shift = placed.time_ns - arrived
            self._stamp(topic, msgtype, number, placed.time_ns, shift, data)
        if self._far:
            self.warnings.append(f"{self._far} messages with stamps far from all others were put where they were due")

    @property
    def stepped(self) -> bool:
        """Whether any message needs a correction."""
        return bool(self._segments or self._singles)

    def shifts(self, topic: str, number: int) -> Times:
        """Corrections of arrival and stamp [ns] of a topic's message, by its number from 0."""
        single = self._singles.get((topic, number))
        if single is not None:
            return single
        if topic not in self._segments:
            return 0, 0
        numbers, shifts = self._segments[topic]
        at = bisect_right(numbers, number) - 1
        return shifts[at] if at >= 0 else (0, 0)

    def _stamp(self, topic: str, msgtype: str, number: int, arrived: int, shift: int, data: bytes) -> None:
        stamp, length, key, counted, fresh = self._described(topic, msgtype, data)
        clock = self._clocks.setdefault(key, ClockSteps())
        if not stamp:  # without a stamp the time of arrival counts
            self._note(topic, number, (shift, 0))
            return
        # Another stream of the same machine has shown the step already.
        for step in self._found[self._reached.get(key, 0) :]:
            last = clock.due(arrived)
            if last is not None and abs(stamp - clock.shift_ns - last - step) < NS // 2:
                clock.adopt(step)
                self._moved(topic, [(at, (by, -clock.shift_ns)) for at, (by, _) in self._pending.pop(key, [])])
                self._reached[key] = len(self._found)
        if fresh and near(stamp - clock.shift_ns, clock.due(arrived) or stamp):
            placed = clock.begin(stamp, length, arrived)  # a new utterance may be ahead of its time
        else:
            placed = clock.place(stamp, length, arrived, counted=counted)
        times = (shift, placed.time_ns - stamp)
        if placed.verdict == "stray":
            self._pending.setdefault(key, []).append((number, times))
            # A stamp far from all others would make the conversation endless; for a nearer one, later messages decide.
            if not near(stamp - clock.shift_ns, placed.time_ns):
                self._singles[topic, number] = times
                self._far += 1
            else:
                self._note(topic, number, (shift, -clock.shift_ns))
            return
        waiting = self._pending.pop(key, [])
        if placed.verdict == "step":
            self._found.append(placed.step_ns)
            self._reached[key] = len(self._found)
            self._moved(topic, waiting[1 - CONFIRM :])
            self.warnings.append(
                f"the clock of {topic} stepped ({spoken(placed.step_ns)}): the conversation goes on without the step"
            )
        self._note(topic, number, (shift, -clock.shift_ns))

    def _moved(self, topic: str, waiting: list[tuple[int, Times]]) -> None:
        """Correct messages that seemed stray but were the first ones after a step."""
        for number, times in waiting:
            self._far -= (topic, number) in self._singles
            self._singles[topic, number] = times

    def _note(self, topic: str, number: int, times: Times) -> None:
        numbers, shifts = self._segments.get(topic, ([], []))
        if times != (shifts[-1] if shifts else (0, 0)):
            numbers.append(number)
            shifts.append(times)
            self._segments[topic] = numbers, shifts

    def _described(self, topic: str, msgtype: str, data: bytes) -> tuple[int, int, tuple[str, int], bool, bool]:
        """Stamp, length [ns], the clock's key, whether samples continue without a gap, and whether a stream begins."""
        if len(data) < 12:
            return 0, 0, (topic, 0), False, False
        seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
        stamp = seconds * NS + nanoseconds
        if msgtype == TURN:
            message = self._decode(msgtype, data)
            # A planned turn comes before its heard turn: two counts.
            return (
                stamp,
                round(min(max(0.0, float(message.duration)), 60.0) * NS),
                (topic, int(message.phase)),
                False,
                False,
            )
        if msgtype != CHUNK:
            return stamp, 0, (topic, 0), False, False
        message = self._decode(msgtype, data)
        rate, stream, index = max(int(message.sample_rate), 1), int(message.stream_id), int(message.sample_index)
        samples = len(message.data) // max(int(message.channels), 1)
        before = self._streams.get(topic)
        self._streams[topic] = stream, rate, index + samples
        counted = before == (stream, rate, index)
        return stamp, samples * NS // rate, (topic, 0), counted, before is None or before[0] != stream
