"""How a node's process ends: in order, once, quickly, and with a code that tells whether all went well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 in this environment")
pytest.importorskip("timar_ros.msg", reason="the interfaces are not built in this environment")

from timar_ros.ros import node_process

NODE = """
import sys, time
from timar_ros.ros.base import ManagedNode
from timar_ros.ros import node_process
from timar_ros.ros.node_process import run

node_process.REPEAT = 0.5

class Slow(ManagedNode):
    def __init__(self):
        super().__init__("slow")
        self.trigger_configure()
        self.trigger_activate()
        print("up", flush=True)

    def deactivate(self):
        print("easing", flush=True)
        time.sleep({seconds})
        {then}
        print("at rest", flush=True)

sys.exit(run(Slow))
"""


@pytest.fixture
def started(ros_domain: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that the test starts."""
    made: list[subprocess.Popen[str]] = []
    yield made
    for process in made:
        process.kill()
        process.communicate()


def slow(started: list[subprocess.Popen[str]], seconds: float, then: str = "pass") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", NODE.format(seconds=seconds, then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "easing\n"
    return process


def test_a_repeat_soon_after_is_the_same_wish(started: list[subprocess.Popen[str]]) -> None:
    process = slow(started, 0.2)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "at rest\n"
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    assert "Traceback" not in error
    assert "interrupted" not in error
    assert out == ""


def test_a_later_one_interrupts(started: list[subprocess.Popen[str]]) -> None:
    process = slow(started, 60.0)
    time.sleep(0.7)  # what is under test is the length of this pause
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted twice" in error
    assert "at rest" not in out


def test_a_fault_at_the_end_is_told_by_the_exit_code(started: list[subprocess.Popen[str]]) -> None:
    process = slow(started, 0.0, then="raise RuntimeError('lost the bag')")
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "lost the bag" in error


def test_configuring_is_interrupted_in_one_line(started: list[subprocess.Popen[str]]) -> None:
    text = NODE.format(seconds=0, then="pass").replace("def deactivate(self):", "def configure(self):")
    text = text.replace("time.sleep(0)", "time.sleep(60)").replace("self.trigger_configure()", "pass")
    text = text.replace("self.trigger_activate()", "self.create_timer(0.0, self.trigger_configure)")
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert process.stdout.readline() == "easing\n"
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 0
    assert "asked to stop" in error
    assert len(error.splitlines()) == 1, error


def test_what_was_printed_goes_out_and_nothing_is_taken_apart(started: list[subprocess.Popen[str]]) -> None:
    """Taking the interpreter apart takes a second or more once torch is loaded, and may meet DDS threads at work."""
    text = NODE.format(seconds=0, then="pass").replace(
        "sys.exit(run(Slow))",
        "class Kept:\n"
        "    def __del__(self): print('taken apart', flush=True)\n"
        "kept = Kept()\n"
        "code = run(Slow)\n"
        "print('last words')\n"
        "sys.exit(code)",
    )
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0].splitlines()[-1] == "last words"
    assert process.returncode == 0


def test_a_signal_after_the_end_is_not_heard(started: list[subprocess.Popen[str]]) -> None:
    """Launch passes a terminal's Ctrl-C on, on a loaded machine only when the node has ended already."""
    text = NODE.format(seconds=0, then="pass").replace(
        "sys.exit(run(Slow))",
        "code = run(Slow)\n"
        "import os, signal\n"
        "time.sleep(0.7)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('last words')\n"
        "sys.exit(code)",
    )
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert out.splitlines()[-1] == "last words"
    assert "Traceback" not in error


@pytest.mark.parametrize("chosen", ["", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"])
def test_fast_dds_repeats_losses_soon_unless_the_user_chose_a_profile(chosen, monkeypatch):
    for name in node_process.FAST_DDS_PROFILES:
        monkeypatch.setenv(name, "mine.xml" if name == chosen else "")
    node_process.repeat_losses_soon()
    used = os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"]
    if chosen:
        assert [os.environ[name] for name in node_process.FAST_DDS_PROFILES].count("mine.xml") == 1
        assert "one_machine" not in used
        return
    period = ElementTree.parse(used).find(".//{*}data_writer/{*}times/{*}heartbeatPeriod")
    assert period is not None
    assert [int(part.text) for part in period] == [0, 100_000_000]
