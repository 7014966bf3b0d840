"""Bridges to other packages' topics, over real DDS against generated stand-ins for their interfaces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
from support.standins.interfaces import build

SCENARIO = Path(__file__).parent / "support" / "standins" / "scenario.py"


@pytest.fixture(scope="session")
def family(repository: Path) -> Any:
    """Environment in which one family of stand-ins can be imported; built once and kept in build/."""
    return lambda name: build(name, repository / "build" / "standins")


def run(env: dict[str, str] | None, *args: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCENARIO), *args], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def with_domain(env: dict[str, str], domain: int) -> dict[str, str]:
    return {**env, "ROS_DOMAIN_ID": str(domain)}


@pytest.mark.parametrize("kind", ["stamped", "bare", "voice"])
def test_ros_drivers_audio(family: Any, ros_domain: int, kind: str) -> None:
    got = run(with_domain(family("ros_drivers"), ros_domain), "ros_drivers", kind)
    assert got["contiguous"]
    assert got["samples"] == 16000
    assert got["rate"] == 16000
    assert got["error"] < 1e-4
    assert "ros-drivers" in got["status"]["kind"]
    if kind == "stamped":
        assert got["uneven_ms"] < 0.01
        assert got["status"]["level"] == 0
    else:
        assert "stamps it at reception" in got["status"]["message"]


def test_mp3_is_refused_with_a_hint(family: Any, ros_domain: int) -> None:
    got = run(with_domain(family("ros_drivers"), ros_domain), "ros_drivers", "mp3")
    assert "format:=wave" in got["status"]["message"]
    assert got["chunks"] == 0


def test_mgonzs13_audio_of_the_same_name(family: Any, ros_domain: int) -> None:
    got = run(with_domain(family("mgonzs13"), ros_domain), "mgonzs13")
    assert got["contiguous"]
    assert got["error"] < 1e-4
    assert got["uneven_ms"] < 0.01
    assert "mgonzs13" in got["status"]["kind"]


def test_a_type_that_is_not_installed_names_its_package(family: Any, ros_domain: int) -> None:
    publisher = subprocess.Popen(
        [sys.executable, str(SCENARIO), "only_publish"],
        env=with_domain(family("ros_drivers"), ros_domain),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert publisher.stdout is not None
        assert publisher.stdout.readline().strip() == "publishing"
        got = run(None, "missing")
    finally:
        publisher.kill()
        publisher.wait()
    assert "apt install ros-$ROS_DISTRO-audio-common-msgs" in got["status"]["message"]


def test_head_from_tf(family: Any, ros_domain: int) -> None:
    got = run(with_domain(family("ros_drivers"), ros_domain), "tf")
    np.testing.assert_allclose(got["pose"], [0.25, 0.0, 0.0], atol=1e-5)
    assert got["expression"] == 0  # not known: empty, not zeros
    assert got["jaw"] == 0


def test_avatar_outputs_at_their_time(family: Any, ros_domain: int) -> None:
    got = run(with_domain(family("ros_drivers"), ros_domain), "facs")
    expected = np.clip(np.linspace(0, 0.4, 25) * 2.2, 0, 1)
    np.testing.assert_allclose(got["mouth"], expected, atol=1e-5)
    np.testing.assert_allclose(got["opened"], expected, atol=1e-5)
    np.testing.assert_allclose(got["drop"], expected, atol=1e-5)
    assert got["earliest"] <= 0.0  # never before it is to be seen


@pytest.mark.parametrize("executor", ["single", "events"])
def test_a_goal_of_ros4hris_tts_ends_when_it_was_heard(family: Any, ros_domain: int, executor: str) -> None:
    """tts_msgs is a stand-in: the types of its authors, built here."""
    if executor == "events":
        pytest.importorskip("rclpy.experimental", reason="this rclpy has no EventsExecutor")
    got = run({**with_domain(family("ros4hri"), ros_domain), "TIMAR_EXECUTOR": executor}, "tts")
    ends = got["names"]
    assert got["refused"]  # an empty text
    assert got["heard"] == [ends["succeeded"], ""]
    assert got["took"] >= 0.5  # as long as the speech lasts
    status, reason = got["failed"]
    assert status == ends["aborted"]
    assert "no such voice" in reason
    assert got["taken_back"] == [ends["canceled"], "cancelled"]
    assert got["still"]  # a text that waited is taken back without an interruption
    assert got["cut"] == [ends["canceled"], "interrupted"]
    assert got["cancels"] == 1
    assert got["again"] == [ends["succeeded"], ""]


def test_an_avatar_gets_vmc_only_when_asked_and_each_frame_at_its_time(ros_domain: int) -> None:
    pytest.importorskip("pythonosc", reason="python-osc is not installed: pip install 'timar_ros[avatar]'")
    from support.osc_receiver import Receiver
    from support.ros_bench import Bench

    from timar_ros.foreign.vmc import head_pose_of
    from timar_ros.msg import FlameMotion
    from timar_ros.nodes.avatar_bridge import AvatarBridge
    from timar_ros.ros import messages, qos

    receiver = Receiver()
    frames = np.zeros((25, 56), np.float32)
    frames[:, 50] = np.linspace(0.0, 0.4, 25)
    frames[:, 54] = np.linspace(0.0, -0.5, 25)
    try:
        with Bench() as bench:
            plain = bench.add(AvatarBridge, namespace="plain", blendshapes=False)
            asked = bench.add(AvatarBridge, vmc_port=receiver.port, blendshapes=False, mouth=False)
            publisher = bench.probe.create_publisher(FlameMotion, "agent/motion", qos.motion())
            bench.bring_up(plain, asked)
            assert plain._vmc is None
            bench.connected(publisher)
            begin = asked.now_ns() + 200_000_000
            publisher.publish(messages.motion_message(begin, 25.0, frames))
            bench.until(lambda: len(receiver.arrived) == 25)
            assert asked.diagnose()[1] == "showing"
        late = [at * 1e9 - begin - index * 4e7 for index, at in enumerate(receiver.arrived)]
        assert min(late) > -1e6  # never before its time; DDS, timer and UDP make it later
        heads = [m for m in receiver.messages if m[0] == "/VMC/Ext/Bone/Pos"]
        jaws = [m[2] for m in receiver.messages if m[1:2] == ("jawOpen",)]
        np.testing.assert_allclose([head_pose_of(m[5:])[1] for m in heads], frames[:, 54], atol=1e-5)
        np.testing.assert_allclose(jaws, np.clip(frames[:, 50] * 2.2, 0, 1), atol=1e-5)
    finally:
        receiver.close()
