"""Gaps in a bag's user motion while its tracker runs: lost messages, or a head out of sight.

A player's clock stands still shortly after a turn's end until the turn is answered, so the segmenter would wait forever
for a missing frame that may only be late. The player must therefore publish that the frame does not exist.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from timar_ros.bags.bag_foreign import Inputs, MotionEvent
from timar_ros.errors import UserError
from timar_ros.motion import MOTION_SIZE
from timar_ros.streaming.message_checks import MessageError
from timar_ros.streaming.turns.turn_motion import WIDEST

STEP_NS = 20_000_000
"""Time between two messages without frames in a gap [ns]."""

MARGIN_NS = 10_000
"""Larger than the rounding of stamps."""

LONGEST_NS = 5_000_000_000
"""After this time without a frame no turn waits for frames."""

_NOTHING = np.zeros((0, MOTION_SIZE), np.float32)


def gap_events(inputs: Inputs) -> Iterator[MotionEvent]:
    """For each gap of a bag's motion, events without frames; an event means that no earlier frame follows.

    The events are in order of arrival; none arrives before the frames that precede its gap.

    :param inputs: the bag's inputs; this function reads their motion to the end.
    """
    frames = sorted(_frames(inputs))
    arrived = 0
    for number, (stamp, arrival, rate) in enumerate(frames):
        arrived = max(arrived, arrival)
        begin = stamp + round(WIDEST * 1e9 / rate) + MARGIN_NS
        following = frames[number + 1][0] if number + 1 < len(frames) else stamp + LONGEST_NS
        if following > begin:
            for at in (*range(begin, min(following, stamp + LONGEST_NS), STEP_NS), following):
                yield MotionEvent(max(arrived, at), at, rate, _NOTHING)


def _frames(inputs: Inputs) -> Iterator[tuple[int, int, float]]:
    """Stamp [ns], time of arrival [ns] and rate [Hz] of each frame."""
    # A damaged message ends the motion here; the player reports it when it reads it.
    with contextlib.suppress(UserError, MessageError):
        for event in inputs.motion():
            for index in range(len(event.frames)):
                yield event.stamp_ns + round(index * 1e9 / event.rate), event.arrived_ns, event.rate
