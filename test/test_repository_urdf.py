"""timar_head: one description in four forms (xacro, URDF, MJCF, profile) that must agree, and what simulators load."""

from __future__ import annotations

import re
import struct
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import yaml

from timar_ros.resources import share
from timar_ros.retarget import load_profile
from timar_ros.retarget.kinematics import forward_rotation

xacro = pytest.importorskip("xacro")
PROFILE = load_profile("timar_head")


def expand(**arguments: str) -> ET.Element:
    text = xacro.process_file(str(share("urdf", "timar_head.urdf.xacro")), mappings=arguments).toxml()
    return ET.fromstring(text)


def joints(robot: ET.Element) -> dict[str, ET.Element]:
    return {j.get("name"): j for j in robot.findall("joint")}


def test_the_committed_urdf_and_mjcf_are_made_from_the_xacro(repository, tmp_path, monkeypatch):
    pytest.importorskip("mujoco")
    sys.path.insert(0, str(repository / "scripts"))
    try:
        import make_timar_head
    finally:
        sys.path.pop(0)
    (tmp_path / "timar_head.urdf.xacro").write_bytes(share("urdf", "timar_head.urdf.xacro").read_bytes())
    monkeypatch.setattr(make_timar_head, "URDF", tmp_path)
    make_timar_head.main()
    for name in ("timar_head.urdf", "timar_head.mjcf.xml"):
        assert (tmp_path / name).read_bytes() == share("urdf", name).read_bytes(), f"make {name} anew"
    for mesh in ("skull", "jaw", "visor", "bust"):
        name = f"meshes/{mesh}.stl"
        made, committed = triangles(tmp_path / name), triangles(share("urdf", *name.split("/")))
        assert made.shape == committed.shape, f"make {name} anew"
        np.testing.assert_allclose(made, committed, atol=1e-6, err_msg=f"make {name} anew")


def triangles(file: Path) -> np.ndarray:
    """Normals and corners of a binary STL, (triangles, 12) in metres; their last bits depend on the processor."""
    record = np.dtype([("numbers", "<f4", 12), ("attribute", "<u2")])
    return np.frombuffer(file.read_bytes()[84:], record)["numbers"]


def test_limits_are_the_profiles():
    found = joints(expand())
    for joint in PROFILE.joints:
        limit = found[joint.name].find("limit")
        assert float(limit.get("lower")) == joint.lower
        assert float(limit.get("upper")) == joint.upper
        assert float(limit.get("velocity")) == joint.velocity


def test_it_is_one_tree_and_every_mesh_is_there():
    robot = expand()
    links = {link.get("name") for link in robot.findall("link")}
    children = [j.find("child").get("link") for j in robot.findall("joint")]
    assert len(children) == len(set(children))
    assert links - set(children) == {"base_link"}
    meshes = {m.get("filename") for m in robot.iter("mesh")}
    assert meshes
    for mesh in meshes:
        package, _, path = mesh.removeprefix("package://").partition("/")
        assert package == "timar_ros"
        data = share(*path.split("/")).read_bytes()
        count = struct.unpack_from("<I", data, 80)[0]
        assert len(data) == 84 + 50 * count


def test_inertias_are_physical():
    for link in expand().findall("link"):
        inertial = link.find("inertial")
        if inertial is None:
            continue
        i = inertial.find("inertia")
        ixx, iyy, izz = (float(i.get(k)) for k in ("ixx", "iyy", "izz"))
        assert float(inertial.find("mass").get("value")) > 0
        assert ixx + iyy >= izz
        assert iyy + izz >= ixx
        assert izz + ixx >= iyy


def test_pinocchio_agrees_with_the_profile():
    pinocchio = pytest.importorskip("pinocchio")
    model = pinocchio.buildModelFromUrdf(str(share("urdf", "timar_head.urdf")))
    data = model.createData()
    head = model.getFrameId("head_link", pinocchio.FrameType.BODY)
    rng = np.random.default_rng(0)
    for _ in range(20):
        q = pinocchio.neutral(model)
        neck = []
        for joint in PROFILE.neck:
            value = rng.uniform(joint.lower, joint.upper)
            q[model.joints[model.getJointId(joint.name)].idx_q] = value
            neck.append(value)
        pinocchio.forwardKinematics(model, data, q)
        pinocchio.updateFramePlacements(model, data)
        assert np.allclose(data.oMf[head].rotation, forward_rotation(PROFILE.neck, neck).as_matrix(), atol=1e-9)


def test_mujoco_agrees_with_pinocchio_and_the_right_eye_follows_the_left():
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_path(str(share("urdf", "timar_head.mjcf.xml")))
    data = mujoco.MjData(model)
    values = {"neck_yaw": 0.4, "neck_pitch": -0.2, "neck_roll": 0.3}
    for name, value in values.items():
        data.joint(name).qpos[0] = value
    mujoco.mj_forward(model, data)
    wanted = forward_rotation(PROFILE.neck, list(values.values())).as_matrix()
    assert np.allclose(data.body("head_link").xmat.reshape(3, 3), wanted, atol=1e-9)
    data.ctrl[model.actuator("eyes_yaw").id] = 0.3
    model.actuator_gainprm[:, 0], model.actuator_biasprm[:, 1], model.actuator_biasprm[:, 2] = 5.0, -5.0, -0.2
    mujoco.mj_step(model, data, 2000)
    assert data.joint("right_eye_yaw").qpos[0] == pytest.approx(data.joint("eyes_yaw").qpos[0], abs=0.01)


@pytest.mark.parametrize(
    ("sim", "plugin"),
    [("mock", "mock_components/GenericSystem"), ("gazebo", "gz_ros2_control/GazeboSimSystem")],
)
def test_ros2_control_has_the_controllers_joints(sim, plugin):
    robot = expand(sim=sim, controllers="/tmp/c.yaml", namespace="/robot1")
    control = robot.find("ros2_control")
    assert control.find("hardware/plugin").text == plugin
    commanded = {j.get("name"): j for j in control.findall("joint") if j.find("command_interface") is not None}
    controllers = yaml.safe_load(share("config", "controllers", "timar_head.yaml").read_text())
    head = controllers["/**/head_controller"]["ros__parameters"]
    assert head["joints"] == PROFILE.names == list(commanded)
    assert head["allow_nonzero_velocity_at_trajectory_end"] is False
    for joint in PROFILE.joints:
        interface = commanded[joint.name].find("command_interface")
        assert interface.get("name") == "position"
        assert [float(p.text) for p in interface.findall("param")] == [joint.lower, joint.upper]
    if sim == "gazebo":
        assert robot.find("gazebo/plugin/parameters").text == "/tmp/c.yaml"
        assert robot.find("gazebo/plugin/ros/namespace").text == "/robot1"
        assert joints(robot)["world_joint"].find("child").get("link") == "base_link"


def test_meshes_are_found_where_package_uris_are_not():
    meshes = expand(meshes="file:///opt/meshes").iter("mesh")
    assert {m.get("filename").rpartition("/")[0] for m in meshes} == {"file:///opt/meshes"}


def test_without_a_simulator_there_is_no_ros2_control():
    robot = expand()
    assert robot.find("ros2_control") is None
    assert robot.find("gazebo") is None


def test_the_world_loads_what_a_controlled_model_needs():
    world = ET.parse(share("urdf", "worlds", "timar_head.sdf")).getroot().find("world")
    plugins = {p.get("name") for p in world.findall("plugin")}
    assert {
        "gz::sim::systems::Physics",
        "gz::sim::systems::UserCommands",
        "gz::sim::systems::SceneBroadcaster",
    } <= plugins
    assert world.find("light") is not None


def test_rviz_shows_links_that_exist():
    config = yaml.safe_load(share("config", "rviz", "timar_head.rviz").read_text())
    displays = {d["Class"]: d for d in config["Visualization Manager"]["Displays"]}
    assert {"rviz_default_plugins/RobotModel", "rviz_default_plugins/TF"} <= set(displays)
    links = {link.get("name") for link in expand().findall("link")}
    trails = {n for n, v in displays["rviz_default_plugins/RobotModel"]["Links"].items() if isinstance(v, dict)}
    assert trails <= links
    assert trails
    assert config["Visualization Manager"]["Global Options"]["Fixed Frame"] in links


def test_no_path_of_this_machine_is_in_the_files():
    for name in ("timar_head.urdf", "timar_head.mjcf.xml"):
        assert not re.search(r"/(home|work|tmp|root)/", share("urdf", name).read_text())
