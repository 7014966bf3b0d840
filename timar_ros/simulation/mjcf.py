"""Models for MuJoCo: from our own head's URDF, or a plain stand-in from any robot profile."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from timar_ros.errors import UserError
from timar_ros.retarget.profile import Joint, NeckJoint, RobotProfile

Float = NDArray[np.float64]
# Inertia of a servo's rotor at the joint, through the gears [kg m^2].
ARMATURE = {"neck": 0.01, "jaw": 0.001, "eye": 0.0003}
COLOURS = {
    "shell": "0.93 0.94 0.96 1",
    "dark": "0.10 0.12 0.16 1",
    "accent": "0.10 0.62 0.66 1",
    "white": "0.98 0.99 1 1",
    "pupil": "0.02 0.02 0.03 1",
}
SHINE = {"dark": (0.9, 0.9), "pupil": (0.9, 0.9), "white": (0.6, 0.8), "iris": (0.6, 0.8)}


def _text(values: Sequence[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def _scene(name: str) -> tuple[ET.Element, ET.Element, ET.Element]:
    """A world with light, sky and a camera: root, its asset element, its worldbody."""
    root = ET.Element("mujoco", model=name)
    ET.SubElement(root, "compiler", angle="radian", meshdir="meshes", autolimits="true")
    ET.SubElement(root, "option", timestep="0.001", integrator="implicitfast")
    visual = ET.SubElement(root, "visual")
    ET.SubElement(visual, "global", offwidth="1920", offheight="1080", fovy="32")
    ET.SubElement(visual, "quality", offsamples="0", shadowsize="2048")
    ET.SubElement(visual, "headlight", ambient="0.34 0.34 0.36", diffuse="0.16 0.16 0.16", specular="0.05 0.05 0.05")
    ET.SubElement(visual, "map", znear="0.01")
    asset = ET.SubElement(root, "asset")
    ET.SubElement(
        asset, "texture", type="skybox", builtin="gradient", rgb1="0.80 0.86 0.92", rgb2="0.34 0.42 0.52",
        width="256", height="256",
    )  # fmt: skip
    world = ET.SubElement(root, "worldbody")
    ET.SubElement(world, "light", pos="1.2 0.9 1.3", dir="-1.2 -0.9 -1.1", diffuse="0.46 0.45 0.43", castshadow="false")
    ET.SubElement(world, "light", pos="0.9 -1.2 0.7", dir="-0.9 1.2 -0.5", diffuse="0.22 0.24 0.28", castshadow="false")
    ET.SubElement(world, "light", pos="-1.0 0.2 1.2", dir="1.0 -0.2 -0.9", diffuse="0.25 0.26 0.30", castshadow="false")
    _camera(world, "front", (0.86, 0.15, 0.41), (0.0, 0.0, 0.280))
    _camera(world, "side", (0.25, 1.0, 0.38), (0.02, 0.0, 0.285))
    return root, asset, world


def _camera(world: ET.Element, name: str, at: tuple[float, float, float], target: tuple[float, float, float]) -> None:
    """A camera at one point that looks at another; MuJoCo needs its right and up axes."""
    ahead = np.subtract(target, at)
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    up = np.cross(right, ahead)
    axes = [*(right / np.linalg.norm(right)), *(up / np.linalg.norm(up))]
    ET.SubElement(world, "camera", name=name, pos=_text(at), xyaxes=_text(axes))


def _material(asset: ET.Element, name: str, rgba: str) -> None:
    specular, shininess = SHINE.get(name, (0.25, 0.4))
    ET.SubElement(asset, "material", name=name, rgba=rgba, specular=str(specular), shininess=str(shininess))


def _servo(actuators: ET.Element, name: str, lower: float, upper: float) -> None:
    ET.SubElement(actuators, "position", name=name, joint=name, kp="1", kv="0.1", ctrlrange=_text([lower, upper]))


def _armature(name: str) -> float:
    return next((value for part, value in ARMATURE.items() if part in name), ARMATURE["neck"])


def urdf_to_mjcf(urdf: str) -> str:
    """A URDF of revolute and fixed joints with primitive shapes and STL meshes as MJCF with position servos.

    Mimic joints become equalities. Servo gains are placeholders, set by :class:`timar_ros.simulation.head.MujocoHead`.

    :raises UserError: not a URDF, or an unsupported shape.
    """
    try:
        robot = ET.fromstring(urdf)  # noqa: S314 (a robot's description is the operator's own file)
    except ET.ParseError as error:
        raise UserError(f"no valid URDF: {error}") from error
    root, asset, world = _scene(robot.get("name", "robot"))
    for material in robot.findall("material"):
        colour = material.find("color")
        if colour is not None:
            _material(asset, material.get("name", ""), colour.get("rgba", "1 1 1 1"))
    links = {link.get("name"): link for link in robot.findall("link")}
    children: dict[str | None, list[ET.Element]] = {}
    for joint in robot.findall("joint"):
        children.setdefault(_attribute(joint, "parent", "link"), []).append(joint)
    bases = [name for name in links if all(_attribute(j, "child", "link") != name for j in robot.findall("joint"))]
    actuators, equalities = ET.Element("actuator"), ET.Element("equality")
    meshes: set[str] = set()

    def add(parent: ET.Element, name: str | None, joint: ET.Element | None) -> None:
        body = ET.SubElement(parent, "body", {"name": str(name), **_pose(joint)})
        link = links[name]
        if joint is not None and joint.get("type") == "revolute":
            _add_joint(body, joint, actuators, equalities)
        _add_inertia(body, link)
        for visual in link.findall("visual"):
            _add_geometry(body, visual, asset, meshes)
        for following in children.get(name, []):
            add(body, _attribute(following, "child", "link"), following)

    for base in bases:
        add(world, base, None)
    root.extend([equalities, actuators])
    ET.indent(root, "  ")
    return ET.tostring(root, encoding="unicode") + "\n"


def _attribute(element: ET.Element, child: str, name: str, default: str = "") -> str:
    found = element.find(child)
    return default if found is None else found.get(name, default)


def _pose(element: ET.Element | None) -> dict[str, str]:
    """The <origin> as MuJoCo's attributes; URDF's rpy are turns about fixed axes, so the order is z y x from inside."""
    if element is None or element.find("origin") is None:
        return {}
    origin = element.find("origin")
    assert origin is not None
    result = {"pos": origin.get("xyz", "0 0 0")}
    roll, pitch, yaw = (float(x) for x in origin.get("rpy", "0 0 0").split())
    if roll or pitch or yaw:
        x, y, z, w = Rotation.from_euler("xyz", [roll, pitch, yaw]).as_quat()
        result["quat"] = _text([w, x, y, z])
    return result


def _add_joint(body: ET.Element, joint: ET.Element, actuators: ET.Element, equalities: ET.Element) -> None:
    name = joint.get("name", "")
    lower, upper = (float(_attribute(joint, "limit", key)) for key in ("lower", "upper"))
    ET.SubElement(
        body, "joint", name=name, type="hinge", axis=_attribute(joint, "axis", "xyz"), range=_text([lower, upper]),
        damping=_attribute(joint, "dynamics", "damping", "0.02"), armature=str(_armature(name)),
    )  # fmt: skip
    mimic = joint.find("mimic")
    if mimic is None:
        _servo(actuators, name, lower, upper)
    else:
        polynomial = [float(mimic.get("offset", "0")), float(mimic.get("multiplier", "1")), 0, 0, 0]
        ET.SubElement(
            equalities, "joint", joint1=name, joint2=mimic.get("joint", ""), polycoef=_text(polynomial),
            solref="0.002 1",
        )  # fmt: skip


def _add_inertia(body: ET.Element, link: ET.Element) -> None:
    inertial = link.find("inertial")
    if inertial is None:
        return
    keys = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
    values = [float(_attribute(inertial, "inertia", key, "0")) for key in keys]
    ET.SubElement(
        body, "inertial", pos=_attribute(inertial, "origin", "xyz", "0 0 0"),
        mass=_attribute(inertial, "mass", "value"), fullinertia=_text(values),
    )  # fmt: skip


def _add_geometry(body: ET.Element, visual: ET.Element, asset: ET.Element, meshes: set[str]) -> None:
    geometry = visual.find("geometry")
    shape = None if geometry is None or not len(geometry) else geometry[0]
    if shape is None:
        return
    attributes = {"name": visual.get("name", ""), "material": _attribute(visual, "material", "name")}
    attributes.update(_pose(visual))
    if shape.tag == "mesh":
        file = Path(shape.get("filename", "").replace("package://", ""))
        if file.stem not in meshes:
            meshes.add(file.stem)
            ET.SubElement(asset, "mesh", name=file.stem, file=file.name)
        attributes.update(type="mesh", mesh=file.stem)
    elif shape.tag == "sphere":
        attributes.update(type="sphere", size=shape.get("radius", ""))
    elif shape.tag == "cylinder":
        length = float(shape.get("length", "0")) / 2
        attributes.update(type="cylinder", size=_text([float(shape.get("radius", "0")), length]))
    elif shape.tag == "box":
        attributes.update(type="box", size=_text([float(x) / 2 for x in shape.get("size", "").split()]))
    else:
        raise UserError(f"URDF shape '{shape.tag}' is not known: use box, cylinder, sphere or an STL mesh")
    common = {"contype": "0", "conaffinity": "0", "group": "1", "mass": "0"}
    ET.SubElement(body, "geom", {**attributes, **common})


def profile_to_mjcf(profile: RobotProfile) -> str:
    """A plain head on the profile's own chain of joints: the same axes, limits and order, a generic shape."""
    root, asset, world = _scene(profile.name)
    for name, rgba in COLOURS.items():
        _material(asset, name, rgba)
    actuators = ET.Element("actuator")
    body = ET.SubElement(world, "body", name="body")
    _shape(body, "ellipsoid", [0.11, 0.19, 0.11], [0, 0, 0.08], "shell")
    body = ET.SubElement(body, "body", name="neck", pos="0 0 0.25")
    _shape(body, "cylinder", [0.035, 0.05], [0, 0, -0.04], "dark")
    for joint in profile.neck:
        body = ET.SubElement(body, "body", name=f"{joint.name}_link")
        _hinge(body, joint, joint.signed_axis.tolist(), actuators, joint.neutral)
        _inertia(body, 0.15, 0.0002)
    _inertia(body, 1.2, 0.006, [0.01, 0, 0.08])
    _shape(body, "ellipsoid", [0.095, 0.11, 0.115], [0, 0, 0.11], "shell")
    _shape(body, "ellipsoid", [0.02, 0.09, 0.06], [0.085, 0, 0.125], "dark")
    for side in (-1, 1):
        _shape(body, "sphere", [0.022], [0.095, side * 0.04, 0.135], "white")
        _shape(body, "sphere", [0.011], [0.110, side * 0.04, 0.135], "pupil")
    others = [joint for joint in profile.joints if not isinstance(joint, NeckJoint)]
    for other in others:
        part = ET.SubElement(body, "body", name=f"{other.name}_link", pos="0.02 0 0.06")
        _hinge(part, other, [0, 1, 0], actuators, other.neutral)
        _inertia(part, 0.05, 0.0001)
        if profile.jaw.joint is other:
            _shape(part, "ellipsoid", [0.05, 0.06, 0.018], [0.045, 0, -0.02], "accent")
    root.append(actuators)
    ET.indent(root, "  ")
    return ET.tostring(root, encoding="unicode") + "\n"


def _hinge(body: ET.Element, joint: Joint, axis: Sequence[float], actuators: ET.Element, neutral: float) -> None:
    armature = ARMATURE["neck"] if isinstance(joint, NeckJoint) else ARMATURE["jaw"]
    ET.SubElement(
        body, "joint", name=joint.name, type="hinge", axis=_text(axis), range=_text([joint.lower, joint.upper]),
        ref=f"{neutral:.9g}", damping="0.02", armature=str(armature),
    )  # fmt: skip
    _servo(actuators, joint.name, joint.lower, joint.upper)


def _inertia(body: ET.Element, mass: float, moment: float, at: Sequence[float] = (0, 0, 0)) -> None:
    if body.find("inertial") is not None:
        body.remove(body.find("inertial"))  # type: ignore[arg-type]
    ET.SubElement(body, "inertial", pos=_text(at), mass=str(mass), diaginertia=_text([moment] * 3))


def _shape(body: ET.Element, kind: str, size: Sequence[float], at: Sequence[float], material: str) -> None:
    ET.SubElement(
        body, "geom", type=kind, size=_text(size), pos=_text(at), material=material, contype="0", conaffinity="0",
        group="1", mass="0",
    )  # fmt: skip


def servo_gains(inertia: Float, frequency: float, damping_ratio: float) -> tuple[Float, Float]:
    """Stiffness and damping of position servos for joints of given inertias and a natural frequency [Hz]."""
    omega = 2 * math.pi * frequency
    return inertia * omega**2, 2 * damping_ratio * inertia * omega
