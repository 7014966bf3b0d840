#!/usr/bin/env python3
"""Measure node `retarget`'s share of a core at its output rate, with the sample conversation's motion.

    . .venv/setup.bash && python scripts/measure_retarget_node.py [--robot timar_head] [--seconds 30] [--rate 100]

The CPU time is the time of the node's process alone, from /proc, after a settling time, so a busy machine does not
change it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState

from timar_ros.data.motion_files import read_motion
from timar_ros.msg import FlameMotion
from timar_ros.resources import share
from timar_ros.ros import qos
from timar_ros.ros.messages import motion_message


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="timar_head")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=100.0)
    args = parser.parse_args()
    frames = read_motion(share("samples", "conversation_agent.npz"))
    rclpy.init()
    node = rclpy.create_node("measure")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    received: list[int] = []
    node.create_subscription(JointState, "joint_commands", lambda _: received.append(1), qos.commands())
    publisher = node.create_publisher(FlameMotion, "agent/motion", qos.motion())
    command = [sys.executable, "-m", "timar_ros.nodes.retarget", "--ros-args", "-p", f"robot:={args.robot}"]
    process = subprocess.Popen([*command, "-p", f"rate:={args.rate}", "--log-level", "warn"])
    try:
        client = node.create_client(ChangeState, "retarget/change_state")
        client.wait_for_service(60.0)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
            executor.spin_until_future_complete(future, 60.0)
        started, before, count, turn = 0.0, 0.0, 0, 0
        start = time.time_ns()
        while time.time_ns() < start + (args.seconds + 5) * 1e9:
            if time.time_ns() > start + turn * 10**9:
                part = np.take(frames, np.arange(25 * turn, 25 * turn + 25), axis=0, mode="wrap")
                publisher.publish(motion_message(start + turn * 10**9 + 400_000_000, 25.0, part))
                turn += 1
                if turn == 5:
                    started, before, count = time.monotonic(), cpu_seconds(process.pid), len(received)
            executor.spin_once(timeout_sec=0.02)
        passed = time.monotonic() - started
        share_of_core = (cpu_seconds(process.pid) - before) / passed
        print(
            f"{args.robot}: {100 * share_of_core:.2f} % of a core over {passed:.0f} s, "
            f"{(len(received) - count) / passed:.1f} joint states a second"
        )
    finally:
        process.terminate()
        process.wait(30)
        rclpy.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
