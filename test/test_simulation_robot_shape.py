"""The robot as its URDF draws it: links, meshes, and what stands in the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("trimesh")

import trimesh

from timar_ros.errors import UserError
from timar_ros.retarget.kinematics import forward_rotation
from timar_ros.retarget.profile import RobotProfile, load_profile, profile_from_dict
from timar_ros.simulation.robot_shape import RobotShape, find_urdf, read_shape

LIMITS = {"position": [-1, 1], "velocity": 2.0}
PROFILE = profile_from_dict(
    {
        "robot": "own",
        "neck": [
            {"joint": "yaw", "axis": [0, 0, 1], **LIMITS},
            {"joint": "pitch", "axis": [0, 1, 0], **LIMITS},
        ],
    }
)
URDF = """<robot name="own">
  <material name="red"><color rgba="1 0 0 1"/></material>
  <link name="torso"><visual><geometry><box size="0.2 0.4 0.6"/></geometry><material name="red"/></visual></link>
  <link name="arm"><visual><geometry><box size="9 9 9"/></geometry></visual></link>
  <link name="neck"/>
  <link name="head"><visual><origin xyz="0 0 0.1"/><geometry>{head}</geometry></visual></link>
  <link name="ear"><visual><geometry><sphere radius="0.02"/></geometry></visual></link>
  <joint name="shoulder" type="revolute"><parent link="torso"/><child link="arm"/><axis xyz="1 0 0"/></joint>
  <joint name="yaw" type="revolute"><origin xyz="0 0 0.4"/><parent link="torso"/><child link="neck"/>
    <axis xyz="0 0 2"/></joint>
  <joint name="pitch" type="revolute"><parent link="neck"/><child link="head"/><axis xyz="0 1 0"/></joint>
  <joint name="ear_joint" type="revolute"><origin xyz="0 0.1 0"/><parent link="head"/><child link="ear"/>
    <axis xyz="1 0 0"/><mimic joint="pitch" multiplier="-2" offset="0.1"/></joint>
</robot>"""


def own(folder: Path, head: str = '<sphere radius="0.1"/>', profile: RobotProfile = PROFILE) -> RobotShape:
    return read_shape(URDF.replace("{head}", head), profile, folder)


def orientation(shape: RobotShape, name: str, positions: dict[str, float]) -> Rotation:
    turned: list[Rotation] = []
    for link in shape.links:
        angle = link.multiplier * positions.get(link.joint, 0.0) + link.offset if link.joint else 0.0
        own_turn = Rotation.from_quat(link.rotation) * Rotation.from_rotvec(angle * np.asarray(link.axis))
        turned.append(turned[link.parent] * own_turn if link.parent >= 0 else own_turn)
    return turned[[link.name for link in shape.links].index(name)]


def test_the_packages_own_head_is_drawn_and_turns_as_its_profile_says() -> None:
    profile = load_profile("timar_head")
    file = find_urdf(profile)
    assert file is not None
    shape = read_shape(file.read_text(), profile, file.parent)
    assert not shape.missing
    assert {joint for link in shape.links if (joint := link.joint)} == set(profile.names)
    positions = {"neck_yaw": 0.4, "neck_pitch": -0.2, "neck_roll": 0.1}
    wanted = forward_rotation(profile.neck, [positions[joint.name] for joint in profile.neck])
    assert (wanted.inv() * orientation(shape, "head_link", positions)).magnitude() < 1e-9


def test_bust_and_head_are_drawn_arms_are_not(tmp_path: Path) -> None:
    shape = own(tmp_path)
    assert [link.name for link in shape.links] == ["torso", "neck", "head", "ear"]
    torso, neck, head, ear = shape.links
    assert torso.visuals[0].color == (1.0, 0.0, 0.0)
    assert neck.axis == (0.0, 0.0, 1.0)
    assert (ear.joint, ear.multiplier, ear.offset) == ("pitch", -2.0, 0.1)
    assert head.visuals[0].kind == "sphere"
    assert shape.centre == pytest.approx((0.0, 0.01, 0.5), abs=0.02)
    assert shape.radius == pytest.approx(0.11, abs=0.02)


@pytest.mark.parametrize("suffix", ["stl", "obj", "dae", "ply"])
def test_meshes_of_the_usual_formats_are_read(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("collada") if suffix == "dae" else None
    box = trimesh.creation.box((0.1, 0.2, 0.3))
    (tmp_path / f"head.{suffix}").write_bytes(
        data.encode() if isinstance(data := box.export(file_type=suffix), str) else data
    )
    shape = own(tmp_path, f'<mesh filename="head.{suffix}" scale="1 -2 1"/>')
    assert not shape.missing
    [surface] = shape.surfaces
    assert np.ptp(surface.vertices, axis=0) == pytest.approx([0.1, 0.4, 0.3], abs=1e-6)
    # Mirrored, its triangles still look outwards.
    a, b, c = (surface.vertices[surface.faces[:, k]] for k in range(3))
    assert (np.einsum("fc,fc->f", np.cross(b - a, c - a), (a + b + c) / 3) > 0).all()


def test_a_package_is_found_around_the_urdf_or_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = trimesh.creation.box((0.1, 0.1, 0.1))
    for folder in (tmp_path / "around" / "my_robot" / "meshes", tmp_path / "prefix" / "share" / "other" / "meshes"):
        folder.mkdir(parents=True)
        box.export(folder / "head.stl")
    near = tmp_path / "around" / "my_robot" / "urdf"
    assert not own(near, '<mesh filename="package://my_robot/meshes/head.stl"/>').missing
    name = '<mesh filename="package://other/meshes/head.stl"/>'
    assert "source its workspace" in own(near, name).missing[0]
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))
    assert not own(near, name).missing


def test_what_cannot_be_drawn_is_named_and_the_rest_is(tmp_path: Path) -> None:
    (tmp_path / "broken.stl").write_bytes(b"solid nothing")
    for file in ("broken.stl", "gone.stl"):
        shape = own(tmp_path, f'<mesh filename="{file}"/>')
        assert len(shape.links) == 4
        assert shape.missing[0].startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("urdf", "what"),
    [
        ("<robot", "no valid URDF"),
        ("<sdf/>", "its root element is <sdf>"),
        ('<robot name="x"/>', "has no joint 'yaw' of robot own"),
        (URDF.replace("0 0 0.4", "0 0 nan"), "three|3 numbers"),
        (URDF.replace('<link name="neck"/>', ""), "has no link 'neck'"),
    ],
)
def test_a_wrong_urdf_is_refused_in_one_line(urdf: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=what) as caught:
        read_shape(urdf.replace("{head}", '<sphere radius="0.1"/>'), PROFILE, tmp_path)
    assert "\n" not in str(caught.value)
