"""A robot profile from a URDF: axes, order and limits of the named joints, with doubtful values flagged."""

from __future__ import annotations

import itertools
import re
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
# A profile's speed in rad/s if the URDF's is implausible: a calm head's.
DOUBTFUL_VELOCITY = 2.0
# No head turns faster [rad/s]; files with more describe motors without load.
FASTEST_NECK = 6.0
# Limits beyond a whole turn and a half [rad] are in degrees.
LARGEST_ANGLE = 3 * np.pi
FORWARDS = {"x": (1, 0, 0), "minus-x": (-1, 0, 0), "y": (0, 1, 0), "minus-y": (0, -1, 0)}


@dataclass(frozen=True)
class UrdfJoint:
    """A joint of a URDF.

    ``axis`` [3] in the root's frame with all joints at 0; limits as in the file; ``above``: the links from its parent
    up to the root; ``mimics``: the joint that it follows, if any.
    """

    name: str
    child: str
    axis: Float
    position: tuple[float, float] | None
    velocity: float | None
    above: tuple[str, ...]
    mimics: str


def parse_urdf(urdf: str | bytes) -> ET.Element:
    """The root element of a URDF, without XML namespaces; bytes use the encoding that they name.

    :raises UserError: no valid URDF, or a xacro that was not expanded.
    """
    data = urdf.encode("utf-8") if isinstance(urdf, str) else urdf
    if isinstance(urdf, str) and urdf.lstrip().startswith("<?xml"):
        data = urdf.lstrip().partition("?>")[2].encode("utf-8")  # decoded already, with any named encoding
    if b"<!ENTITY" in data:
        raise UserError("no URDF: it defines XML entities; a robot's description needs none")
    try:
        root = ET.fromstring(data.lstrip())  # noqa: S314 (entities are refused above)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise UserError(f"no valid URDF ({error}); a .xacro must be expanded first: xacro FILE > robot.urdf") from error
    elements = [element for element in root.iter() if isinstance(element.tag, str)]
    if any("xacro" in element.tag for element in elements) or any(
        "${" in value or "$(" in value for element in elements for value in element.attrib.values()
    ):
        raise UserError("this is a xacro, not a URDF: expand it first: xacro FILE > robot.urdf")
    for element in elements:
        element.tag = element.tag.rpartition("}")[2]
    if root.tag != "robot":
        raise UserError(f"no URDF: its root element is <{root.tag}>, not <robot>")
    return root


def _narrowed(
    position: tuple[float, float] | None, low: float | None, high: float | None
) -> tuple[float, float] | None:
    """A range narrowed by further limits; limits that leave an empty range, or 0 and 0, are ignored."""
    if low is None or high is None or not low < high:
        return position
    if position is None or not position[0] < position[1]:
        return low, high
    limits = max(position[0], low), min(position[1], high)
    return limits if limits[0] < limits[1] else position


def _controlled(root: ET.Element) -> dict[str, dict[str, tuple[float | None, float | None]]]:
    """Limits from <ros2_control>: joint, then interface, then (min, max)."""
    found: dict[str, dict[str, tuple[float | None, float | None]]] = {}
    for joint in root.findall("ros2_control/joint"):
        for interface in joint.findall("command_interface"):
            values = {
                param.get("name"): _number((param.text or "").strip() or None) for param in interface.findall("param")
            }
            found.setdefault(joint.get("name", ""), {})[interface.get("name", "")] = (
                values.get("min"),
                values.get("max"),
            )
    return found


def read_chain(urdf: str | bytes) -> dict[str, UrdfJoint]:
    """All joints that turn, by name, with axes in the root's frame.

    Limits are the narrowest of <limit>, the soft limits of <safety_controller> and <ros2_control>.

    :raises UserError: no valid URDF.
    """
    root = parse_urdf(urdf)
    controlled = _controlled(root)
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
        speed = values.get("velocity")
        soft = joint.find("safety_controller")
        if soft is not None:
            position = _narrowed(position, _number(soft.get("soft_lower_limit")), _number(soft.get("soft_upper_limit")))
        allowed = controlled.get(name, {})
        position = _narrowed(position, *allowed.get("position", (None, None)))
        fastest = allowed.get("velocity", (None, None))[1]
        if fastest is not None and fastest > 0 and (speed is None or not 0 < speed < fastest):
            speed = fastest
        rotation, above = _frame(child, joints)
        turned = rotation.apply(axis / max(float(np.linalg.norm(axis)), 1e-9))
        mimics = _attribute(joint, "mimic", "joint")
        result[name] = UrdfJoint(name, child, turned, position, speed, above, mimics)
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
    if len(values) != 3 or not all(abs(value) <= LARGEST for value in values):
        raise UserError(f"URDF: '{where}' has '{text[:60]}' where three numbers belong")
    return values


LARGEST = 1e6
"""No length [m], angle [rad] or share of a description is beyond this."""

_JAW = re.compile(r"jaw|mandib", re.IGNORECASE)
_HEAD = re.compile(r"head|neck|nck|skull|cervic", re.IGNORECASE)
_NO_NECK = re.compile(r"eye|jaw|mouth|lid|brow|camera|cam_|ear|antenna|lip|face|chin|lidar|laser", re.IGNORECASE)
_LIMB = re.compile(
    r"arm|shoulder|elbow|wrist|hand|finger|thumb|gripper|leg|hip|knee|ankle|wheel|thigh|foot", re.IGNORECASE
)


def suggest_neck(joints: dict[str, UrdfJoint]) -> list[str]:
    """The neck's joints by their names, from the body to the head; empty if no name matches."""
    named = [
        joint
        for joint in joints.values()
        if _HEAD.search(joint.name) and not _NO_NECK.search(joint.name) and not joint.mimics
    ]
    if not named:
        return []
    last = max(named, key=lambda joint: (sum(other.child in joint.above for other in named), joint.name))
    chain = [joint for joint in named if joint is last or joint.child in last.above]
    return [joint.name for joint in sorted(chain, key=lambda joint: len(joint.above))][-4:]


def suggest_jaw(joints: dict[str, UrdfJoint]) -> str:
    """The jaw's joint by its name; "" if no name matches."""
    jaws = (name for name, joint in joints.items() if _JAW.search(name) and not joint.mimics)
    return next(jaws, "")


def _plausible_neck(neck: Sequence[str], joints: dict[str, UrdfJoint]) -> None:
    """Refuse an arm or a leg as neck, and limits in degrees.

    :raises UserError: names the joint and a remedy.
    """
    guess = ",".join(suggest_neck(joints))
    for name in neck:
        if _LIMB.search(name) and not _HEAD.search(name):
            raise UserError(
                f"joint '{name}' is by its name no neck but an arm, hand or leg: "
                + (f"did you mean --neck {guess}?" if guess else "name the joints that turn the head")
            )
    limited = [joint for joint in joints.values() if joint.position is not None]
    wide = [joint for joint in limited if joint.position and max(map(abs, joint.position)) > LARGEST_ANGLE]
    for joint in wide:
        if (joint.name in neck or 2 * len(wide) > len(limited)) and plausible_position(list(joint.position or ())):
            raise UserError(
                f"joint '{joint.name}': limits {joint.position} are no angles in rad; are they in degrees? "
                "A URDF's limits are in rad: mend it"
            )


def new_profile(
    urdf: str | bytes, name: str, neck: Sequence[str], jaw: str | None = None, forward: str = "x"
) -> tuple[str, list[str]]:
    """A profile's YAML from a URDF, and its doubtful values, which a person must check.

    :param neck: names of the neck's joints; the result has them in the chain's order.
    :param jaw: name of the jaw's joint; assumed to open from the end of its range nearest 0 to the other end.
    :param forward: which of the root's axes the robot looks along with all joints at 0: x, minus-x, y or minus-y.
    :raises UserError: joints that do not exist, do not turn, follow others or form no chain.
    """
    joints = read_chain(urdf)
    if not neck:
        guess, mouth = suggest_neck(joints), suggest_jaw(joints)
        raise UserError(
            f"name the neck's joints; by their names: --neck {','.join(guess)}{f' --jaw {mouth}' if mouth else ''}"
            if guess
            else f"name the neck's joints (--neck A,B); it has {', '.join(sorted(joints)) or 'none that turns'}"
        )
    for wanted in [*neck, *([jaw] if jaw else [])]:
        if wanted not in joints:
            raise UserError(
                f"the URDF has no joint '{wanted}' that turns; it has {', '.join(sorted(joints)) or 'none'}"
            )
        if joints[wanted].mimics:
            raise UserError(f"joint '{wanted}' follows '{joints[wanted].mimics}' (mimic): it cannot be commanded")
    _plausible_neck([*neck, *([jaw] if jaw else [])], joints)
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
    doubts.append(f"command_topic: '{data['command_topic']}' is a guess; `ros2 control list_controllers` tells yours")
    doubts.append("accelerations and jerks are no part of a URDF: chosen from the velocities")
    data["notes"] = [f"check: {doubt}" for doubt in doubts]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110), doubts


def _limits(joint: UrdfJoint, doubts: list[str]) -> dict[str, Any]:
    """Limits for a profile; unused values of the URDF are kept next to them."""
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
        speed = round(min(velocity, FASTEST_NECK), 6)
        if velocity > FASTEST_NECK:
            doubts.append(f"{joint.name}: velocity {velocity:g} rad/s is more than a head's; set to {FASTEST_NECK:g}")
    else:
        doubts.append(f"{joint.name}: velocity {velocity} is a placeholder; set to {DOUBTFUL_VELOCITY} rad/s")
    return {"position": chosen, "velocity": speed, "acceleration": round(10 * speed, 6), "jerk": round(200 * speed, 6)}
