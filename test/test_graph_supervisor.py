"""Nodes as child processes: brought up, watched, ended in order, and named when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from support.ros_bench import PATIENCE

from timar_ros.graph.description import NodeSpec
from timar_ros.graph.supervisor import NodeError, Supervisor


def spec(executable, namespace="/", **parameters):
    file = parameters.pop("params_file", None) or os.devnull
    return NodeSpec(executable, namespace, str(file), {"use_sim_time": False, **parameters}, (), ())


@pytest.fixture
def start(ros_domain, tmp_path):
    """Start nodes; all is ended with the test."""
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("watcher", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    started = []

    def make(*specs):
        supervisor = Supervisor(specs, tmp_path / "logs", node, executor)
        started.append(supervisor)
        return supervisor.__enter__()

    yield make
    for supervisor in started:
        supervisor.end()
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def params_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("/**/audio_sink:\n  ros__parameters:\n    device_rate: 48000\n")
    return path


def pids(supervisor):
    return {name: child.process.pid for name, child in supervisor.children.items()}


def test_nodes_come_up_and_end_in_order_with_exit_code_0(start, params_file):
    supervisor = start(
        spec("audio_sink", params_file=params_file), spec("turn_segmenter", "/a", params_file=params_file)
    )
    steps = []
    assert supervisor.bring_up(on_progress=lambda name, done: steps.append((name, done)))
    assert {name for name, done in steps[:2]} == {"audio_sink", "turn_segmenter"}
    assert steps[2:] == [("audio_sink", "activate"), ("turn_segmenter", "activate")]
    mine = pids(supervisor)
    supervisor.end()
    supervisor.check_end()
    assert not any(psutil.pid_exists(pid) for pid in mine.values())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_node_that_dies_is_named(start, params_file, number):
    supervisor = start(spec("audio_sink", params_file=params_file), spec("turn_segmenter", params_file=params_file))
    supervisor.bring_up()
    os.kill(pids(supervisor)["turn_segmenter"], number)

    def watch() -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            supervisor.spin(0.05)

    with pytest.raises(NodeError, match="turn_segmenter") as caught:
        watch()
    assert caught.value.name == "turn_segmenter"


def test_a_node_that_dies_before_it_is_up_is_named_and_its_words_are_kept(start, params_file):
    supervisor = start(spec("audio_sink", params_file=params_file, device_rate=-1))
    with pytest.raises(NodeError, match="audio_sink ended with exit code 2") as caught:
        supervisor.bring_up()
    assert any("device_rate" in line for line in caught.value.tail)


def test_a_failed_configure_names_node_and_reason(start, params_file):
    supervisor = start(spec("audio_source", params_file=params_file, recording="/no/such/file.wav"))
    with pytest.raises(NodeError, match="audio_source could not configure") as caught:
        supervisor.bring_up()
    assert any("/no/such/file.wav" in line for line in caught.value.tail)
    assert not any("Traceback" in line for line in caught.value.tail)


def test_it_can_be_told_to_stop_while_bringing_up(start, params_file):
    supervisor = start(spec("audio_sink", params_file=params_file))
    assert supervisor.bring_up(stop=lambda: True) is False


def test_logs_and_parameters_are_kept(start, params_file, tmp_path):
    supervisor = start(spec("audio_source", params_file=params_file, recording="/none.wav"))
    with pytest.raises(NodeError):
        supervisor.bring_up()
    supervisor.end()
    assert "/none.wav" in (tmp_path / "logs" / "audio_source.log").read_text()
    assert "/none.wav" in (tmp_path / "logs" / "audio_source.yaml").read_text()


def test_nodes_do_not_outlive_a_supervisor_that_is_killed(ros_domain, tmp_path, params_file):
    program = f"""
import os, time, rclpy
from rclpy.executors import SingleThreadedExecutor
from pathlib import Path
from timar_ros.graph.description import NodeSpec
from timar_ros.graph.supervisor import Supervisor
rclpy.init()
node = rclpy.create_node("watcher")
executor = SingleThreadedExecutor()
executor.add_node(node)
spec = NodeSpec("audio_sink", "/", {str(params_file)!r}, {{"use_sim_time": False}}, (), ())
with Supervisor([spec], Path({str(tmp_path)!r}), node, executor) as supervisor:
    supervisor.bring_up()
    print(supervisor.children["audio_sink"].process.pid, flush=True)
    time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    child.wait(timeout=PATIENCE)
