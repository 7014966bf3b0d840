"""A robot profile from a URDF: axes, order and limits of the named joints, with doubtful values flagged."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from timar_ros.errors import UserError
from timar_ros.retarget.profile import plausible_position, plausible_velocity

Float = NDArray[np.float64]
# What a profile gets where the URDF's speed cannot be believed: a calm head's, in rad/s.
DOUBTFUL_VELOCITY = 2.0
FORWARDS = {"x": (1, 0, 0), "minus-x": (-1, 0, 0), "y": (0, 1, 0), "minus-y": (0, -1, 0)}


@dataclass(frozen=True)
class UrdfJoint:
    """A joint of a URDF.

    ``axis`` [3] in the root's frame with all joints at 0; limits as they stand there; ``above``: the links from its
    parent up to the root; ``mimics``: the joint that it follows, if any.
    """

    name: str
    child: str
    axis: Float
    position: tuple[float, float] | None
    velocity: float | None
    above: tuple[str, ...]
    mimics: str


def read_chain(urdf: str) -> dict[str, UrdfJoint]:
    """All joints that turn, by name, with axes in the root's frame.

    :raises UserError: no valid URDF.
    """
    try:
        root = ET.fromstring(urdf)  # noqa: S314 (a robot's description is the operator's own file)
    except ET.ParseError as error:
        raise UserError(f"no valid URDF ({error}); a .xacro must be expanded first: xacro FILE > robot.urdf") from error
    if root.tag != "robot":
        raise UserError(f"no URDF: its root element is <{root.tag}>, not <robot>")
    joints = {_attribute(j, "child", "link"): j for j in root.findall("joint")}
    result = {}
    for child, joint in joints.items():
        if joint.get("type") not in ("revolute", "continuous"):
            continue
        name = joint.get("name", "")
        axis = np.array(_numbers(_attribute(joint, "axis", "xyz") or "1 0 0", name))
        limit = joint.find("limit")
        values = {} if limit is None else {k: _number(limit.get(k)) for k in ("lower", "upper", "velocity")}
        lower, upper = values.get("lower"), values.get("upper")
        position = None if lower is None or upper is None else (lower, upper)
        rotation, above = _frame(child, joints)
        turned = rotation.apply(axis / max(float(np.linalg.norm(axis)), 1e-9))
        mimics = _attribute(joint, "mimic", "joint")
        result[name] = UrdfJoint(name, child, turned, position, values.get("velocity"), above, mimics)
    return result


def _frame(link: str, joints: dict[str, ET.Element]) -> tuple[Rotation, tuple[str, ...]]:
    """A link's orientation in the root's frame with all joints at 0, and the links above it up to the root."""
    rotation, above = Rotation.identity(), list[str]()
    while link in joints and len(above) < len(joints):
        rpy = _numbers(_attribute(joints[link], "origin", "rpy") or "0 0 0", link)
        rotation = Rotation.from_euler("xyz", rpy) * rotation
        link = _attribute(joints[link], "parent", "link")
        above.append(link)
    return rotation, tuple(above)


def _attribute(element: ET.Element, child: str, name: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(name, "")


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _numbers(text: str, where: str) -> list[float]:
    try:
        values = [float(x) for x in text.split()]
    except ValueError:
        values = []
    if len(values) != 3:
        raise UserError(f"URDF: '{where}' has '{text}' where three numbers belong")
    return values


def new_profile(
    urdf: str, name: str, neck: Sequence[str], jaw: str | None = None, forward: str = "x"
) -> tuple[str, list[str]]:
    """A profile's YAML from a URDF, and what in it is doubtful and must be looked at.

    :param neck: names of the neck's joints; they are put into the chain's order.
    :param jaw: name of the jaw's joint; taken to open from the end of its range nearest 0 to the other.
    :param forward: which of the root's axes the robot looks along with all joints at 0: x, minus-x, y or minus-y.
    :raises UserError: joints that are not there, do not turn, follow others or are no chain.
    """
    joints = read_chain(urdf)
    if not neck:
        raise UserError("no joint of the neck is named")
    for wanted in [*neck, *([jaw] if jaw else [])]:
        if wanted not in joints:
            raise UserError(
                f"the URDF has no joint '{wanted}' that turns; it has {', '.join(sorted(joints)) or 'none'}"
            )
        if joints[wanted].mimics:
            raise UserError(f"joint '{wanted}' follows '{joints[wanted].mimics}' (mimic): it cannot be commanded")
    if forward not in FORWARDS:
        raise UserError(f"forward '{forward}': use {', '.join(FORWARDS)}")
    doubts: list[str] = []
    ordered = sorted((joints[n] for n in neck), key=lambda joint: len(joint.above))
    for lower, upper in itertools.pairwise(ordered):
        if lower.child not in upper.above:
            raise UserError(
                f"'{upper.name}' does not sit on '{lower.name}': they are no chain from the body to the head"
            )
    if [joint.name for joint in ordered] != list(neck):
        doubts.append(f"order: in the URDF's chain it is {', '.join(joint.name for joint in ordered)}")
    ahead = np.array(FORWARDS[forward], dtype=float)
    to_rep = np.stack([ahead, np.cross([0, 0, 1], ahead), [0, 0, 1]])
    rows = []
    for joint in ordered:
        axis = to_rep @ joint.axis
        principal = int(np.argmax(np.abs(axis)))
        if abs(axis[principal]) > 1 - 1e-4:
            axis = np.eye(3)[principal] * np.sign(axis[principal])
        else:
            doubts.append(f"{joint.name}: slanted axis {axis.round(4).tolist()}")
        row: dict[str, Any] = {"joint": joint.name, "axis": [round(float(x) + 0.0, 9) for x in axis]}
        row |= _limits(joint, doubts)
        least, most = row["position"]
        if not least <= 0 <= most:
            row["offset"] = round((least + most) / 2, 6)
            doubts.append(f"{joint.name}: 0 is out of its range; taken to look straight ahead at {row['offset']:g}")
        rows.append(row)
    axes = np.abs([row["axis"] for row in rows]).max(axis=0)
    if axes[0] > 0.5 > axes[1]:
        doubts.append(f"the neck tilts but cannot nod: does the robot look along {forward} of its root? see --forward")
    data: dict[str, Any] = {
        "robot": name,
        "title": name,
        "source": "written from a URDF by `timar robots new`; name it here",
        "licence": "not given",
        "output": "trajectory",
        "command_topic": "head_controller/joint_trajectory",
        "pose_frame": ordered[0].above[0],
        "neck": rows,
    }
    if jaw:
        limits = _limits(joints[jaw], doubts)
        closed, opened = sorted(limits["position"], key=abs)
        data["jaw"] = {"joint": jaw, **limits, "closed": closed, "open": opened, "full_open": 0.35}
        doubts.append(f"{jaw}: taken to be closed at {closed:g} and open at {opened:g}")
    doubts.append("accelerations and jerks are no part of a URDF: chosen from the velocities")
    data["notes"] = [f"check: {doubt}" for doubt in doubts]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110), doubts


def _limits(joint: UrdfJoint, doubts: list[str]) -> dict[str, Any]:
    """Limits for a profile; what the URDF says is kept beside them where it is not used."""
    position, velocity = joint.position, joint.velocity
    chosen: list[float] = [-0.3, 0.3]
    if position is not None and plausible_position(list(position)):
        chosen = [round(x, 6) for x in position]
    elif position is not None and position[0] > position[1] and plausible_position([position[1], position[0]]):
        chosen = [round(position[1], 6), round(position[0], 6)]
        doubts.append(f"{joint.name}: limits {position} are the wrong way round; swapped")
    else:
        doubts.append(f"{joint.name}: no usable range in the URDF ({position}); set to {chosen}")
    speed = DOUBTFUL_VELOCITY
    if plausible_velocity(velocity) and velocity is not None:
        speed = round(velocity, 6)
    else:
        doubts.append(f"{joint.name}: velocity {velocity} is a placeholder; set to {DOUBTFUL_VELOCITY} rad/s")
    return {"position": chosen, "velocity": speed, "acceleration": round(10 * speed, 6), "jerk": round(200 * speed, 6)}
