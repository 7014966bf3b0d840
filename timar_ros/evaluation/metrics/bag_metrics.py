"""Metrics of a recorded run: latency, losses, lips and sound, use of the robot's limits, behaviour, and truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.bags.recording import Joints, Recording, hold
from timar_ros.data.motion_files import dualtalk_pose
from timar_ros.errors import UserError
from timar_ros.evaluation.metrics import conversation_signals
from timar_ros.motion import EXPRESSION, HEAD, JAW, JAW_OPENING, MODEL_RATE, MOTION_RATE, MOTION_SIZE, PITCH
from timar_ros.retarget.profile import RobotProfile, list_profiles, load_profile

Result = dict[str, dict[str, float]]

#: Relative excess over a limit that counts as rounding, not as a violation.
LIMIT_SLACK = 1e-6


@dataclass(frozen=True)
class Metric:
    """Display of a number."""

    label: str
    unit: str = ""
    digits: int = 2
    scale: float = 1.0


#: Every number by group, in the order of the tables. Groups and keys are those of the JSON.
METRICS: Mapping[str, Mapping[str, Metric]] = {
    "run": {
        "seconds": Metric("Length", "s", 1),
        "turns": Metric("Turns", "", 0),
        "dropped_turns": Metric("Dropped turns", "", 0),
        "lost_user_seconds": Metric("Partner's audio lost", "ms", 0, 1e3),
        "lost_agent_seconds": Metric("Robot's audio lost", "ms", 0, 1e3),
    },
    "latency": {
        "response_p50": Metric("Turn → motion, median", "ms", 1, 1e3),
        "response_p95": Metric("Turn → motion, 95 %", "ms", 1, 1e3),
        "response_max": Metric("Turn → motion, longest", "ms", 1, 1e3),
        "end_to_end_p50": Metric("End of turn → motion, median", "ms", 1, 1e3),
        "end_to_end_p95": Metric("End of turn → motion, 95 %", "ms", 1, 1e3),
        "playback_delay": Metric("Playback delay", "ms", 0, 1e3),
        "margin_min": Metric("Least time to spare", "ms", 0, 1e3),
        "late_turns": Metric("Turns shown too late", "", 0),
    },
    "motion": {
        "lip_offset": Metric("Jaw behind the voice", "ms", 0, 1e3),
        "lip_correlation": Metric("Jaw with the voice, correlation", "", 2),
        "seam_ratio": Metric("Step at seams / inside turns", "", 2),
        "head_jerk": Metric("Head jerk, RMS", "rad/s³", 1),
        "nods_listening": Metric("Nods a minute, listening", "", 1),
        "nods_speaking": Metric("Nods a minute, speaking", "", 1),
        "head_speed_listening": Metric("Head speed, listening", "°/s", 1, 180 / np.pi),
        "head_speed_speaking": Metric("Head speed, speaking", "°/s", 1, 180 / np.pi),
        "jaw_speed_listening": Metric("Jaw speed, listening", "°/s", 1, 180 / np.pi),
        "jaw_speed_speaking": Metric("Jaw speed, speaking", "°/s", 1, 180 / np.pi),
        "expression_speed_listening": Metric("Expression change, listening", "1/s", 1),
        "expression_speed_speaking": Metric("Expression change, speaking", "1/s", 1),
        "share_speaking": Metric("Time speaking", "%", 0, 100),
    },
    "robot": {
        "range_used": Metric("Most of the way to a joint's limit", "%", 0, 100),
        "speed_used": Metric("Most of a joint's speed used", "%", 0, 100),
        "limit_violations": Metric("Joint-limit violations", "", 0),
        "speed_violations": Metric("Joint-speed violations", "", 0),
        "joint_jerk": Metric("Joint jerk, RMS", "rad/s³", 1),
        "tracking_rms": Metric("Tracking error, RMS", "°", 2, 180 / np.pi),
        "tracking_max": Metric("Tracking error, largest", "°", 2, 180 / np.pi),
    },
}

GROUP_TITLES = {
    "run": "Run",
    "latency": "Latency",
    "motion": "Behaviour",
    "robot": "Robot",
    "truth": "Against the truth",
}


def measure(
    recording: Recording, profile: RobotProfile | None = None, truth: NDArray[np.float32] | None = None
) -> Result:
    """Every metric that the recording allows, by group; other metrics are NaN or left out.

    :param profile: the robot, for limits; by default the one whose joints the recording names (:func:`find_profile`).
    :param truth: the agent's true motion at 25 Hz, [T, 56], from the conversation's start.
    :raises UserError: when the truth does not fit.
    """
    profile = profile or find_profile(recording)
    result: Result = {"run": _run(recording)}
    if recording.turns:
        result["latency"] = _latency(recording)
    if recording.agent_motion is not None:
        result["motion"] = _motion(recording)
    if recording.joints is not None:
        result["robot"] = _robot(recording.joints, recording.commands, profile)
    if truth is not None:
        result["truth"] = against_truth(recording, truth)
    return result


def find_profile(recording: Recording) -> RobotProfile | None:
    """The recording's robot: the named one, else the only one that fits its joints; None without such a robot."""
    fitting = fitting_profiles(recording)
    return fitting[0] if len(fitting) == 1 else None


def fitting_profiles(recording: Recording) -> list[RobotProfile]:
    """The package's profiles with the most joints in the recording and the whole neck recorded.

    More than one if robots whose joints have the same names (NAO and Pepper, TIAGo and ARI) fit equally and the
    recording does not name its robot.
    """
    if recording.joints is None:
        return []
    there = set(recording.joints.names)
    fitting = []
    for name in list_profiles():
        profile = load_profile(name)
        if profile.neck and {joint.name for joint in profile.neck} <= there:
            fitting.append((len(there & set(profile.names)), profile))
    if named := [profile for _, profile in fitting if profile.name == recording.robot]:
        return named
    most = max((count for count, _ in fitting), default=0)
    return [profile for count, profile in fitting if count == most]


def ambiguity(recording: Recording) -> str | None:
    """The message for a recording that fits several robots; None for other recordings."""
    names = [profile.name for profile in fitting_profiles(recording)]
    if len(names) < 2:
        return None
    return f"the joints fit {', '.join(names)}: name the robot with --robot, or its limits and joints are left out"


def _run(recording: Recording) -> dict[str, float]:
    return {
        "seconds": recording.seconds,
        "turns": float(len(recording.turns)),
        "dropped_turns": float(recording.dropped),
        "lost_user_seconds": sum(turn.lost_user for turn in recording.turns) / MODEL_RATE,
        "lost_agent_seconds": sum(turn.lost_agent for turn in recording.turns) / MODEL_RATE,
    }


def _latency(recording: Recording) -> dict[str, float]:
    moved = [turn for turn in recording.turns if np.isfinite(turn.moved)]
    found = {"playback_delay": recording.playback_delay}
    found |= _spread("response", recording.response_times(), ("p50", "p95", "max"))
    whole = np.array([turn.moved - turn.start - turn.duration for turn in moved])
    # In faster or slower playback the stamps are not of the recorder's clock, and their difference means nothing.
    if len(whole) and np.all(np.abs(whole) < 60.0) and np.ptp(whole) < 30.0:
        found |= _spread("end_to_end", whole, ("p50", "p95"))
        spare = np.array([turn.start + recording.playback_delay - turn.moved for turn in moved])
        found |= {"margin_min": float(spare.min()), "late_turns": float((spare < 0).sum())}
    return found


def _spread(name: str, values: NDArray[np.float64], wanted: tuple[str, ...]) -> dict[str, float]:
    if not len(values):
        return {f"{name}_{what}": float("nan") for what in wanted}
    quantiles = {"p50": 50, "p95": 95, "max": 100}
    return {f"{name}_{what}": float(np.percentile(values, quantiles[what])) for what in wanted}


def states(recording: Recording) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Frames in which the agent speaks, and in which it listens (only the user speaks), each [T] at 25 Hz."""
    count = round(recording.seconds * MOTION_RATE)
    flags = {}
    for role, audio in (("user", recording.user_audio), ("agent", recording.agent_audio)):
        active = conversation_signals.voice_activity(audio) if audio is not None else np.zeros(0, bool)
        flags[role] = np.zeros(count, bool)
        flags[role][: len(active)] = active[:count]
    return flags["agent"], flags["user"] & ~flags["agent"]


def _motion(recording: Recording) -> dict[str, float]:
    assert recording.agent_motion is not None
    frames = recording.agent_motion.at_rate(recording.seconds)
    speaking, listening = states(recording)
    found: dict[str, float] = {"share_speaking": float(speaking.mean()) if len(speaking) else float("nan")}
    if recording.agent_audio is not None:
        offset, correlation, _, _ = conversation_signals.lip_offset(
            recording.agent_audio, frames[:, JAW_OPENING], speaking
        )
        found |= {"lip_offset": offset, "lip_correlation": correlation}
    if recording.turns:
        turn = recording.turns[0]
        first = round(turn.start * MOTION_RATE)
        found["seam_ratio"] = conversation_signals.seam_ratio(frames, max(1, round(turn.duration * MOTION_RATE)), first)
    jerks = conversation_signals.jerk(frames[:, HEAD], MOTION_RATE)
    found["head_jerk"] = _rms(jerks)
    events = conversation_signals.nods(frames[:, PITCH])
    for name, state in (("listening", listening), ("speaking", speaking)):
        minutes = state.sum() / MOTION_RATE / 60
        count = sum(bool(state[(a + b) // 2]) for a, b in events)
        found[f"nods_{name}"] = count / minutes if minutes > 1 / 60 else float("nan")
        for part, columns in (("head", HEAD), ("jaw", JAW), ("expression", EXPRESSION)):
            speed = conversation_signals.speed(frames[:, columns], MOTION_RATE)
            counted = speed[state[1:] & np.isfinite(speed)]
            found[f"{part}_speed_{name}"] = float(counted.mean()) if len(counted) else float("nan")
    return found


def _robot(joints: Joints, commands: Joints | None, profile: RobotProfile | None) -> dict[str, float]:
    fps = _rate_of(joints.time)
    found = {"joint_jerk": _rms(conversation_signals.jerk(joints.position, fps)) if fps else float("nan")}
    if profile is not None:
        found |= _against_limits(joints, profile, fps)
    if commands is not None and len(commands.time) and len(joints.time) > 1:
        errors = tracking_error(joints, commands)
        found |= {"tracking_rms": _rms(errors), "tracking_max": float(np.nanmax(np.abs(errors), initial=0.0))}
    return found


def _against_limits(joints: Joints, profile: RobotProfile, fps: float) -> dict[str, float]:
    """The share of the robot's limits that its joints used, and the number of measurements beyond them."""
    if not set(profile.names) & set(joints.names):
        return {}
    limits = profile.limits()
    found = {"range_used": 0.0, "speed_used": 0.0, "limit_violations": 0.0, "speed_violations": 0.0}
    for row, joint in enumerate(profile.joints):
        if joint.name not in joints.names:
            continue
        column = joints.names.index(joint.name)
        lower, upper, fastest = (limits[name][row] for name in ("lower", "upper", "velocity"))
        position, velocity = joints.position[:, column], joints.velocity[:, column]
        if np.isnan(velocity).all() and fps:
            velocity = np.gradient(position) * fps
        used = np.nanmax(_way(position, joint.neutral, lower, upper), initial=0.0)
        found["range_used"] = max(found["range_used"], float(used))
        found["speed_used"] = max(found["speed_used"], float(np.nanmax(np.abs(velocity), initial=0.0) / fastest))
        slack = LIMIT_SLACK * (upper - lower)
        found["limit_violations"] += float(((position > upper + slack) | (position < lower - slack)).sum())
        found["speed_violations"] += float((np.abs(velocity) > fastest * (1 + 1e-3)).sum())
    return found


def _way(position: NDArray[np.float64], rest: float, lower: float, upper: float) -> NDArray[np.float64]:
    """Each position as a share of the way from rest to the limit on its side; above 1 it is over the limit.

    For a joint that rests at a limit (a closed jaw) that way is a twentieth of its range.
    """
    room = np.where(position >= rest, upper - rest, rest - lower)
    return np.asarray(np.abs(position - rest) / np.maximum(room, 0.05 * (upper - lower)))


def tracking_error(joints: Joints, commands: Joints) -> NDArray[np.float64]:
    """Measured minus commanded position at each command's time, [T, J]; NaN outside the measurements."""
    errors = np.full(commands.position.shape, np.nan)
    inside = (commands.time >= joints.time[0]) & (commands.time <= joints.time[-1])
    for column, name in enumerate(commands.names):
        if name in joints.names:
            measured = np.interp(commands.time, joints.time, joints.position[:, joints.names.index(name)])
            errors[inside, column] = (measured - commands.position[:, column])[inside]
    return errors


def against_truth(recording: Recording, truth: NDArray[np.float32]) -> dict[str, float]:
    """The metrics of the published tables, for the recorded motion and the truth.

    Missing frames (dropped turns) are scored as the last pose, which is what people saw.

    :raises UserError: when there is no motion, or the truth is shorter than it.
    """
    from timar_ros.evaluation.metrics.paper_metrics import compute_metrics

    if recording.agent_motion is None:
        raise UserError(f"{recording.path} holds no agent/motion to be compared with a truth")
    count = min(round(recording.seconds * MOTION_RATE), len(truth))
    prediction = hold_last(recording.agent_motion.at_rate(count / MOTION_RATE))
    user = recording.user_motion
    partner = np.zeros((count, MOTION_SIZE), np.float32)
    if user is not None:
        partner = np.nan_to_num(hold_last(user.at_rate(count / MOTION_RATE)))
    # DualTalk's order: head pose, then jaw.
    poses = [dualtalk_pose(frames) for frames in (truth[:count], partner)]
    return compute_metrics(prediction, truth[:count, EXPRESSION], poses[0], partner[:, EXPRESSION], poses[1])


def hold_last(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """NaN values replaced by the last known ones of their columns, 0 before the first."""
    return np.nan_to_num(hold(frames))


def _rate_of(time: NDArray[np.float64]) -> float:
    """Messages per second by the median step; 0 with too few messages."""
    steps = np.diff(time)
    step = float(np.median(steps)) if len(steps) > 3 else 0.0
    return 1.0 / step if step > 0 else 0.0


def _rms(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(np.square(known)))) if known.size else float("nan")


def shown(group: str, key: str, value: float) -> str:
    """A number for the tables, with its unit; a dash if it is unknown."""
    metric = METRICS.get(group, {}).get(key, Metric(key, digits=4))
    if not np.isfinite(value):
        return "–"
    return f"{value * metric.scale:.{metric.digits}f} {metric.unit}".strip()


def rows(result: Result, group: str) -> list[tuple[str, str]]:
    """Label and value of every known number of a group, in the order of the tables."""
    order = METRICS.get(group)
    keys = [key for key in order if key in result[group]] if order else list(result[group])
    return [(order[key].label if order else key, shown(group, key, result[group][key])) for key in keys]


def as_json(result: Result) -> dict[str, Any]:
    """The result with NaN as null, since JSON has no NaN."""
    return {group: {k: (v if np.isfinite(v) else None) for k, v in values.items()} for group, values in result.items()}
