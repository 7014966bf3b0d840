"""The graph on two hosts with a poor link and a cut of three seconds; prints figures, exits 1 if one is bad.

    python test/system/two_hosts.py [--delay 0.02] [--loss 0.01] [--model MODEL]

Host 0, the robot, plays the sample conversation, cuts turns, retargets and simulates the head; host 1 runs the model.
They see each other by static peers only. Needs root (network namespaces).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from link import TwoHosts, reason

CUT_AT, CUT_SECONDS = 14.0, 3.0
NEUTRAL = 0.03
"""As close to neutral as an eased head must come [rad]."""


def start(hosts: TwoHosts, host: int, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`timar up` on a host."""
    env = {
        **os.environ,
        "ROS_DOMAIN_ID": "7",
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_STATIC_PEERS": hosts.addresses[1 - host],
    }
    command = [sys.executable, "-m", "timar_ros.cli.main", "up", "--logs", str(folder / f"logs{host}"), *arguments]
    return subprocess.Popen(
        hosts.command(host, command), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(process: subprocess.Popen[str], words: str, log: list[str]) -> None:
    """Read a process's output until a line has the words."""
    assert process.stdout is not None
    for line in process.stdout:
        log.append(line)
        if words in line:
            return
    raise SystemExit(f"a host ended early:\n{''.join(log[-30:])}")


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0.02, help="of the link, one way [s]")
    parser.add_argument("--loss", type=float, default=0.01, help="share of packets lost, each way")
    parser.add_argument("--model", default="", help="model for host 1; empty: the one that ships")
    parser.add_argument("--seconds", type=float, default=32.0, help="how long after the start")
    parser.add_argument("--folder", help="where bag and logs go")
    args = parser.parse_args()
    if why := reason():
        print(f"skipped: {why}")
        return 0
    samples = Path(__file__).parent.parent.parent / "samples"
    folder = Path(args.folder or tempfile.mkdtemp())
    hosts = TwoHosts(args.delay, args.loss)
    processes: list[subprocess.Popen[str]] = []
    log: list[str] = []
    try:
        gpu = start(hosts, 1, folder, "--only", "timar_inference", "--model", args.model)
        robot = start(
            hosts, 0, folder, "--without", "timar_inference", "--source", "recording", "--sim", "builtin",
            "--recording", str(samples / "conversation.flac"), "--user-motion", str(samples / "conversation_user.npz"),
            "--record", str(folder / "bag"),
        )  # fmt: skip
        processes = [robot, gpu]
        wait_for(gpu, "nodes are up", log)
        wait_for(robot, "nodes are up", log)
        begun, before = time.time_ns(), list(hosts.bytes)
        time.sleep(CUT_AT)
        carried, seconds = [b - a for a, b in zip(before, hosts.bytes, strict=True)], CUT_AT
        hosts.cut()
        cut_ns = time.time_ns()
        time.sleep(CUT_SECONDS)
        hosts.mend()
        mended_ns = time.time_ns()
        time.sleep(max(0.0, args.seconds - (time.time_ns() - begun) * 1e-9))
        died = [i for i, process in enumerate(processes) if process.poll() is not None]
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in processes:
            process.communicate(timeout=60)
        hosts.close()
    return judge(folder / "bag", cut_ns, mended_ns, carried, seconds, died)


def judge(bag: Path, cut_ns: int, mended_ns: int, carried: list[int], seconds: float, died: list[int]) -> int:
    """Print what happened; 1 if it was not as promised."""
    from timar_ros.data.bags import BagReader

    received: list[int] = []
    spans: list[tuple[int, int]] = []
    joints: list[tuple[int, np.ndarray]] = []
    with BagReader(bag) as reader:
        for topic, arrived, data in reader.messages(("/agent/motion", "/joint_states")):
            if topic == "/agent/motion":
                received.append(arrived)
                first = data.header.stamp.sec * 1_000_000_000 + data.header.stamp.nanosec
                spans.append((first, first + 1_000_000_000))
            else:
                joints.append((arrived, np.asarray(data.position)))
    gaps = np.diff(received) * 1e-9
    times = np.array([t for t, _ in joints])
    positions = np.array([p for _, p in joints])
    covered = max(end for first, end in spans if first < cut_ns)
    resumed = min((first for first, _ in spans if first > mended_ns), default=0)
    quiet = (times > covered + 1_500_000_000) & (times < (resumed or times[-1]))
    after = times > resumed + 500_000_000 if resumed else np.zeros(len(times), bool)
    away = float(np.abs(positions[quiet]).max()) if quiet.any() else float("nan")
    moving = float(positions[after].std(axis=0).max()) if after.any() else 0.0
    answered = sum(t < cut_ns for t in received)
    late = (min((t for t in received if t > mended_ns), default=0) - mended_ns) * 1e-9
    checks = {
        f"no process died ({len(died)} did)": not died,
        f"turns were answered before the cut ({answered})": answered > 8,
        f"longest gap between answers {gaps.max():.1f} s": gaps.max() >= CUT_SECONDS - 1.0,
        f"answers resumed {late:.1f} s after the link": bool(resumed),
        f"head at most {away:.3f} rad from neutral once motion had run out": away < NEUTRAL,
        f"head moves again (sd {moving:.3f} rad)": moving > 0.005,
    }
    print(f"carried: to the model {carried[0] / seconds / 1e3:.0f} kB/s, back {carried[1] / seconds / 1e3:.0f} kB/s")
    for what, good in checks.items():
        print(f"{'ok  ' if good else 'BAD '} {what}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
