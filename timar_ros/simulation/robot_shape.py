"""The look of a robot's head: links, joints and surfaces of its URDF, for pages that draw it.

Only the torso's link, which carries the neck, and the links above the neck are kept, without arms and legs.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from timar_ros.errors import MissingDependencyError, UserError, require
from timar_ros.resources import share
from timar_ros.retarget.profile import RobotProfile
from timar_ros.retarget.urdf import LARGEST, parse_urdf

Float = NDArray[np.float64]
Color = tuple[float, float, float]

GREY: Color = (0.82, 0.84, 0.87)
"""The colour of shapes without a colour in the URDF."""

MOST_TRIANGLES = 400_000
"""Most triangles of a shape: a page with more takes too long to open."""


@dataclass(frozen=True)
class Surface:
    """Triangles of one colour, in the frame of their visual: vertices [V, 3] in m, faces [F, 3]."""

    vertices: NDArray[np.float32]
    faces: NDArray[np.uint32]


@dataclass(frozen=True)
class Visual:
    """One shape of a link, placed in the link's frame.

    ``kind``: ``surface`` (``surface`` is its index in the shape's list), ``box`` (``size``: three edges), ``cylinder``
    (``size``: radius, length along z), ``sphere`` (``size``: radius); lengths in m. ``rotation``: quaternion x y z w.
    """

    kind: str
    size: tuple[float, ...]
    surface: int
    position: tuple[float, ...]
    rotation: tuple[float, ...]
    color: Color


@dataclass(frozen=True)
class Link:
    """A link in the frame of its parent (index, -1: none).

    The link turns about ``axis`` (its own frame) by ``multiplier * position + offset`` of the joint named ``joint``;
    without a joint it is fixed.
    """

    name: str
    parent: int
    position: tuple[float, ...]
    rotation: tuple[float, ...]
    joint: str
    axis: tuple[float, ...]
    multiplier: float
    offset: float
    visuals: tuple[Visual, ...]


@dataclass(frozen=True)
class RobotShape:
    """Links (parents first), surfaces, and the head's place: ``centre`` [3] and ``radius`` [m] in the root's frame.

    ``missing``: meshes of the URDF that could not be read, with the reason.
    """

    name: str
    links: tuple[Link, ...]
    surfaces: tuple[Surface, ...]
    centre: tuple[float, ...]
    radius: float
    missing: tuple[str, ...]


def find_urdf(profile: RobotProfile) -> Path | None:
    """The package's URDF of a robot; None for other robots."""
    try:
        return share("urdf", f"{profile.name}.urdf")
    except UserError:
        return None


def read_shape(urdf: str, profile: RobotProfile, folder: Path | None = None) -> RobotShape:
    """The shape of a robot's head.

    :param urdf: the URDF's text.
    :param folder: the URDF's folder; mesh names are relative to it, or ``package://`` and ``file://`` addresses.
    :raises UserError: no valid URDF, or a URDF without the profile's neck.
    """
    return _Reader(parse_urdf(urdf), profile, folder).read()


class _Reader:
    def __init__(self, root: ET.Element, profile: RobotProfile, folder: Path | None) -> None:
        self._folder = folder
        self._profile = profile
        self._name = root.get("name", "robot")
        self._links = {link.get("name", ""): link for link in root.findall("link")}
        self._joints = {_attribute(joint, "child", "link"): joint for joint in root.findall("joint")}
        self._colors: dict[str, Color] = {}
        for material in root.findall("material"):
            self._colors[material.get("name", "")] = _color(material) or GREY
        self._built_links: list[Link] = []
        self._surfaces: list[Surface] = []
        self._by_file: dict[str, list[tuple[int, Color | None]]] = {}
        self._missing: dict[str, str] = {}

    def read(self) -> RobotShape:
        children: dict[str, list[str]] = {}
        for child, joint in self._joints.items():
            children.setdefault(_attribute(joint, "parent", "link"), []).append(child)
        neck = self._profile.neck
        by_name = {joint.get("name", ""): child for child, joint in self._joints.items()}
        for wanted in neck:
            if wanted.name not in by_name:
                raise UserError(
                    f"the URDF of '{self._name}' has no joint '{wanted.name}' of robot {self._profile.name}"
                )
        base = by_name[neck[0].name]
        torso = _attribute(self._joints[base], "parent", "link")
        self._add(torso, -1, None)
        # Links on the torso without a moving joint belong to the bust.
        for child in children.get(torso, []):
            if child == base or self._joints[child].get("type") == "fixed":
                self._add_below(child, 0, children)
        centre, radius = self._frame(by_name[neck[-1].name])
        triangles = sum(len(surface.faces) for surface in self._surfaces)
        if triangles > MOST_TRIANGLES:
            raise UserError(f"the meshes of '{self._name}' have {triangles} triangles; {MOST_TRIANGLES} can be drawn")
        missing = tuple(f"{name}: {reason}" for name, reason in self._missing.items())
        return RobotShape(self._name, tuple(self._built_links), tuple(self._surfaces), centre, radius, missing)

    def _add_below(self, name: str, parent: int, children: dict[str, list[str]]) -> None:
        waiting = [(name, parent)]
        while waiting:
            link, above = waiting.pop()
            self._add(link, above, self._joints[link])
            waiting += [(child, len(self._built_links) - 1) for child in children.get(link, [])]
            if len(self._built_links) > len(self._links):
                raise UserError(f"the links of '{self._name}' are no tree: one is above itself")

    def _add(self, name: str, parent: int, joint: ET.Element | None) -> None:
        element = self._links.get(name)
        if element is None:
            raise UserError(f"the URDF of '{self._name}' has no link '{name}', which a joint names")
        position, rotation = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)) if joint is None else _origin(joint)
        moving = joint is not None and joint.get("type") in ("revolute", "continuous")
        axis, source, multiplier, offset = (1.0, 0.0, 0.0), "", 1.0, 0.0
        if joint is not None and moving:
            vector = np.array(_numbers(_attribute(joint, "axis", "xyz") or "1 0 0", 3, name))
            unit = vector / max(float(np.linalg.norm(vector)), 1e-9)
            axis, source = (float(unit[0]), float(unit[1]), float(unit[2])), joint.get("name", "")
            if (mimic := joint.find("mimic")) is not None:
                source = mimic.get("joint", "")
                multiplier = _numbers(mimic.get("multiplier", "1"), 1, name)[0]
                offset = _numbers(mimic.get("offset", "0"), 1, name)[0]
        visuals = tuple(built for visual in element.findall("visual") for built in self._visuals(visual, name))
        self._built_links.append(Link(name, parent, position, rotation, source, axis, multiplier, offset, visuals))

    def _visuals(self, visual: ET.Element, link: str) -> Iterator[Visual]:
        geometry = visual.find("geometry")
        shape = None if geometry is None or not len(geometry) else geometry[0]
        if shape is None:
            return
        position, rotation = _origin(visual)
        material = visual.find("material")
        color = None
        if material is not None:
            color = _color(material) or self._colors.get(material.get("name", ""))
        if shape.tag == "mesh":
            scale = _numbers(shape.get("scale", "1 1 1"), 3, link)
            for index, own in self._mesh(shape.get("filename", ""), scale):
                yield Visual("surface", (), index, position, rotation, color or own or GREY)
            return
        sizes = {"box": ("size", 3), "sphere": ("radius", 1), "cylinder": ("radius", 1)}
        if shape.tag not in sizes:
            self._missing[f"<{shape.tag}> of {link}"] = "a shape that is not known"
            return
        key, count = sizes[shape.tag]
        size = _numbers(shape.get(key, ""), count, link)
        if shape.tag == "cylinder":
            size = (*size, *_numbers(shape.get("length", ""), 1, link))
        yield Visual(shape.tag, size, -1, position, rotation, color or GREY)

    def _mesh(self, file: str, scale: tuple[float, ...]) -> list[tuple[int, Color | None]]:
        """Indices of a mesh's surfaces with the file's colours; empty if the mesh cannot be read."""
        key = f"{file} {scale}"
        if key not in self._by_file:
            try:
                parts = _load(_path(file, self._folder), np.asarray(scale))
            except MissingDependencyError:
                raise
            except UserError as error:
                self._missing[file], parts = str(error), []
            self._by_file[key] = [(len(self._surfaces) + index, color) for index, (_, color) in enumerate(parts)]
            self._surfaces += [surface for surface, _ in parts]
        return self._by_file[key]

    def _frame(self, head: str) -> tuple[tuple[float, ...], float]:
        """Centre and radius of the links on the neck's last joint, joints at their neutral positions."""
        if all(link.name != head for link in self._built_links):
            raise UserError(f"the URDF of '{self._name}': the neck's last link '{head}' is not above its first")
        neutral = {joint.name: joint.neutral for joint in self._profile.joints}
        place: list[tuple[Rotation, Float]] = []
        points: list[Float] = []
        carried: set[int] = set()
        for index, link in enumerate(self._built_links):
            angle = link.multiplier * neutral.get(link.joint, 0.0) + link.offset if link.joint else 0.0
            turn = Rotation.from_quat(link.rotation) * Rotation.from_rotvec(angle * np.asarray(link.axis))
            above, at = place[link.parent] if link.parent >= 0 else (Rotation.identity(), np.zeros(3))
            place.append((above * turn, at + above.apply(link.position)))
            if link.name == head or link.parent in carried:
                carried.add(index)
                for visual in link.visuals:
                    own = Rotation.from_quat(visual.rotation).apply(_corners(visual, self._surfaces))
                    points.append(place[-1][0].apply(own + visual.position) + place[-1][1])
        if not points:
            at = place[next(i for i, link in enumerate(self._built_links) if link.name == head)][1]
            return (float(at[0]), float(at[1]), float(at[2])), 0.15
        cloud = np.concatenate(points)
        low, high = cloud.min(axis=0), cloud.max(axis=0)
        middle = (low + high) / 2
        return (float(middle[0]), float(middle[1]), float(middle[2])), max(0.02, float((high - low).max()) / 2)


def _corners(visual: Visual, surfaces: list[Surface]) -> Float:
    """Outermost points of a visual, in its own frame, [N, 3]."""
    if visual.kind == "surface":
        vertices = surfaces[visual.surface].vertices.astype(np.float64)
        return vertices if len(vertices) else np.zeros((1, 3))
    half = {
        "box": [edge / 2 for edge in visual.size],
        "sphere": list(visual.size) * 3,
        "cylinder": [visual.size[0], visual.size[0], visual.size[-1] / 2],
    }[visual.kind]
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    return np.asarray(signs * np.asarray(half))


def _load(path: Path, scale: Float) -> list[tuple[Surface, Color | None]]:
    """The surfaces of a mesh file (STL, OBJ, DAE, PLY, glTF …)."""
    library: Any = require("trimesh", "pip install 'timar_ros[live]'", "drawing a robot from its meshes")
    if path.suffix.lower() == ".dae":
        require("collada", "pip install 'timar_ros[live]'", "reading Collada meshes")
    if not path.is_file():
        raise UserError("no such file")
    try:
        scene = library.load(path, force="scene")
        meshes = scene.dump()
    except Exception as error:  # each format's reader fails in its own way
        raise UserError(f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]})") from error
    surfaces: list[tuple[Surface, Color | None]] = []
    for mesh in meshes:
        if not hasattr(mesh, "faces") or not len(mesh.faces):
            continue
        vertices = np.asarray(mesh.vertices, np.float64) * scale
        if not np.isfinite(vertices).all():
            raise UserError("holds vertices that are no numbers")
        faces = np.asarray(mesh.faces, np.uint32)
        # A mirroring scale turns the triangles inside out.
        if np.prod(scale) < 0:
            faces = faces[:, ::-1]
        surfaces.append((Surface(vertices.astype(np.float32), faces), _own_color(mesh)))
    if not surfaces:
        raise UserError("holds no triangles")
    return surfaces


def _own_color(mesh: Any) -> Color | None:
    """The colour in a mesh file; None if it has none."""
    if not getattr(mesh.visual, "defined", False):
        return None
    color = getattr(getattr(mesh.visual, "material", mesh.visual), "main_color", None)
    if color is None or len(color) < 3:
        return None
    red, green, blue = (float(channel) / 255.0 for channel in color[:3])
    return red, green, blue


def _path(name: str, folder: Path | None) -> Path:
    """The file for a URDF's mesh name."""
    if name.startswith("package://"):
        package, _, rest = name.removeprefix("package://").partition("/")
        if package == "timar_ros":
            return share(*rest.split("/"))
        for root in _package_folders(package, folder):
            if (root / rest).is_file():
                return root / rest
        raise UserError(f"the package '{package}' with this file was not found: source its workspace")
    plain = Path(name.removeprefix("file://"))
    return plain if plain.is_absolute() or folder is None else folder / plain


def _package_folders(package: str, folder: Path | None) -> Iterator[Path]:
    """Possible folders of a ROS package's shared files: installed, or around the URDF."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / package
    for above in [] if folder is None else [folder, *folder.parents]:
        if above.name == package:
            yield above
        yield above / package


def _origin(element: ET.Element) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Position and quaternion (x y z w) of an element's <origin>."""
    where = element.get("name", element.tag)
    position = _numbers(_attribute(element, "origin", "xyz") or "0 0 0", 3, where)
    angles = _numbers(_attribute(element, "origin", "rpy") or "0 0 0", 3, where)
    x, y, z, w = Rotation.from_euler("xyz", angles).as_quat()
    return position, (float(x), float(y), float(z), float(w))


def _color(material: ET.Element) -> Color | None:
    found = material.find("color")
    if found is None:
        return None
    red, green, blue, _ = _numbers(found.get("rgba", ""), 4, f"material {material.get('name')}")
    return red, green, blue


def _attribute(element: ET.Element, child: str, name: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(name, "")


def _numbers(text: str, count: int, where: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split())
    except ValueError:
        values = ()
    if len(values) != count or not all(abs(value) <= LARGEST for value in values):
        raise UserError(f"URDF: '{where}' has '{text[:60]}' where {count} numbers belong")
    return values
