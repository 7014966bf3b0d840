"""Check of a robot with standard motions: how well and how safely it follows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timar_ros.motion import JAW_OPENING, MOTION_RATE, MOTION_SIZE, PITCH, ROLL, YAW
from timar_ros.retarget.joint_motion import JointMotion
from timar_ros.retarget.profile import RobotProfile
from timar_ros.retarget.whole_motion import retarget_motion

Float = NDArray[np.float64]
# Differences of rounded numbers may exceed a limit by this much without a fault.
TOLERANCE = 1e-6
# Motion begins from neutral and is faded in; measurement begins at this time [s].
SETTLED = 0.5
MAX_LAG = 0.3
# A joint whose wanted position has a smaller standard deviation stands still [rad].
STILL = 1e-4


def sweeps(rate: float = MOTION_RATE) -> dict[str, Float]:
    """FLAME frames [T, 56] of a natural nod, shake, tilt, of a jaw alone and of talking; 6 s each."""
    t = np.arange(round(6 * rate)) / rate
    envelope = np.sin(np.pi * np.clip(t / t[-1], 0, 1)) ** 0.5
    motions = {name: np.zeros((len(t), MOTION_SIZE)) for name in ("nod", "shake", "tilt", "jaw", "talk")}
    motions["nod"][:, PITCH] = 0.18 * envelope * np.sin(2 * np.pi * 1.8 * t)
    motions["shake"][:, YAW] = 0.28 * envelope * np.sin(2 * np.pi * 1.3 * t)
    motions["tilt"][:, ROLL] = 0.22 * envelope * np.sin(2 * np.pi * 0.5 * t)
    talk = motions["talk"]
    talk[:, JAW_OPENING] = 0.12 + 0.10 * np.sin(2 * np.pi * 3.7 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 0.9 * t))
    motions["jaw"][:, JAW_OPENING] = talk[:, JAW_OPENING]
    talk[:, PITCH] = 0.06 * np.sin(2 * np.pi * 1.1 * t + 0.4)
    talk[:, YAW] = 0.08 * np.sin(2 * np.pi * 0.6 * t)
    talk[:, ROLL] = 0.04 * np.sin(2 * np.pi * 0.8 * t + 1.0)
    return motions


@dataclass(frozen=True)
class Check:
    """The result of one motion.

    ``use``: largest share of each limit (position, velocity, acceleration, jerk) over all joints; ``worst``: largest
    excess over a limit (not positive: never exceeded), in the limit's own unit; ``lag`` [s] and ``correlation`` between
    the neck's most moving joint (the jaw where only the jaw moves) and its wanted motion; ``lost`` [rad]: median
    unreachable angle.
    """

    motion: str
    use: dict[str, float]
    worst: float
    lag: float
    correlation: float
    lost: float

    @property
    def passed(self) -> bool:
        """Whether every limit was kept."""
        return self.worst <= TOLERANCE


def violations(profile: RobotProfile, motion: JointMotion) -> dict[str, float]:
    """Largest excess over each limit; not positive where the limit is kept.

    Jerk is the difference of accelerations over the time between rows; positions include limits that depend on another
    joint; and the numbers must be consistent: velocity and acceleration are also compared with differences, and a
    ``leap`` [rad] is the part of a position that the previous row and a jerk within the limit cannot explain.
    """
    limits, step = profile.limits(), np.diff(motion.time_ns)[:, None] * 1e-9
    p, v, a = motion.position, motion.velocity, motion.acceleration
    result = {
        "position": float(np.maximum(limits["lower"] - p, p - limits["upper"]).max()),
        "velocity": float((np.abs(v) - limits["velocity"]).max()),
        "acceleration": float((np.abs(a) - limits["acceleration"]).max()),
    }
    if len(motion) > 1:
        result["velocity"] = max(
            result["velocity"], float((np.abs(np.diff(p, axis=0) / step) - limits["velocity"]).max())
        )
        slope = np.abs(np.diff(v, axis=0) / step) - limits["acceleration"]
        result["acceleration"] = max(result["acceleration"], float(slope.max()))
        result["jerk"] = float((np.abs(np.diff(a, axis=0) / step) - limits["jerk"]).max())
        expected = p[:-1] + step * (v[:-1] + step / 2 * a[:-1])
        result["leap"] = float((np.abs(p[1:] - expected) - limits["jerk"] * step**3 / 6).max())
    for coupling in profile.couplings:
        joint, by = (p[:, profile.names.index(name)] for name in (coupling.joint, coupling.by))
        lower, upper = coupling.bounds(by)
        result["position"] = max(result["position"], float(np.maximum(lower - joint, joint - upper).max()))
    return result


def limit_use(profile: RobotProfile, motion: JointMotion) -> dict[str, float]:
    """Largest share of each limit that is used, over all joints."""
    limits, step = profile.limits(), np.diff(motion.time_ns)[:, None] * 1e-9
    half = np.where(motion.position > limits["neutral"], limits["upper"], limits["lower"]) - limits["neutral"]
    shift = motion.position - limits["neutral"]
    return {
        "position": float(np.abs(np.divide(shift, half, out=np.zeros_like(shift), where=half != 0)).max()),
        "velocity": float((np.abs(motion.velocity) / limits["velocity"]).max()),
        "acceleration": float((np.abs(motion.acceleration) / limits["acceleration"]).max()),
        "jerk": float((np.abs(np.diff(motion.acceleration, axis=0)) / step / limits["jerk"]).max()),
    }


def lag_and_correlation(wanted: ArrayLike, done: ArrayLike, rate: float) -> tuple[float, float]:
    """How much later ``done`` [T] is than ``wanted`` [T], in s, and their correlation with no shift.

    The lag is the peak of their cross-correlation, by a parabola through the samples around it; 0 and 1 for two signals
    that hardly move.
    """
    first, second = np.asarray(wanted, dtype=np.float64), np.asarray(done, dtype=np.float64)
    reach = min(round(MAX_LAG * rate), (len(first) - 3) // 3)
    if reach < 1 or first.std() < STILL:
        return 0.0, 1.0
    middle = first[reach : len(first) - reach]
    shifts = range(-reach, reach + 1)
    values = np.array([_correlation(middle, second[reach + k : len(second) - reach + k]) for k in shifts])
    best = int(np.argmax(values))
    fine = 0.0
    if 0 < best < len(values) - 1:
        before, at, after = values[best - 1 : best + 2]
        fine = 0.5 * (before - after) / min(before - 2 * at + after, -1e-12)
    return (best - reach + fine) / rate, float(values[reach])


def _correlation(first: Float, second: Float) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-12))


def check_motion(
    profile: RobotProfile, name: str, frames: ArrayLike, rate: float = MOTION_RATE
) -> tuple[Check, JointMotion]:
    """Retarget one motion and measure the result."""
    motion = retarget_motion(profile, frames, rate)
    out_rate = 1e9 / float(np.diff(motion.time_ns).mean())
    begin, end = round(SETTLED * out_rate), min(len(motion), round(len(np.asarray(frames)) / rate * out_rate))
    moves = motion.wanted.std(axis=0)
    neck = moves[: len(profile.neck)]
    mover = int(np.argmax(neck if neck.max() > STILL else moves))
    lag, correlation = lag_and_correlation(motion.wanted[begin:end, mover], motion.position[begin:end, mover], out_rate)
    worst = max(violations(profile, motion).values())
    lost = float(np.median(motion.lost_angle))
    return Check(name, limit_use(profile, motion), worst, lag, correlation, lost), motion
