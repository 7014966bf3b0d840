"""What the launch files describe: every one can be evaluated, with every simulator; nothing is started."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 in this environment")
pytest.importorskip("timar_ros.msg", reason="the interfaces are not built in this environment")

from timar_ros.graph.description import SIMULATORS, GraphOptions
from timar_ros.resources import share

# find_spec and a process of its own: to import launch changes the logging of this process.
REAL = importlib.util.find_spec("launch_ros") is not None
TOOLS = [
    "standin",
    pytest.param(
        "real",
        marks=pytest.mark.skipif(
            not REAL, reason="launch_ros is not installed: scripts/get_ros_tools.py puts it in place"
        ),
    ),
]
CONVERSATION = {"audio_sink", "retarget", "timar_inference", "turn_segmenter"}


def evaluate(tools: str, name: str, *arguments: str) -> list[dict[str, str]]:
    """What a launch file would start: one entry for each node and each included file."""
    script = Path(__file__).parent / "support" / "standins" / "evaluate_launch.py"
    options = ["--standin"] if tools == "standin" else []
    done = subprocess.run(
        [sys.executable, str(script), *options, str(share("launch", f"{name}.launch.py")), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def executables(entries: list[dict[str, str]]) -> set[str]:
    return {entry["executable"] for entry in entries if entry["kind"] in ("Node", "LifecycleNode")}


@pytest.mark.parametrize("tools", TOOLS)
@pytest.mark.parametrize("sim", SIMULATORS)
@pytest.mark.parametrize("rviz", ["false", "true"])
def test_simulation_describes_every_simulator(tools: str, sim: str, rviz: str) -> None:
    # Defaults are left to the file: what is given exists before any declaration.
    entries = evaluate(tools, "simulation", f"sim:={sim}", *(["rviz:=true"] if rviz == "true" else []))
    wanted = CONVERSATION | {"audio_source"}
    wanted |= {"head_simulator"} if sim == "builtin" else set()
    wanted |= {"spawner"} if sim in ("gazebo", "mock") else set()
    wanted |= {"create", "parameter_bridge"} if sim == "gazebo" else set()
    wanted |= {"ros2_control_node"} if sim == "mock" else set()
    wanted |= {"robot_state_publisher"} if sim in ("gazebo", "mock") or rviz == "true" else set()
    wanted |= {"rviz2"} if rviz == "true" else set()
    assert executables(entries) == wanted
    assert any(entry["kind"] == "IncludeLaunchDescription" for entry in entries) == (sim == "gazebo")


@pytest.mark.parametrize(("sim", "rviz"), [("mock", "false"), ("gazebo", "false"), ("none", "true")])
def test_what_shows_one_robot_refuses_another(sim: str, rviz: str) -> None:
    with pytest.raises(AssertionError, match="robot:=tiago cannot be shown by"):
        evaluate("standin", "simulation", f"sim:={sim}", f"rviz:={rviz}", "robot:=tiago")
    assert "head_simulator" in executables(evaluate("standin", "simulation", "robot:=tiago"))


@pytest.mark.parametrize("tools", TOOLS)
@pytest.mark.parametrize(
    ("name", "arguments", "own"),
    [
        ("bringup", [], set()),
        ("demo", [], {"audio_source", "head_simulator"}),
        ("replay", ["bag:=some"], {"bag_player"}),
        ("record", ["out:=some"], None),
    ],
)
def test_each_launch_file_describes_its_nodes(
    tools: str, name: str, arguments: list[str], own: set[str] | None
) -> None:
    wanted = {"recorder"} if own is None else CONVERSATION | own
    assert executables(evaluate(tools, name, *arguments)) == wanted


@pytest.mark.parametrize("tools", TOOLS[1:])
@pytest.mark.parametrize("name", ["bringup", "demo", "simulation", "replay"])
def test_every_option_is_an_argument(tools: str, name: str) -> None:
    entries = evaluate(tools, name, *(["bag:=some"] if name == "replay" else []))
    declared = {entry["name"]: entry["help"] for entry in entries if entry["kind"] == "argument"}
    for item in fields(GraphOptions):
        assert declared[item.name].startswith(item.metadata["help"])


def test_loggers_reach_the_tests_whatever_is_installed() -> None:
    assert logging.getLogger("timar_ros.made.by.this.test").propagate
    assert "launch" not in sys.modules  # imported, it would change every logger that comes after
