"""The graph on two hosts with a poor link and a cut of three seconds; prints figures, exits 1 if one is bad.

    python test/system/two_hosts.py [--delay 0.02] [--loss 0.01] [--split turns|audio] [--profile XML] [--model MODEL]

Host 0, the robot, plays the sample conversation, retargets and simulates the head; host 1 runs the model, and with
`--split audio` cuts the turns, too. They see each other by static peers only. Needs root (network namespaces).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from link import TwoHosts, reason
from output import Output

REPOSITORY = Path(__file__).parent.parent.parent
PROFILE = REPOSITORY / "config" / "dds" / "fastdds.xml"
CUT_AT, CUT_SECONDS = 14.0, 3.0
AWAY = {"turns": "timar_inference", "audio": "timar_inference,turn_segmenter"}
"""Nodes on host 1, by what crosses the network."""
NEUTRAL = 0.03
"""As close to neutral as an eased head must come [rad]."""
EASED = 1_800_000_000
"""So long after the last frame the head is there [ns]: `timeout` and `ease`, and 0.1 s."""
RESUMED = 2.5
"""So long after the link motion must come again [s]: a turn, its answer, and what was missed in between."""


@dataclass
class Run:
    """What happened, besides the bag."""

    bag: Path
    cut_ns: int = 0
    mended_ns: int = 0
    seconds: float = 0.0
    carried: list[int] = field(default_factory=list)
    destinations: dict[str, int] = field(default_factory=dict)
    died: list[int] = field(default_factory=list)


def start(hosts: TwoHosts, host: int, folder: Path, profile: str, *arguments: str) -> subprocess.Popen[str]:
    """`timar up` on a host."""
    env = {
        **os.environ,
        "ROS_DOMAIN_ID": "7",
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_STATIC_PEERS": hosts.addresses[1 - host],
    }
    if profile != "none":
        env["FASTRTPS_DEFAULT_PROFILES_FILE"] = profile
    command = [sys.executable, "-m", "timar_ros.cli.main", "up", "--logs", str(folder / f"logs{host}"), *arguments]
    return subprocess.Popen(
        hosts.command(host, command), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def recording(folder: Path, seconds: float) -> list[str]:
    """Arguments that play the sample conversation, again and again."""
    import soundfile

    from timar_ros.data.motion_files import read_motion, write_motion

    sound, rate = soundfile.read(REPOSITORY / "samples" / "conversation.flac")
    motion = read_motion(REPOSITORY / "samples" / "conversation_user.npz")
    times = int(np.ceil(seconds * rate / len(sound)))
    soundfile.write(folder / "conversation.wav", np.tile(sound, (times, 1)), rate)
    write_motion(folder / "user.npz", np.tile(motion, (times, 1)))
    return ["--recording", str(folder / "conversation.wav"), "--user-motion", str(folder / "user.npz")]


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0.02, help="of the link, one way [s]")
    parser.add_argument("--loss", type=float, default=0.01, help="share of packets lost, each way")
    parser.add_argument("--split", choices=tuple(AWAY), default="turns", help="what crosses the network")
    parser.add_argument("--profile", default=str(PROFILE), help="Fast DDS profiles for both hosts, or 'none'")
    parser.add_argument("--model", default="", help="model for host 1; empty: the one that ships")
    parser.add_argument("--seconds", type=float, default=32.0, help="how long after the start")
    parser.add_argument("--folder", help="where bag and logs go")
    args = parser.parse_args()
    if why := reason():
        print(f"skipped: {why}")
        return 0
    return judge(converse(args, Path(args.folder or tempfile.mkdtemp())))


def converse(args: argparse.Namespace, folder: Path) -> Run:
    """One conversation."""
    folder.mkdir(parents=True, exist_ok=True)
    away = AWAY[args.split]
    played = recording(folder, args.seconds + 10.0)
    run = Run(folder / "bag")
    hosts = TwoHosts(args.delay, args.loss)
    processes: list[subprocess.Popen[str]] = []
    try:
        common = (hosts, folder, args.profile)
        for host, more in (
            (1, ["--only", away, "--model", args.model]),
            (0, ["--without", away, "--source", "recording", "--sim", "builtin", "--record", str(run.bag), *played]),
        ):
            processes.append(start(hosts, host, *common[1:], *more))
        for output in [Output(process) for process in processes]:
            output.wait()
        begun, before = time.time_ns(), list(hosts.bytes)
        time.sleep(CUT_AT)
        run.carried, run.seconds = [b - a for a, b in zip(before, hosts.bytes, strict=True)], CUT_AT
        hosts.cut()
        run.cut_ns = time.time_ns()
        time.sleep(CUT_SECONDS)
        hosts.mend()
        run.mended_ns = time.time_ns()
        time.sleep(max(0.0, args.seconds - (time.time_ns() - begun) * 1e-9))
        run.died = [i for i, process in enumerate(processes) if process.poll() is not None]
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait(timeout=60)
        run.destinations = dict(hosts.destinations)
        hosts.close()
    return run


def judge(run: Run) -> int:
    """Print what happened; 1 if it was not as promised."""
    from timar_ros.bags.bag_files import BagReader

    heard: dict[int, int] = {}
    ends: dict[int, int] = {}
    firsts: dict[int, int] = {}
    joints: list[tuple[int, np.ndarray]] = []
    lost = 0
    with BagReader(run.bag) as reader:
        for topic, arrived, data in reader.messages(("/agent/motion", "/joint_states", "/turns")):
            if topic == "/joint_states":
                joints.append((arrived, np.asarray(data.position)))
                continue
            first = data.header.stamp.sec * 1_000_000_000 + data.header.stamp.nanosec
            if topic == "/turns":
                ends[data.number] = first + 1_000_000_000
                lost += data.lost_user_samples + data.lost_agent_samples
            else:
                heard[data.turn] = arrived
                firsts[data.turn] = first
    received = sorted(heard.values())
    gaps = np.diff(received) * 1e-9
    times = np.array([t for t, _ in joints])
    positions = np.array([p for _, p in joints])
    # Until when there is something to show, as known at each time: what came late shows less.
    shown = [(heard[turn], first + 1_000_000_000) for turn, first in firsts.items()]
    known = np.array([max((end for arrived, end in shown if arrived <= t), default=0) for t in times])
    quiet = (times > run.cut_ns) & (times > known + EASED)
    resumed = min((max(first, heard[turn]) for turn, first in firsts.items() if heard[turn] > run.mended_ns), default=0)
    after = times > resumed + 500_000_000 if resumed else np.zeros(len(times), bool)
    away = float(np.abs(positions[quiet]).max()) if quiet.any() else float("nan")
    moving = float(positions[after].std(axis=0).max()) if after.any() else 0.0
    waits = np.array(
        [(t - ends[n]) * 1e-6 for n, t in heard.items() if n in ends and (t < run.cut_ns or t > run.mended_ns + 4e9)]
    )
    unanswered = sorted(set(range(min(heard), max(heard) + 1)) - set(heard))
    late = (min((t for t in received if t > run.mended_ns), default=0) - run.mended_ns) * 1e-9
    foreign = {to: count for to, count in run.destinations.items() if to not in ("10.77.0.1", "10.77.0.2", "arp")}
    there, back = (count / run.seconds / 1e3 for count in run.carried)
    print(f"carried: to the model {there:.0f} kB/s, back {back:.0f} kB/s; packets to {run.destinations}")
    print(
        f"motion received {np.percentile(waits, 50):.0f} ms (p50), {np.percentile(waits, 95):.0f} ms (p95) after the "
        f"turn's end, the cut and 4 s after it left out; samples lost: {lost}; turns without motion: {unanswered}"
    )
    checks = {
        f"no process died ({len(run.died)} did)": not run.died,
        f"discovery and data for the two hosts only (others: {foreign or 'none'})": not foreign,
        f"turns were answered before the cut ({sum(t < run.cut_ns for t in received)})": received[0] < run.cut_ns,
        f"longest gap between answers {gaps.max():.1f} s": gaps.max() >= CUT_SECONDS - 1.0,
        f"answers resumed {late:.1f} s after the link (bar {RESUMED:g})": 0.0 < late < RESUMED,
        f"head at most {away:.3f} rad from neutral in {quiet.sum() / 100:.1f} s, once motion had run out": away
        < NEUTRAL,
        f"head moves again (sd {moving:.3f} rad)": moving > 0.005,
    }
    for what, good in checks.items():
        print(f"{'ok  ' if good else 'BAD '} {what}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
