"""replay.launch.py on a bag at several paces: the motion must be what the bag's own run made; exits 1 if it is not.

    python test/system/replay_launch.py [--rates 0.5 1 4 0] [--seconds 12] [--model MODEL]

Needs `launch` and `launch_ros`, that is, a ROS installation (the wheels have none).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from timar_ros.bags.bag_files import BagReader
from timar_ros.bags.bag_messages import frames_of
from timar_ros.graph.domain import free_domain
from timar_ros.resources import share

RUN = (
    "import sys; from launch import LaunchService; from launch.actions import IncludeLaunchDescription as Include;"
    "from launch.launch_description_sources import PythonLaunchDescriptionSource as Source;"
    "service = LaunchService();"
    "service.include_launch_description(Include(Source(sys.argv[1]),"
    " launch_arguments=[a.split(':=', 1) for a in sys.argv[2:]]));"
    "sys.exit(service.run())"
)


def motion_of(bag: Path) -> dict[int, np.ndarray]:
    """Each turn's frames ``[F, 56]``."""
    with BagReader(bag) as reader:
        return {int(m.turn): frames_of(m) for _, _, m in reader.messages(("/agent/motion",))}


def replay(bag: Path, out: Path, rate: float, model: str) -> tuple[float, int]:
    """Play a bag through the nodes; how long it took from the first chunk to the end [s], and the exit code."""
    arguments = [f"bag:={bag}", f"speed:={rate:g}", f"record:={out}", "device:=cpu", "sim:=builtin"]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(share("launch", "replay.launch.py")), *arguments]
        + ([f"model:={model}"] if model else []),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    lines, begun, ended = [], 0.0, 0.0
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "/bag_player is active" in line:
            begun = time.monotonic()
        if "finished: " in line:
            ended = time.monotonic()
            time.sleep(3.0)  # what is delayed still comes out
            os.killpg(process.pid, signal.SIGINT)
    code = process.wait()
    if not ended:
        with contextlib.suppress(ProcessLookupError):  # what the launch left behind
            os.killpg(process.pid, signal.SIGKILL)
        raise SystemExit("the launch ended early:\n" + "".join(lines[-30:]))
    for line in lines:
        if "WARN" in line or "ERROR" in line or "Traceback" in line:
            print(f"    {line.rstrip()}")
    return ended - begun, code


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 1.0, 4.0, 0.0])
    parser.add_argument("--seconds", type=float, default=12.0, help="of the sample conversation")
    parser.add_argument("--model", default="", help="model; empty: the one that ships")
    args = parser.parse_args()
    try:
        import launch_ros.actions  # noqa: F401
    except ImportError:
        print("skipped: launch and launch_ros are not installed")
        return 0
    folder = Path(tempfile.mkdtemp())
    sound, rate = soundfile.read(share("samples", "conversation.flac"))
    soundfile.write(folder / "part.wav", sound[: round(args.seconds * rate)], rate)
    demo = [
        sys.executable, "-m", "timar_ros.cli.main", "demo", "--recording", str(folder / "part.wav"), "--speed", "0",
        "--no-report", "--out", str(folder / "demo"),
    ]  # fmt: skip
    good = True
    with free_domain() as domain:
        os.environ |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        subprocess.run(demo + (["--model", args.model] if args.model else []), check=True, stdout=subprocess.DEVNULL)
        wanted = motion_of(folder / "demo" / "bag")
        for pace in args.rates:
            took, code = replay(folder / "demo" / "bag", folder / f"at{pace:g}", pace, args.model)
            made = motion_of(folder / f"at{pace:g}")
            same = sorted(made) == sorted(wanted) and all(np.array_equal(made[k], wanted[k]) for k in wanted)
            fine = same and code == 0
            good &= fine
            print(
                f"{'ok  ' if fine else 'BAD '} speed {pace:g}: {args.seconds:g} s in {took:.1f} s, "
                f"{len(made)} of {len(wanted)} turns, motion {'identical' if same else 'DIFFERS'}, exit {code}",
                flush=True,
            )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
