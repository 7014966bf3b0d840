"""The launch files, run for real: all nodes become active, Ctrl-C ends them, and what fails is named."""

from __future__ import annotations

import importlib.util
import os
import queue
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

from ros_bench import PATIENCE

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
        made = Launched(share("launch", f"{name}.launch.py"), *arguments)
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
    run = launch("bringup", "source:=recording", "recording:=/no/such.wav", "only:=audio_source")
    run.until("/no/such.wav", "/audio_source could not configure")
    assert run.finish(interrupt=False) == 1


def test_a_node_that_dies_ends_the_launch_and_is_named(launch):
    run = launch("bringup", "only:=audio_sink,retarget")
    run.until("/audio_sink is active", "/retarget is active")
    (victim,) = [p for p in run.children() if any("retarget" in part for part in p.cmdline())]
    victim.kill()
    run.until("/retarget has ended")
    assert run.finish(interrupt=False) == 1


def test_keep_going_leaves_the_others_up(launch):
    run = launch("bringup", "source:=recording", "recording:=/no/such.wav", "keep_going:=true", "only:=audio_source")
    run.until("/audio_source could not configure")
    assert run.process.poll() is None
    assert run.finish() == 0


def test_record_leaves_a_readable_bag(launch, tmp_path):
    run = launch("record", f"out:={tmp_path / 'bag'}")
    run.until("/recorder is active")
    assert run.finish() == 0
    assert (tmp_path / "bag" / "metadata.yaml").exists()


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
