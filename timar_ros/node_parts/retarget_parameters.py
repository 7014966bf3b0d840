"""Parameters of node `retarget`, and the retargeting options derived from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timar_ros.retarget.profile import OUTPUTS
from timar_ros.retarget.retarget_options import GAZE_MODES, NEUTRAL_MODES, RetargetOptions
from timar_ros.ros.parameters import Parameter

_DEFAULT = RetargetOptions()


def _three(value: list[float]) -> str | None:
    return None if len(value) == 3 else "must have three numbers"


DYNAMIC = (
    Parameter("speaking_gain", 1.0, "factor of the head's motion while the agent speaks", 0.0, 3.0, dynamic=True),
    Parameter("listening_gain", 1.0, "factor of the head's motion while the agent listens", 0.0, 3.0, dynamic=True),
    Parameter("nod_gain", 1.0, "factor of the head's fast movement: nods, shakes, beats", 0.0, 3.0, dynamic=True),
    Parameter("jaw_gain", 1.0, "factor of the jaw's opening", 0.0, 5.0, dynamic=True),
    Parameter("speaking_speed", 1.0, "share of the velocity limits used while speaking", 0.05, 1.0, dynamic=True),
    Parameter("listening_speed", 1.0, "share of the velocity limits used while listening", 0.05, 1.0, dynamic=True),
)

PARAMETERS = (
    Parameter("robot", "timar_head", "robot profile: a name (`timar robots list`) or a YAML file"),
    Parameter("rate", 100.0, "joint commands per second [Hz]", 10.0, 500.0),
    Parameter("output", "profile", "kind of command; profile: the profile's kind", choices=("profile", *OUTPUTS)),
    Parameter(
        "stamp",
        "presentation",
        "stamp of trajectories: their start time, or 0 (at once) for a robot with another clock; with 'zero' the "
        "transition between two trajectories can exceed the limits of velocity and acceleration, so 'zero' needs "
        "exceed_limits",
        choices=("presentation", "zero"),
    ),
    Parameter("exceed_limits", False, "allow trajectories with stamp 'zero', which exceed the limits"),
    Parameter("point_rate", 50.0, "points per second in a trajectory [Hz]", 25.0, 500.0),
    Parameter("joint_states", False, "publish the commands as joint_states too, if no robot or simulator does"),
    Parameter(
        "wait_for_state",
        1.0,
        "how long to wait at the start for joint_states of every joint; then the node assumes neutral for the missing "
        "joints. With joints at NaN the node waits until they are finite, except with 0 [s]",
        0.0,
        60.0,
    ),
    Parameter("neutral", _DEFAULT.neutral, "definition of the head's neutral pose", choices=NEUTRAL_MODES),
    Parameter("neutral_pose", [0.0, 0.0, 0.0], "rotation removed by 'fixed', FLAME axes [rad]", check=_three),
    Parameter("neutral_seconds", _DEFAULT.neutral_seconds, "time constant of 'running' [s]", 1.0, 600.0),
    Parameter("timeout", _DEFAULT.timeout, "time without motion after which the head eases to neutral [s]", 0.05, 60.0),
    Parameter("ease", _DEFAULT.ease, "duration of easing to neutral [s]", 0.1, 10.0),
    Parameter("resume", _DEFAULT.resume, "duration of the fade-in of a stream that begins or resumes [s]", 0.0, 5.0),
    Parameter("idle_amplitude", _DEFAULT.idle_amplitude, "size of the motion without a stream [rad]", 0.0, 0.3),
    Parameter(
        "gaze_mode",
        _DEFAULT.gaze_mode,
        "while gaze/active is true: leave the neck to it (yield), or add nods to the pose of gaze/joint_states",
        choices=GAZE_MODES,
    ),
    Parameter("gaze_frame", "", "frame of gaze/target, with REP-103 axes; empty: the profile's frame of the body"),
    Parameter("gaze_origin", [0.0, 0.0, 0.0], "the head's place in that frame [m]", check=_three),
    Parameter("gaze_share", _DEFAULT.gaze_share, "share of the angle to gaze/target by which the head turns", 0.0, 1.0),
    Parameter("gaze_seconds", _DEFAULT.gaze_seconds, "shortest duration of a turn to gaze/target [s]", 0.1, 5.0),
    Parameter(
        "gaze_timeout", _DEFAULT.gaze_timeout, "time without gaze/target after which the head goes back [s]", 0.2, 60.0
    ),
    *DYNAMIC,
)  # fmt: skip


def retarget_options(value: Callable[[str], Any]) -> RetargetOptions:
    """The retargeting options from a node's parameters.

    :param value: returns a parameter's value by name.
    """
    names = [parameter.name for parameter in PARAMETERS if hasattr(_DEFAULT, parameter.name)]
    values = {name: value(name) for name in names}
    for name in ("neutral_pose", "gaze_origin"):
        x, y, z = values[name]
        values[name] = (float(x), float(y), float(z))
    return RetargetOptions(**values)
