"""Robot profiles: the joints and limits of a head, read from YAML and fully checked.

A profile names the joints in the order of the chain (from the body to the head), with axes in the head's frame at its
neutral pose (REP-103: x forward, y left, z up), and the limits for commands. Limits of a URDF describe a file, not a
motor: they are used only where plausible and where the profile has none.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError
from timar_ros.files.reading import read_yaml
from timar_ros.motion import EXPRESSION_SIZE
from timar_ros.resources import share

_Array = NDArray[np.float64] | float
OUTPUTS = ("trajectory", "forward", "pose")
# URDF exporters write speeds at or beyond this when the motor is unknown (100, 10000, 5e4, 1e8, 1e9).
IMPLAUSIBLE_VELOCITY = 50.0
# Defaults without known limits: full speed after 0.1 s, full acceleration after 0.05 s.
ACCELERATION_PER_VELOCITY = 10.0
JERK_PER_ACCELERATION = 20.0


@dataclass(frozen=True)
class Joint:
    """One joint and the limits of every command.

    Units are rad and s; ``neutral`` is the position at which the head looks straight ahead (or the jaw is closed).
    """

    name: str
    lower: float
    upper: float
    velocity: float
    acceleration: float
    jerk: float
    neutral: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.lower, self.upper, self.velocity, self.acceleration, self.jerk, self.neutral)
        if not all(math.isfinite(x) for x in numbers):
            raise UserError(f"joint '{self.name}': every limit must be a finite number")
        if not self.lower < self.upper:
            raise UserError(f"joint '{self.name}': lower limit {self.lower} is not below upper limit {self.upper}")
        if not 0 < self.velocity < IMPLAUSIBLE_VELOCITY:
            raise UserError(
                f"joint '{self.name}': velocity {self.velocity} rad/s is no motor's limit; "
                f"give one between 0 and {IMPLAUSIBLE_VELOCITY:g} in the profile"
            )
        if self.acceleration <= 0 or self.jerk <= 0:
            raise UserError(f"joint '{self.name}': acceleration and jerk must be positive")
        if not self.lower <= self.neutral <= self.upper:
            raise UserError(f"joint '{self.name}': neutral {self.neutral} lies outside [{self.lower}, {self.upper}]")


@dataclass(frozen=True)
class NeckJoint(Joint):
    """A joint that turns the head: the head turns by ``sign * (position - neutral)`` about ``axis``.

    ``axis``: unit vector in the head's frame at the neutral pose, REP-103.
    """

    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    sign: float = 1.0

    @property
    def signed_axis(self) -> NDArray[np.float64]:
        """``sign * axis``, shape [3]: the head's rotation for a growing joint position."""
        return self.sign * np.asarray(self.axis)


@dataclass(frozen=True)
class Jaw:
    """How FLAME's jaw opening drives a mouth.

    ``opening = clip(gain * max(0, jaw_x - dead_band) / full_open, 0, 1)``; the joint (if any) goes from its neutral
    (closed) to ``open_position``. ``lead`` [s]: how much earlier than the head the jaw moves, for slow motors.
    """

    joint: Joint | None = None
    open_position: float = 0.0
    full_open: float = 0.35
    gain: float = 1.0
    dead_band: float = 0.02
    lead: float = 0.0


@dataclass(frozen=True)
class FaceJoint(Joint):
    """A joint of eyes, lids or brows: ``neutral +`` a weighted sum.

    ``expression``: weight by index of FLAME's 50 coefficients; ``head``: weights of the wanted head rotation vector,
    REP-103 (roll, pitch, yaw): negative weights keep the eyes on the partner as the head turns; ``jaw``: weight of the
    opening; ``blink``: weight of closed eyelids.
    """

    expression: tuple[tuple[int, float], ...] = ()
    head: tuple[float, float, float] = (0.0, 0.0, 0.0)
    jaw: float = 0.0
    blink: float = 0.0


@dataclass(frozen=True)
class Coupling:
    """Limits of one joint that depend on the position of another, as on NAO, linear between the table's rows."""

    joint: str
    by: str
    table: tuple[tuple[float, float, float], ...]  # rows of (position of `by`, lower, upper)

    def bounds(self, position: NDArray[np.float64] | float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper limit at positions of the other joint, each of the shape of ``position``."""
        rows = np.asarray(self.table)
        return np.interp(position, rows[:, 0], rows[:, 1]), np.interp(position, rows[:, 0], rows[:, 2])

    def box_inside(self, low_by: _Array, high_by: _Array, low: _Array, high: _Array) -> NDArray[np.bool_]:
        """Whether the whole box ``[low_by, high_by] x [low, high]`` is allowed, up to rounding; shapes broadcast."""
        (lower, upper), (other_lower, other_upper) = self.bounds(low_by), self.bounds(high_by)
        lower, upper = np.maximum(lower, other_lower), np.minimum(upper, other_upper)
        rows = np.asarray(self.table)
        # Between the box's edges the strictest row applies.
        at = rows[:, 0]
        inside = (np.expand_dims(low_by, -1) < at) & (at < np.expand_dims(high_by, -1))
        lower = np.maximum(lower, np.where(inside, rows[:, 1], -np.inf).max(axis=-1))
        upper = np.minimum(upper, np.where(inside, rows[:, 2], np.inf).min(axis=-1))
        return np.asarray((low >= lower - 1e-9) & (high <= upper + 1e-9))


@dataclass(frozen=True)
class RobotProfile:
    """A robot's head. ``joints`` lists every commanded joint in the order of all arrays: neck, jaw, face."""

    name: str
    title: str
    source: str
    licence: str
    output: str
    neck: tuple[NeckJoint, ...]
    jaw: Jaw = field(default_factory=Jaw)
    face: tuple[FaceJoint, ...] = ()
    couplings: tuple[Coupling, ...] = ()
    command_topic: str = ""
    pose_frame: str = "base_link"
    bandwidth: float = 4.0
    notes: tuple[str, ...] = ()

    @property
    def joints(self) -> tuple[Joint, ...]:
        """Neck joints, then the jaw (if the robot has one), then the face."""
        jaw = (self.jaw.joint,) if self.jaw.joint is not None else ()
        return (*self.neck, *jaw, *self.face)

    @property
    def names(self) -> list[str]:
        """Names of ``joints``."""
        return [joint.name for joint in self.joints]

    def limits(self) -> dict[str, NDArray[np.float64]]:
        """``lower upper velocity acceleration jerk neutral``, each of shape [J]."""
        keys = ("lower", "upper", "velocity", "acceleration", "jerk", "neutral")
        return {key: np.array([getattr(joint, key) for joint in self.joints]) for key in keys}


def list_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in share("config", "robots").glob("*.yaml"))


def load_profile(name_or_path: str | os.PathLike[str]) -> RobotProfile:
    """A robot's profile by name (``timar robots list``) or by path of a YAML file.

    :raises UserError: no such robot, unreadable YAML, or an impossible value.
    """
    path = Path(name_or_path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        path = share("config", "robots") / f"{name_or_path}.yaml"
        if not path.is_file():
            raise UserError(f"no robot '{name_or_path}': known are {', '.join(list_profiles())}; or give a YAML file")
    data = read_yaml(path, "robot profile")
    try:
        return profile_from_dict(data, default_name=path.stem)
    except UserError as error:
        raise UserError(f"robot profile {path}: {error}") from error


class _Reader:
    """Takes named values out of one mapping and reports unknown keys."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, Mapping):
            raise UserError(f"{where} must be a mapping of names to values, not {type(data).__name__}")
        self.data = dict(data)
        self.where = where

    def take(self, key: str, default: Any = None) -> Any:
        return self.data.pop(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.take(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise UserError(f"{self.where}: '{key}' must be a text")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        return _number(self.take(key, default), f"{self.where}: '{key}'")

    def numbers(self, key: str, count: int, default: Sequence[float] | None = None) -> tuple[float, ...]:
        return _numbers(self.take(key, default), count, f"{self.where}: '{key}'")

    def done(self) -> None:
        if self.data:
            raise UserError(f"{self.where}: unknown entries {', '.join(sorted(map(str, self.data)))}")


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{where} must be a finite number, not {value!r}")
    return float(value)


def _numbers(value: Any, count: int, where: str) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or len(value) != count:
        raise UserError(f"{where} must be a list of {count} numbers, not {value!r}")
    return tuple(_number(x, where) for x in value)


def plausible_position(pair: Any) -> bool:
    """Whether a URDF's [lower, upper] can be a joint's range."""
    return (
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and all(isinstance(x, (int, float)) and math.isfinite(x) and abs(x) < 100 for x in pair)
        and pair[0] < pair[1]
    )


def plausible_velocity(value: Any) -> bool:
    """Whether a URDF's velocity can be a motor's: more than 0 and less than 50 rad/s."""
    return isinstance(value, (int, float)) and math.isfinite(value) and 0 < value < IMPLAUSIBLE_VELOCITY


def _joint_arguments(reader: _Reader, neutral: float) -> dict[str, Any]:
    """The limits of one joint: the profile's own, else the URDF's if plausible, else derived from the velocity."""
    name = reader.text("joint")
    reader.where = f"joint '{name}'"
    urdf = _Reader(reader.take("urdf", {}), f"{reader.where}: 'urdf'")
    urdf_position, urdf_velocity = urdf.take("position"), urdf.take("velocity")
    urdf.done()
    position = reader.take("position")
    if position is None:
        if not plausible_position(urdf_position):
            raise UserError(f"{reader.where}: no usable position limits (URDF says {urdf_position}): give 'position'")
        position = urdf_position
    velocity = reader.take("velocity")
    if velocity is None:
        if not plausible_velocity(urdf_velocity):
            raise UserError(f"{reader.where}: no usable velocity limit (URDF says {urdf_velocity}): give 'velocity'")
        velocity = urdf_velocity
    lower, upper = _numbers(position, 2, f"{reader.where}: 'position'")
    velocity = _number(velocity, f"{reader.where}: 'velocity'")
    acceleration = reader.number("acceleration", ACCELERATION_PER_VELOCITY * velocity)
    jerk = reader.number("jerk", JERK_PER_ACCELERATION * acceleration)
    return {
        "name": name,
        "lower": lower,
        "upper": upper,
        "velocity": velocity,
        "acceleration": acceleration,
        "jerk": jerk,
        "neutral": neutral,
    }


def _neck_joint(data: Any, index: int) -> NeckJoint:
    reader = _Reader(data, f"neck joint {index + 1}")
    axis = np.asarray(reader.numbers("axis", 3))
    length = float(np.linalg.norm(axis))
    if not 0.5 < length < 2.0:
        raise UserError(f"{reader.where}: axis {axis.tolist()} must be a unit vector")
    axis = axis / length
    sign = reader.number("sign", 1.0)
    if sign not in (-1.0, 1.0):
        raise UserError(f"{reader.where}: sign must be 1 or -1")
    arguments = _joint_arguments(reader, reader.number("offset", 0.0))
    reader.done()
    return NeckJoint(**arguments, axis=(float(axis[0]), float(axis[1]), float(axis[2])), sign=sign)


def _jaw(data: Any) -> Jaw:
    if data is None:
        return Jaw()
    reader = _Reader(data, "jaw")
    common = {
        "full_open": reader.number("full_open", Jaw.full_open),
        "gain": reader.number("gain", Jaw.gain),
        "dead_band": reader.number("dead_band", Jaw.dead_band),
        "lead": reader.number("lead", Jaw.lead),
    }
    if common["full_open"] <= 0 or common["gain"] < 0 or common["dead_band"] < 0 or not 0 <= common["lead"] <= 0.5:
        raise UserError("jaw: full_open must be positive, gain and dead_band not negative, lead within 0 and 0.5 s")
    joint, open_position = None, 0.0
    if "joint" in reader.data:
        closed, open_position = reader.number("closed", 0.0), reader.number("open")
        joint = Joint(**_joint_arguments(reader, closed))
        if not joint.lower <= open_position <= joint.upper:
            raise UserError(f"jaw: open position {open_position} lies outside [{joint.lower}, {joint.upper}]")
    reader.done()
    return Jaw(joint=joint, open_position=open_position, **common)


def _face_joint(data: Any, index: int) -> FaceJoint:
    reader = _Reader(data, f"face joint {index + 1}")
    expression = reader.take("expression", {})
    if not isinstance(expression, Mapping) or not all(
        isinstance(k, int) and 0 <= k < EXPRESSION_SIZE for k in expression
    ):
        raise UserError(f"{reader.where}: 'expression' maps indices 0-49 to weights")
    weights = tuple((int(k), _number(w, f"{reader.where}: expression {k}")) for k, w in sorted(expression.items()))
    head = reader.numbers("head", 3, (0.0, 0.0, 0.0))
    jaw, blink = reader.number("jaw", 0.0), reader.number("blink", 0.0)
    arguments = _joint_arguments(reader, reader.number("offset", 0.0))
    reader.done()
    return FaceJoint(**arguments, expression=weights, head=(head[0], head[1], head[2]), jaw=jaw, blink=blink)


def _coupling(data: Any, names: Sequence[str]) -> Coupling:
    reader = _Reader(data, "coupling")
    joint, by = reader.text("joint"), reader.text("by")
    if joint not in names or by not in names or joint == by:
        raise UserError(f"coupling of '{joint}' by '{by}': both must be neck joints, and two of them")
    raw = reader.take("table")
    if not isinstance(raw, list) or len(raw) < 2:
        raise UserError(f"coupling of '{joint}': 'table' must be a list of at least two rows")
    rows = [_numbers(row, 3, f"coupling of '{joint}': row") for row in raw]
    if any(later[0] <= row[0] for row, later in itertools.pairwise(rows)) or any(r[1] >= r[2] for r in rows):
        raise UserError(f"coupling of '{joint}': rows [position, lower, upper] must ascend, with lower < upper")
    reader.done()
    return Coupling(joint, by, tuple((row[0], row[1], row[2]) for row in rows))


def profile_from_dict(data: Any, default_name: str = "robot") -> RobotProfile:
    """A profile from parsed YAML.

    :raises UserError: on any missing, unknown or impossible entry.
    """
    reader = _Reader(data, "profile")
    neck_data = reader.take("neck")
    if not isinstance(neck_data, list) or not neck_data:
        raise UserError("'neck' must be a list of at least one joint, from the body to the head")
    neck = tuple(_neck_joint(item, i) for i, item in enumerate(neck_data))
    jaw = _jaw(reader.take("jaw"))
    face = tuple(_face_joint(item, i) for i, item in enumerate(reader.take("face") or []))
    neck_names = [joint.name for joint in neck]
    output = reader.text("output", "trajectory")
    if output not in OUTPUTS:
        raise UserError(f"'output' must be one of {', '.join(OUTPUTS)}, not '{output}'")
    notes = reader.take("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise UserError("'notes' must be a list of texts")
    profile = RobotProfile(
        name=reader.text("robot", default_name),
        title=reader.text("title", default_name),
        source=reader.text("source", "not given"),
        licence=reader.text("licence", "not given"),
        output=output,
        neck=neck,
        jaw=jaw,
        face=face,
        couplings=tuple(_coupling(item, neck_names) for item in reader.take("couplings") or []),
        command_topic=reader.text("command_topic", ""),
        pose_frame=reader.text("pose_frame", "base_link"),
        bandwidth=reader.number("bandwidth", 4.0),
        notes=tuple(notes),
    )
    reader.done()
    if len(set(profile.names)) != len(profile.names):
        raise UserError("two joints have the same name")
    if not 0.5 <= profile.bandwidth <= 8.0:
        raise UserError("'bandwidth' must lie within 0.5 and 8 Hz")
    for coupling in profile.couplings:
        joint, by = (next(j for j in neck if j.name == name) for name in (coupling.joint, coupling.by))
        lower, upper = coupling.bounds(by.neutral)
        if not lower <= joint.neutral <= upper:
            raise UserError(f"coupling of '{joint.name}': its neutral position is forbidden at neutral '{by.name}'")
    return profile
