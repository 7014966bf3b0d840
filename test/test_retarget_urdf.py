"""URDFs as people have them: which limits count, and what is refused in one line."""

from __future__ import annotations

import pytest
import yaml

from timar_ros.cli.main import main
from timar_ros.errors import UserError
from timar_ros.retarget.urdf import new_profile, read_chain, suggest_neck

LIMIT = '<limit lower="-1.2" upper="1.2" effort="5" velocity="2"/>'


def urdf(yaw: str = LIMIT, pitch: str = LIMIT, more: str = "", root: str = '<robot name="r">') -> str:
    return f"""{root}
  <link name="base"/><link name="neck"/><link name="head"/><link name="arm"/>
  <joint name="head_yaw" type="revolute"><parent link="base"/><child link="neck"/><axis xyz="0 0 1"/>{yaw}</joint>
  <joint name="head_pitch" type="revolute"><parent link="neck"/><child link="head"/><axis xyz="0 1 0"/>{pitch}</joint>
  <joint name="arm_left_1" type="revolute"><parent link="base"/><child link="arm"/><axis xyz="0 1 0"/>{LIMIT}</joint>
  {more}</robot>"""


def profile(text: str | bytes, neck: tuple[str, ...] = ("head_yaw", "head_pitch")) -> tuple[dict, str]:
    made, doubts = new_profile(text, "r", neck)
    return yaml.safe_load(made), "\n".join(doubts)


def test_the_narrowest_of_all_limits_counts():
    soft = LIMIT + '<safety_controller soft_lower_limit="-0.9" soft_upper_limit="0.8" k_velocity="20"/>'
    control = """<ros2_control name="c" type="system"><joint name="head_pitch">
      <command_interface name="position"><param name="min">-0.3</param><param name="max">0.4</param></command_interface>
      <command_interface name="velocity"><param name="min">-1</param><param name="max">1.0</param></command_interface>
    </joint></ros2_control>"""
    yaw, pitch = profile(urdf(yaw=soft, more=control))[0]["neck"]
    assert yaw["position"] == [-0.9, 0.8] and pitch["position"] == [-0.3, 0.4] and pitch["velocity"] == 1.0


def test_soft_limits_of_nothing_are_none():
    yaw, _ = profile(urdf(yaw=LIMIT + '<safety_controller soft_lower_limit="0" soft_upper_limit="0"/>'))[0]["neck"]
    assert yaw["position"] == [-1.2, 1.2]


@pytest.mark.parametrize("high", [40, 70, 90])
def test_degrees_are_refused(high):
    with pytest.raises(UserError, match="degrees"):
        profile(urdf(pitch=f'<limit lower="-{high}" upper="{high}" velocity="2"/>'))


@pytest.mark.parametrize("speed", [20, 33])
def test_a_speed_that_no_head_has_is_capped(speed):
    data, doubts = profile(urdf(yaw=f'<limit lower="-1" upper="1" velocity="{speed}"/>'))
    assert data["neck"][0]["velocity"] == 6.0 and f"velocity {speed} rad/s" in doubts


@pytest.mark.parametrize(
    "root", ['<robot name="r" xmlns="http://www.ros.org">', '<u:robot name="r" xmlns:u="http://x">']
)
def test_namespaces_do_not_matter(root):
    text = urdf(root=root)
    assert len(read_chain(text.replace("</robot>", "</u:robot>") if "u:robot" in root else text)) == 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "utf-8-sig"])
def test_own_encodings(tmp_path, encoding):
    file = tmp_path / "r.urdf"
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    file.write_bytes(f'<?xml version="1.0" encoding="{declared}"?>\n<!-- Köpfchen -->{urdf()}'.encode(encoding))
    assert main(["robots", "new", str(file), "--neck", "head_yaw,head_pitch", "--out", str(tmp_path / "r.yaml")]) == 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (urdf(more='<x:head xmlns:x="http://www.ros.org/wiki/xacro"/>'), "xacro"),
        (urdf().replace("-1.2", "${-limit}"), "xacro"),
        ('<!DOCTYPE r [<!ENTITY a "b">]>' + urdf(), "entities"),
        ("<sdf/>", "root element"),
        ("<robot", "no valid URDF"),
    ],
)
def test_what_is_no_urdf_is_refused(text, what):
    with pytest.raises(UserError, match=what):
        read_chain(text)


def test_an_arm_is_no_neck_and_the_neck_is_suggested(tmp_path, capsys):
    with pytest.raises(UserError, match=r"did you mean --neck head_yaw,head_pitch"):
        profile(urdf(), ("arm_left_1",))
    (tmp_path / "r.urdf").write_text(urdf())
    assert main(["robots", "new", str(tmp_path / "r.urdf")]) == 2
    assert "--neck head_yaw,head_pitch" in capsys.readouterr().err
    assert suggest_neck(read_chain(urdf())) == ["head_yaw", "head_pitch"]
    assert "command_topic" in profile(urdf())[1]


@pytest.mark.parametrize("rpy", ["0 0 1e400", "nan 0 0", "0 1e9 0"])
def test_angles_that_are_none_are_refused(rpy):
    text = (
        '<robot name="r"><link name="a"/><link name="b"/><joint name="j" type="revolute"><parent link="a"/>'
        f'<child link="b"/><origin rpy="{rpy}"/><axis xyz="0 0 1"/>'
        '<limit lower="-1" upper="1" velocity="1" effort="1"/></joint></robot>'
    )
    with pytest.raises(UserError, match="where three numbers belong"):
        new_profile(text, "r", ["j"])
