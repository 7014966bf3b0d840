"""Start every installed node's executable, find it in the ROS graph, stop it by SIGINT and expect exit code 0.

Usage: ``check_executables.py PREFIX [NAME ...]``; PREFIX contains lib/timar_ros: an environment, or colcon's install.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 20.0


def main() -> int:
    prefix, *names = sys.argv[1:]
    folders = [f for f in (Path(prefix, "lib/timar_ros"), Path(prefix, "timar_ros/lib/timar_ros")) if f.is_dir()]
    if not folders:
        print(f"no executables: {prefix} has no lib/timar_ros", file=sys.stderr)
        return 2
    nodes = [
        path for path in sorted(folders[0].iterdir()) if path.name != "timar" and (not names or path.name in names)
    ]
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

    import rclpy

    rclpy.init()
    watcher = rclpy.create_node("check_executables")
    running = {path.name: subprocess.Popen([path], stderr=subprocess.PIPE, text=True) for path in nodes}
    failed: list[str] = []
    try:
        waiting, until = set(running), time.monotonic() + START_SECONDS
        while waiting and time.monotonic() < until:
            rclpy.spin_once(watcher, timeout_sec=0.1)
            names_in_graph = set(watcher.get_node_names())
            waiting = {name for name in waiting if name not in names_in_graph and running[name].poll() is None}
    finally:
        for process in running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
    for name, process in running.items():
        try:
            error = process.communicate(timeout=STOP_SECONDS)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            error = process.communicate()[1] + f"did not end within {STOP_SECONDS:g} s of SIGINT"
        good = process.returncode == 0 and name not in waiting
        print(
            f"{name}: {'started, stopped, exit 0' if good else f'FAILED, exit {process.returncode}: {error[-2000:]}'}"
        )
        if not good:
            failed.append(name)
    watcher.destroy_node()
    rclpy.shutdown()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
