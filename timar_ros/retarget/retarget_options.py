"""Behaviour of a head: the application's choices; the profile holds the robot's abilities."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from timar_ros.errors import UserError

NEUTRAL_MODES = ("none", "fixed", "running")
GAZE_MODES = ("yield", "nods")


@dataclass(frozen=True)
class RetargetOptions:
    """Behaviour of a :class:`timar_ros.retarget.Retargeter`. Angles in rad, times in s.

    ``neutral``: ``none``; ``fixed`` removes the head rotation ``neutral_pose`` (FLAME axis-angle); ``running`` removes
    a running mean with time constant ``neutral_seconds``. ``speaking_gain``, ``listening_gain``: factors of the head's
    rotation and of the jaw while the agent speaks or listens. ``nod_gain``: factor of the head's movement faster than
    ``nod_seconds``: nods, shakes, beats. ``speaking_speed``, ``listening_speed``: share of the profile's velocity
    limits to use. ``timeout``: silence of the stream after which the head eases to neutral (or into idle motion) over
    ``ease``; ``resume``: fade-in time of a stream that begins or resumes. ``gaze_mode``: while another controller owns
    the head, ``yield`` sends no neck commands, ``nods`` adds the fast part of the motion to that controller's pose.
    ``gaze_frame``: frame of the points to look at; empty: the profile's ``pose_frame``. ``gaze_origin``: the head's
    place in that frame [m]. ``gaze_share``: share of the angle to a point by which the head turns. ``gaze_seconds``:
    shortest duration of such a turn. ``gaze_timeout``: time after which a point that is not renewed is lost.
    ``idle_amplitude``: amplitude of the motion without a stream; 0: none. ``max_head``, ``max_jaw``: frames beyond are
    rejected, as are frames that are not finite.
    """

    neutral: str = "none"
    neutral_pose: tuple[float, float, float] = (0.0, 0.0, 0.0)
    neutral_seconds: float = 30.0
    speaking_gain: float = 1.0
    listening_gain: float = 1.0
    jaw_gain: float = 1.0
    nod_gain: float = 1.0
    speaking_speed: float = 1.0
    listening_speed: float = 1.0
    timeout: float = 0.5
    ease: float = 1.2
    resume: float = 0.3
    gaze_mode: str = "yield"
    gaze_frame: str = ""
    gaze_origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gaze_share: float = 1.0
    gaze_seconds: float = 0.5
    gaze_timeout: float = 2.0
    nod_seconds: float = 1.0
    idle_amplitude: float = 0.0
    max_head: float = 2.5
    max_jaw: float = 1.5
    knot_rate: float = 25.0

    def __post_init__(self) -> None:
        if self.neutral not in NEUTRAL_MODES:
            raise UserError(f"neutral must be one of {', '.join(NEUTRAL_MODES)}, not '{self.neutral}'")
        if self.gaze_mode not in GAZE_MODES:
            raise UserError(f"gaze_mode must be one of {', '.join(GAZE_MODES)}, not '{self.gaze_mode}'")
        positive = (
            *("neutral_seconds", "timeout", "ease", "nod_seconds", "max_head", "max_jaw"),
            *("gaze_seconds", "gaze_timeout"),
        )
        for option in fields(self):
            value = getattr(self, option.name)
            lowest, word = (1e-6, "positive") if option.name in positive else (0.0, "not negative")
            if isinstance(value, float) and not (math.isfinite(value) and value >= lowest):
                raise UserError(f"{option.name} must be a number and {word}, not {value}")
        for name in ("speaking_speed", "listening_speed"):
            if not 0.05 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name} must lie within 0.05 and 1, a share of the robot's own limits")
        if not 10.0 <= self.knot_rate <= 100.0:
            raise UserError("knot_rate must lie within 10 and 100 Hz")
