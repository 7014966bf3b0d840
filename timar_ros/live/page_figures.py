"""Figures of a running conversation for the page: poses, levels, latency."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from timar_ros.data.motion_files import dualtalk_pose
from timar_ros.evaluation.report.report_heads import hints
from timar_ros.live.shown_motion import ShownMotion
from timar_ros.retarget.kinematics import forward_rotation
from timar_ros.retarget.profile import RobotProfile
from timar_ros.retarget.rotations import rep_to_flame

QUIETEST = -60.0
"""Sound of this level against full scale [dB] is shown as silence."""

LEVEL_HELD_NS = 200_000_000
"""How long a level is valid after the begin of its piece of sound, if no other piece follows."""


def face_pose(motion: ShownMotion, now_ns: int) -> dict[str, Any]:
    """A face now: head, jaw, and hints of its expression, as columns of the report's `pose`."""
    shown = motion.at(now_ns)
    if shown is None:
        return {"pose": [0.0] * 9, "known": False, "speaking": False}
    frame, known, speaking = shown
    frame = np.nan_to_num(frame)
    face = [0.0] * 3
    if known:
        recent = np.nan_to_num(motion.recent(now_ns))
        face = hints(np.concatenate([recent, frame[None]]))[-1].tolist()
    pose = [round(float(value), 4) for value in (*dualtalk_pose(frame[None])[0], *face)]
    return {"pose": pose, "known": known, "speaking": speaking}


def robot_pose(profile: RobotProfile, positions: dict[str, float]) -> list[float]:
    """Head and jaw of a robot from its joint positions [rad], as columns of the report's `pose`.

    Joints without a position are at neutral.
    """
    neck = [positions.get(joint.name, joint.neutral) for joint in profile.neck]
    head = rep_to_flame(forward_rotation(profile.neck, neck).as_rotvec())
    jaw, hinge = 0.0, profile.jaw.joint
    if hinge is not None:
        opening = (positions.get(hinge.name, hinge.neutral) - hinge.neutral) / (
            profile.jaw.open_position - hinge.neutral
        )
        jaw = profile.jaw.full_open * min(max(opening, 0.0), 1.0)
    return [round(float(value), 4) for value in (*head, jaw, 0.0, 0.0, 0.0, 0.0, 0.0)]


def level(samples: npt.ArrayLike) -> float:
    """Loudness of a piece of sound, 0 (silence) to 1 (full scale), linear in decibels."""
    values = np.asarray(samples, np.float64)
    power = float(np.mean(np.square(values))) if values.size else 0.0
    if not power > 0.0:
        return 0.0
    return min(max(1.0 - 10.0 * math.log10(power) / QUIETEST, 0.0), 1.0)


class Levels:
    """Loudness of one voice by its playing time."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, float]] = deque(maxlen=3000)
        self._now = (0, 0.0)

    def push(self, stamp_ns: int, value: float) -> None:
        """Add the level of a piece of sound that begins at a time."""
        self._waiting.append((stamp_ns, value))

    def at(self, now_ns: int) -> float:
        """The level at a time; times must ascend."""
        while self._waiting and self._waiting[0][0] <= now_ns:
            self._now = self._waiting.popleft()
        return self._now[1] if now_ns - self._now[0] < LEVEL_HELD_NS else 0.0

    def clear(self) -> None:
        """Drop levels of later times."""
        self._waiting.clear()


class Latencies:
    """Latencies of answers: from a turn's arrival to its motion's arrival, at the page's node."""

    def __init__(self) -> None:
        self._arrivals: dict[int, float] = {}
        self._latencies: deque[float] = deque(maxlen=60)
        self.answered = 0

    def ask(self, turn: int, seconds: float) -> None:
        """Note a turn's arrival at a time of a steady clock."""
        self._arrivals[turn] = seconds
        while len(self._arrivals) > 100:
            del self._arrivals[min(self._arrivals)]

    def answer(self, turn: int, seconds: float) -> None:
        """Note the arrival of a turn's motion."""
        arrival = self._arrivals.pop(turn, None)
        if arrival is not None:
            self._latencies.append(seconds - arrival)
            self.answered += 1

    def percentile(self, part: float) -> float | None:
        """A percentile of the last 60 latencies [ms]; None without any."""
        return round(float(np.percentile(self._latencies, part)) * 1e3, 1) if self._latencies else None
