"""The launch files, run for real: all nodes become active, Ctrl-C ends them, and what fails is named."""

from __future__ import annotations

import importlib.util
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

# Not imported here: launch would change the logging of this whole process.
if importlib.util.find_spec("launch_ros") is None:
    pytest.skip(
        "launch and launch_ros are not installed: scripts/get_ros_tools.py puts them in place", allow_module_level=True
    )

from support.ros_bench import PATIENCE

from timar_ros.resources import share

RUN = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
pairs = [a.split(":=", 1) for a in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(
    IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=pairs)
)
sys.exit(service.run())
"""


class Launched:
    """A launch file in a process of its own, and what it prints."""

    def __init__(self, file, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(file), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def until(self, *texts):
        """Read on until every text has been seen."""
        deadline = time.monotonic() + PATIENCE
        while not all(any(text in line for line in self.lines) for text in texts):
            try:
                line = self._queue.get(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"{texts} never came:\n{''.join(self.lines)}"
            self.lines.append(line)

    def until_count(self, text, count):
        """Read on until so many lines have the text."""
        while sum(text in line for line in self.lines) < count:
            line = self._queue.get(timeout=PATIENCE)
            assert line is not None, f"{text} came less than {count} times:\n{''.join(self.lines)}"
            self.lines.append(line)

    def wait_for_node(self, name):
        """The processes of a node, as soon as there are any."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := [p for p in self.children() if any(name in part for part in p.cmdline())]:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{name} was not started again")

    def children(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def finish(self, interrupt=True):
        """Ctrl-C, then its exit code; nothing may be left over."""
        left = self.children()
        if interrupt:
            os.killpg(self.process.pid, signal.SIGINT)  # a terminal's Ctrl-C goes to all in its group
        code = self.process.wait(timeout=PATIENCE)
        while (line := self._queue.get(timeout=PATIENCE)) is not None:
            self.lines.append(line)
        _, alive = psutil.wait_procs(left, timeout=PATIENCE)
        assert not alive
        return code


@pytest.fixture
def launch(ros_domain):
    started = []

    def make(name, *arguments):
        file = share("launch", f"{name}.launch.py") if isinstance(name, str) else name
        made = Launched(file, *arguments)
        started.append(made)
        return made

    yield make
    for each in started:
        if each.process.poll() is None:
            for child in each.children():
                child.kill()
            each.process.kill()
            each.process.wait()
        each.process.stdout.close()


def test_bringup_activates_the_nodes_in_a_namespace_and_ends_on_ctrl_c(launch):
    run = launch("bringup", "only:=audio_sink,retarget", "namespace:=robot1")
    run.until("/robot1/audio_sink is active", "/robot1/retarget is active")
    assert run.finish() == 0
    assert not any("Traceback" in line or "ERROR" in line for line in run.lines), "".join(run.lines)


def test_a_node_that_cannot_configure_ends_the_launch_with_its_reason(launch):
    run = launch("bringup", "source:=recording", "recording:=/no/such.wav", "only:=audio_source", "keep_going:=false")
    run.until("/no/such.wav", "/audio_source could not configure")
    assert run.finish(interrupt=False) == 1


def test_a_node_that_dies_ends_the_launch_and_is_named(launch):
    run = launch("bringup", "only:=audio_sink,retarget", "keep_going:=false")
    run.until("/audio_sink is active", "/retarget is active")
    (victim,) = [p for p in run.children() if any("retarget" in part for part in p.cmdline())]
    victim.kill()
    run.until("/retarget has ended")
    assert run.finish(interrupt=False) == 1


def test_a_node_that_dies_is_restarted_where_asked_and_comes_up_again(launch):
    run = launch("bringup", "only:=audio_sink,retarget", "keep_going:=false", "respawn:=true")
    run.until("/audio_sink is active", "/retarget is active")
    for number in (1, 2):
        (victim,) = [p for p in run.children() if any("retarget" in part for part in p.cmdline())]
        victim.kill()
        run.until(f"/retarget has ended: restart {number} of at most 5")
        run.until_count("/retarget is active again", number)
    assert run.finish() == 0


def test_a_node_that_dies_too_often_is_given_up(launch):
    run = launch("bringup", "only:=audio_sink,retarget", "keep_going:=false", "respawn:=true")
    run.until("/audio_sink is active", "/retarget is active")
    for number in range(1, 6):
        (victim,) = run.wait_for_node("retarget")
        victim.kill()
        run.until(f"/retarget has ended: restart {number} of at most 5")
    (victim,) = run.wait_for_node("retarget")
    victim.kill()
    run.until("/retarget has ended and was restarted 5 times within 60 s")
    assert run.finish(interrupt=False) == 1


def test_a_node_that_fails_ends_no_robot_bring_up_unless_asked(launch):
    run = launch("bringup", "source:=recording", "recording:=/no/such.wav", "only:=audio_source")
    run.until("/audio_source could not configure")
    assert run.process.poll() is None
    assert run.finish() == 0


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_record_leaves_a_readable_bag(launch, tmp_path, storage):
    run = launch("record", f"out:={tmp_path / 'bag'}", f"storage:={storage}")
    run.until("/recorder is active")
    assert run.finish() == 0
    assert (tmp_path / "bag" / "metadata.yaml").exists()


def test_a_recording_that_is_not_whole_ends_the_launch_with_1(launch, tmp_path):
    run = launch("record", f"out:={tmp_path / 'bag'}", "storage:=sqlite3")
    run.until("/recorder is active")
    (node,) = [p for p in run.children() if any("recorder" in part for part in p.cmdline())]
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))  # as on a full disk
    assert run.finish() == 1
    assert any("writing the bag" in line for line in run.lines)


def test_a_namesake_is_told_instead_of_waited_for(launch, tmp_path):
    first = launch("record", f"out:={tmp_path / 'first'}")
    first.until("/recorder is active")
    second = launch("record", f"out:={tmp_path / 'second'}")
    second.until("the name /recorder")  # by count, or as the reason for a refusal
    assert second.finish(interrupt=False) == 1
    assert first.finish() == 0


def test_bring_up_has_a_deadline(launch):
    run = launch("bringup", "model:=random-mini", "keep_going:=false", "bring_up_timeout:=0")
    run.until("did not configure in time")
    assert run.finish(interrupt=False) == 1


GET = """
import sys, rclpy
from rclpy.parameter_client import AsyncParameterClient
rclpy.init()
node = rclpy.create_node("asker")
client = AsyncParameterClient(node, sys.argv[1])
client.wait_for_services()
future = client.get_parameters([sys.argv[2]])
rclpy.spin_until_future_complete(node, future)
print(rclpy.parameter.parameter_value_to_python(future.result().values[0]))
"""

PARENT = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace, SetParameter

def generate_launch_description():
    head = IncludeLaunchDescription(
        PythonLaunchDescriptionSource("{file}"), launch_arguments={{"only": "audio_sink,retarget"}}.items()
    )
    settings = [PushRosNamespace("robot7"), SetParameter("rate", 50.0), SetParameter("use_sim_time", True)]
    return LaunchDescription([
        DeclareLaunchArgument("mode", default_value="patrol"),
        DeclareLaunchArgument("device", default_value="/dev/arm"),
        GroupAction([*settings, head], scoped=True, forwarding=False),
    ])
"""


def test_it_composes_with_a_robots_own_launch_file(launch, tmp_path):
    parent = tmp_path / "robot.launch.py"
    parent.write_text(PARENT.format(file=share("launch", "bringup.launch.py")))
    run = launch(parent)
    run.until("/robot7/audio_sink is active", "/robot7/retarget is active")
    values = {
        name: subprocess.run(
            [sys.executable, "-c", GET, "/robot7/retarget", name], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("rate", "use_sim_time")
    }
    assert values == {"rate": "50.0", "use_sim_time": "True"}
    assert run.finish() == 0


def test_demo_plays_the_sample_to_its_end(launch):
    run = launch("demo", "speed:=0", "model:=random-mini", "device:=cpu")
    run.until("/audio_source is active")
    run.until("finished: ")
    assert run.finish() == 0


def test_simulation_starts_with_the_built_in_simulator(launch):
    run = launch("simulation", "speed:=0", "model:=random-mini", "device:=cpu")
    run.until("/head_simulator is active", "/audio_source is active")
    run.until("finished: ")
    assert run.finish() == 0
