"""Robot profiles: those that ship, those that are wrong, those made from a URDF; and the commands on them."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import yaml
from support.robot_chains import CHAINS

from timar_ros.cli.main import main
from timar_ros.errors import UserError
from timar_ros.resources import share
from timar_ros.retarget import list_profiles, load_profile
from timar_ros.retarget.profile import profile_from_dict
from timar_ros.retarget.robot_check import check_motion, sweeps

ROBOTS = list_profiles()
EXPECTED = ["ergocub", "icub", "nao", "pepper", "reachy2", "reachy_mini", "romeo", "sawyer", "tiago", "timar_head"]
EXPECTED += ["unitree_h2", "pr2", "fetch", "hsr", "ari", "talos", "reemc", "tiago_pro", "gr1t2", "booster_t1"]
EXPECTED += ["qtrobot", "stretch"]


def test_the_promised_robots_are_there():
    assert sorted(ROBOTS) == sorted(EXPECTED)


@pytest.mark.parametrize("robot", ROBOTS)
def test_profiles_say_where_they_come_from(robot):
    profile = load_profile(robot)
    assert profile.name == robot
    assert profile.source != "not given"
    assert profile.licence != "not given"
    for joint in profile.joints:
        assert joint.acceleration <= 20 * joint.velocity
        assert joint.jerk >= joint.acceleration


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_profile_passes_its_sweeps(robot):
    profile = load_profile(robot)
    for name, frames in sweeps().items():
        check, _ = check_motion(profile, name, frames)
        assert check.passed, (name, check)
        assert abs(check.lag) <= 0.08
        assert check.correlation >= 0.95


def base(**changes):
    joint = {"joint": "n", "axis": [0, 0, 1], "position": [-1, 1], "velocity": 3.0}
    return {"neck": [{**joint, **changes}]}


def test_defaults_and_what_the_urdf_may_decide():
    joint = profile_from_dict(base()).neck[0]
    assert (joint.acceleration, joint.jerk) == (30.0, 600.0)
    data = base()
    del data["neck"][0]["velocity"], data["neck"][0]["position"]
    data["neck"][0]["urdf"] = {"position": [-0.5, 0.7], "velocity": 4.0}
    joint = profile_from_dict(data).neck[0]
    assert (joint.lower, joint.upper, joint.velocity) == (-0.5, 0.7, 4.0)


@pytest.mark.parametrize("velocity", [0.0, -1.0, 50.0, 100.0, 1e4, 5e4, 1e8, 1e9, float("inf"), float("nan")])
def test_placeholder_velocities_of_a_urdf_are_not_believed(velocity):
    data = base(urdf={"velocity": velocity})
    assert profile_from_dict(data).neck[0].velocity == 3.0
    del data["neck"][0]["velocity"]
    with pytest.raises(UserError, match="no usable velocity"):
        profile_from_dict(data)


@pytest.mark.parametrize("position", [[1.0, -1.0], [0.0, 0.0], [-1e9, 1e9], None, "wide"])
def test_unusable_ranges_of_a_urdf_are_not_believed(position):
    data = base(urdf={"position": position})
    del data["neck"][0]["position"]
    with pytest.raises(UserError, match="no usable position"):
        profile_from_dict(data)


WRONG = {
    "no neck": ({}, "'neck' must be a list"),
    "not a mapping": ([], "must be a mapping"),
    "axis": (base(axis=[0, 0, 0]), "unit vector"),
    "axis length": (base(axis=[0, 1]), "list of 3 numbers"),
    "reversed": (base(position=[1, -1]), "not below"),
    "velocity": (base(velocity=100.0), "no motor's limit"),
    "text": (base(velocity="fast"), "finite number"),
    "unknown entry": (base(speed=3), "unknown entries speed"),
    "sign": (base(sign=2), "sign must be"),
    "offset": (base(offset=2.0), "outside"),
    "twice": ({"neck": base()["neck"] * 2}, "same name"),
    "output": ({**base(), "output": "smoke"}, "'output' must be one of"),
    "jaw": ({**base(), "jaw": {"joint": "j", "position": [0, 1], "velocity": 3, "open": 2}}, "open position"),
    "coupling": ({**base(), "couplings": [{"joint": "n", "by": "m", "table": []}]}, "two of them"),
    "expression": ({**base(), "face": [{"joint": "f", "expression": {50: 1}, "position": [0, 1]}]}, "0-49"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_profiles_are_refused_with_the_reason(case):
    data, reason = WRONG[case]
    with pytest.raises(UserError, match=reason):
        profile_from_dict(data)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="known are ari, booster_t1"):
        load_profile("r2d2")
    with pytest.raises(UserError, match="not found"):
        load_profile(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(UserError, match="no valid YAML"):
        load_profile(tmp_path / "bad.yaml")


def test_list_show_check(capsys, tmp_path):
    assert main(["robots", "list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ROBOTS)
    assert max(map(len, said.splitlines())) <= 80
    assert main(["robots", "show", "nao"]) == 0
    assert "HeadPitch is limited by HeadYaw" in capsys.readouterr().out
    plot = tmp_path / "check.svg"
    assert main(["robots", "check", "timar_head", "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    assert said.count("pass") == len(sweeps())
    assert "│ jaw " in said
    assert plot.read_text().startswith("<svg")
    assert main(["robots", "check", "nao"]) == 0
    said = capsys.readouterr().out
    assert "no jaw joint" in said and "│ jaw " not in said
    assert main(["robots", "show", "r2d2"]) == 2
    assert "known are" in capsys.readouterr().err


@pytest.mark.parametrize("robot", ["tiago", "nao", "unitree_h2", "ergocub", "romeo", "sawyer"])
def test_new_reads_axes_and_order_from_a_urdf(robot, tmp_path, capsys):
    profile = load_profile(robot)
    urdf, out = tmp_path / "robot.urdf", tmp_path / "new.yaml"
    urdf.write_text(CHAINS[robot].urdf())
    names = [joint.name for joint in profile.neck]
    assert main(["robots", "new", str(urdf), "--neck", ",".join(reversed(names)), "--out", str(out)]) == 0
    made = load_profile(out)
    assert [joint.name for joint in made.neck] == names
    for new, old in zip(made.neck, profile.neck, strict=True):
        assert new.signed_axis == pytest.approx(old.signed_axis, abs=1e-6)
    if len(names) > 1:
        assert "order:" in capsys.readouterr().out
    assert main(["robots", "check", str(out)]) == 0
    assert main(["robots", "new", str(urdf), "--neck", names[0], "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_new_flags_what_is_doubtful(tmp_path, capsys):
    urdf, out = tmp_path / "robot.urdf", tmp_path / "new.yaml"
    urdf.write_text(
        CHAINS["sawyer"].urdf().replace('lower="-7" upper="7" velocity="10"', 'lower="0.9" upper="-1.2" velocity="1e8"')
    )
    assert main(["robots", "new", str(urdf), "--neck", "head_pan", "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "wrong way round" in said
    assert "placeholder" in said
    profile = load_profile(out)
    assert (profile.neck[0].lower, profile.neck[0].upper) == (-1.2, 0.9)
    assert yaml.safe_load(out.read_text())["notes"]


def test_new_takes_a_jaw_and_another_forward(tmp_path):
    urdf, out = share("urdf", "timar_head.urdf"), tmp_path / "new.yaml"
    neck = "neck_yaw,neck_pitch,neck_roll"
    assert main(["robots", "new", str(urdf), "--neck", neck, "--jaw", "jaw", "--out", str(out)]) == 0
    made = load_profile(out)
    assert made.jaw.joint.name == "jaw"
    assert (made.jaw.joint.neutral, made.jaw.open_position) == (0.0, 0.35)
    icub, out2 = tmp_path / "icub.urdf", tmp_path / "icub.yaml"
    icub.write_text(CHAINS["icub"].urdf().replace('rpy="0.0 0.0 3.141592653589793"', 'rpy="0 0 0"'))
    names = ",".join(joint.name for joint in load_profile("icub").neck)
    assert main(["robots", "new", str(icub), "--neck", names, "--forward", "minus-x", "--out", str(out2)]) == 0
    for new, old in zip(load_profile(out2).neck, load_profile("icub").neck, strict=True):
        assert new.signed_axis == pytest.approx(old.signed_axis, abs=1e-6)


@pytest.mark.parametrize("text", ["", "<robot", "<sdf/>", "<robot name='x'><joint name='a' type='fixed'/></robot>"])
def test_new_refuses_what_is_no_urdf(text, tmp_path, capsys):
    urdf = tmp_path / "robot.urdf"
    urdf.write_text(text)
    assert main(["robots", "new", str(urdf), "--neck", "a", "--out", str(tmp_path / "o.yaml")]) == 2
    assert "URDF" in capsys.readouterr().err


LIMIT = '<limit lower="{}" upper="1" velocity="3" effort="1"/>'


def urdf_of(*joints: tuple[str, str, str, str, str]) -> str:
    """A URDF of joints (name, parent, child, axis, lower limit or a mimic)."""
    text = ""
    for name, parent, child, axis, last in joints:
        ends = f'<parent link="{parent}"/><child link="{child}"/><axis xyz="{axis}"/>'
        last = last if last.startswith("<") else LIMIT.format(last)
        text += f'<link name="{child}"/><joint name="{name}" type="revolute">{ends}{last}</joint>'
    return f'<robot name="r"><link name="base"/>{text}</robot>'


CHAIN = urdf_of(
    ("pan", "base", "a", "0 0 1", "-1"), ("tilt", "a", "b", "1 0 0", "0.2"),
    ("arm", "base", "c", "0 1 0", "-1"), ("eye", "b", "d", "0 1 0", '<mimic joint="pan"/>'),
)  # fmt: skip


@pytest.mark.parametrize(
    ("neck", "words"),
    [
        (",", "name the neck"),
        ("pan,arm", "joint 'arm' is by its name no neck"),
        ("pan,pan", "'pan' does not sit on 'pan'"),
        ("pan,eye", "'eye' follows 'pan'"),
        ("pan,nod", "no joint 'nod' that turns; it has arm, eye, pan, tilt"),
    ],
)
def test_new_refuses_what_is_no_neck(neck, words, tmp_path, capsys):
    urdf = tmp_path / "robot.urdf"
    urdf.write_text(CHAIN)
    assert main(["robots", "new", str(urdf), "--neck", neck, "--out", str(tmp_path / "o.yaml")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o.yaml").exists()


def test_a_neck_read_along_the_wrong_axis_is_told(tmp_path, capsys):
    """A robot that looks along y: its pitch joint is taken for a roll."""
    urdf, out = tmp_path / "robot.urdf", tmp_path / "o.yaml"
    urdf.write_text(CHAIN)
    assert main(["robots", "new", str(urdf), "--neck", "pan,tilt", "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "tilts but cannot nod" in said
    assert "0 is out of its range" in said
    assert load_profile(out).neck[1].neutral == 0.6
    assert main(["robots", "check", str(out)]) == 0
    assert "nod: " in capsys.readouterr().out
    out.unlink()
    assert main(["robots", "new", str(urdf), "--neck", "pan,tilt", "--forward", "minus-y", "--out", str(out)]) == 0
    assert "cannot nod" not in capsys.readouterr().out
    assert load_profile(out).neck[1].axis == (0.0, 1.0, 0.0)
    assert main(["robots", "check", str(out), "--plot", str(tmp_path / "plot.png")]) == 2


@pytest.mark.parametrize("robot", ["tiago", "nao", "reachy2", "timar_head"])
def test_retarget_writes_the_documented_table(robot, tmp_path):
    out = tmp_path / "joints.csv"
    motion = share("samples", "conversation_agent.npz")
    assert main(["retarget", "--robot", robot, "--motion", str(motion), "--out", str(out)]) == 0
    with out.open(newline="") as file:
        rows = list(csv.reader(file))
    profile = load_profile(robot)
    wanted = ["time"] + [f"{n}/{q}" for n in profile.names for q in ("position", "velocity", "acceleration")]
    assert rows[0] == wanted
    table = np.array(rows[1:], dtype=float)
    assert np.diff(table[:, 0]) == pytest.approx(0.01)
    limits = profile.limits()
    for index in range(len(profile.names)):
        p, v, a = (table[:, 1 + 3 * index + k] for k in range(3))
        assert p.min() >= limits["lower"][index] - 1e-6
        assert p.max() <= limits["upper"][index] + 1e-6
        assert np.abs(v).max() <= limits["velocity"][index] + 1e-6
        assert np.abs(a).max() <= limits["acceleration"][index] + 1e-6
        assert np.abs(np.diff(a)).max() / 0.01 <= limits["jerk"][index] + 1e-6
        assert np.abs(np.diff(p)).max() / 0.01 <= limits["velocity"][index] + 1e-6


def test_retarget_refuses_bad_input(tmp_path, capsys):
    motion = str(share("samples", "conversation_agent.npz"))
    for arguments, words in (
        (["--robot", "r2d2", "--motion", motion, "--out", str(tmp_path / "o.csv")], "known are"),
        (["--robot", "nao", "--motion", str(tmp_path / "none.npz"), "--out", str(tmp_path / "o.csv")], "none.npz"),
        (["--robot", "nao", "--motion", motion, "--out", str(tmp_path / "no" / "o.csv")], "does not exist"),
        (["--robot", "nao", "--motion", motion, "--out", str(tmp_path / "o.csv"), "--rate", "1"], "output rate"),
    ):
        assert main(["retarget", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
