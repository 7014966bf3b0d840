"""Run every launch file under the real `ros2 launch`, with every `sim:=`, and print a table; exits 1 when one fails.

    python test/system/real_tools.py [--seconds 8] [--only demo replay …] [--model random-mini]

Needs ROS 2's own tools: an installation has them, `scripts/get_ros_tools.py` puts them in place elsewhere. Takes four
minutes. Each launch must start its nodes, bring all of them to the state active, and end on Ctrl-C with exit code 0:
no traceback, no node that launch had to end by SIGTERM, no process left. A simulator whose packages are not installed
is evaluated to its processes, and the table names the packages.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from support.launched import Launched  # noqa: E402

from timar_ros.bags.bag_files import BagReader, BagWriter  # noqa: E402
from timar_ros.bags.bag_foreign import Inputs  # noqa: E402
from timar_ros.bags.replay import turns_of_events, turns_of_topic  # noqa: E402
from timar_ros.errors import UserError  # noqa: E402
from timar_ros.graph.domain import free_domain  # noqa: E402
from timar_ros.motion import MODEL_RATE  # noqa: E402
from timar_ros.resources import share  # noqa: E402
from timar_ros.streaming.codec import to_ns  # noqa: E402
from timar_ros.streaming.sampling_options import PipelineOptions  # noqa: E402

LAUNCH_FILES = ("bringup", "demo", "record", "replay", "simulation")
CONVERSATION = ("audio_sink", "retarget", "timar_inference", "turn_segmenter")
ESCALATION = 5.0
"""Seconds after which launch sends SIGTERM to a node that has not ended."""
RECORDED = 8.0
"""Length of the bag that is begun in the middle of a conversation [s]."""


@dataclass
class Row:
    """One run of a launch file."""

    what: str
    nodes: str = ""
    up: float | None = None
    end: float | None = None
    code: int | None = None
    notes: list[str] = field(default_factory=list)
    good: bool = True

    def fail(self, reason: str) -> None:
        """Mark the run as failed."""
        self.good = False
        self.notes.append(reason)

    def __str__(self) -> str:
        figures = ["" if value is None else f"{value:.1f}" for value in (self.up, self.end)]
        code = "" if self.code is None else str(self.code)
        cells = ["ok" if self.good else "BAD", self.what, self.nodes, *figures, code, "; ".join(self.notes)]
        return f"| {' | '.join(cells)} |"


class NotUpError(Exception):
    """A launch did not come up; its row says why."""


class Runner:
    """Starts launch files and keeps a row for each."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self.rows: list[Row] = []
        self.common = [f"model:={model}", "device:=cpu"] if model else ["device:=cpu"]

    @contextlib.contextmanager
    def run(self, name: str, *arguments: str, nodes: tuple[str, ...], of: str = "") -> Iterator[Launched]:
        """A launch whose nodes are all active; it is ended by Ctrl-C after the block.

        :param of: what it works on, for the table.
        :raises NotUpError: when it does not come up, so that nothing can be done with it.
        """
        words = [name, *([f"of bag `{of}`"] if of else []), *(a for a in arguments if "/" not in a)]
        row = Row(" ".join(words), str(len(nodes)))
        self.rows.append(row)
        given = arguments if name == "record" else (*arguments, *self.common)
        begun = time.monotonic()
        launched = Launched(["ros2", "launch", "timar_ros", f"{name}.launch.py", *given])
        try:
            try:
                launched.until(*(f"/{node} is active" for node in nodes))
            except AssertionError as error:
                raise NotUpError(str(error)) from error
            row.up = time.monotonic() - begun
            yield launched
            begun = time.monotonic()
            row.code = launched.finish()
            row.end = time.monotonic() - begun
            if row.code:
                row.fail(f"exit code {row.code}")
            if row.end > ESCALATION:
                row.notes.append("slower than launch waits before SIGTERM")
            for line in launched.faults():
                row.fail(line)
            started = sum("process started with pid" in line for line in launched.lines)
            if started != len(nodes):
                row.fail(f"{started} processes were started")
        except NotUpError as error:
            row.fail("what runs beside it did not come up" if row.up else str(error).replace("\n", " ")[-1500:])
            raise
        except (AssertionError, subprocess.TimeoutExpired, UserError) as error:
            row.fail(str(error).replace("\n", " ")[-1500:])
        finally:
            launched.kill()
            print(row, flush=True)

    def check(self, what: str, judge: Callable[[Row], None]) -> None:
        """A further row."""
        row = Row(what)
        try:
            judge(row)
        except (AssertionError, UserError, OSError) as error:
            row.fail(str(error))
        self.rows.append(row)
        print(row, flush=True)


def show_arguments(row: Row) -> None:
    """`ros2 launch --show-args` works for each file."""
    for name in LAUNCH_FILES:
        command = ["ros2", "launch", "timar_ros", f"{name}.launch.py", "--show-args"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or "Arguments (pass arguments as" not in done.stdout:
            row.fail(f"{name}: {(done.stdout + done.stderr)[-300:]}")
    row.notes.append(f"{len(LAUNCH_FILES)} files")


def holds(bag: Path, *, from_the_start: bool) -> Callable[[Row], None]:
    """Whether a bag is whole and has turns, and an answer for each but the newest."""

    def judge(row: Row) -> None:
        with BagReader(bag) as reader:
            assert reader.salvaged is None, f"cut off: {reader.salvaged}"
            counts = dict.fromkeys(("/turns", "/agent/motion", "/agent/audio_out"), 0)
            first = None
            for topic, _, message in reader.messages((*counts, "/agent/audio")):
                if topic == "/agent/audio":
                    first = message.sample_index if first is None else first
                else:
                    counts[topic] += 1
        row.notes.append(", ".join(f"{count} {topic}" for topic, count in counts.items()))
        row.notes.append(f"first sample {first}")
        assert all(counts.values()), "a topic has no messages"
        assert (first == 0) == from_the_start, "the recording began at another time than the test meant"

    return judge


LOST = ((1.2, 1.6), (2.7, 3.0), (4.0, 5.3), (7.3, math.inf))
"""Seconds of the user's motion that are taken from a bag: in a turn, at a turn's end, a whole turn, up to the end."""


def lossy(whole: Path, out: Path) -> None:
    """Both speakers' sound and the user's motion of a bag, without the motion of :data:`LOST`."""
    topics = ("/user/audio", "/agent/audio", "/user/motion")
    origin = None
    with BagReader(whole) as reader, BagWriter(out) as writer:
        for topic in topics:
            writer.add_topic(topic, reader.topics[topic].msgtype)
        for topic, arrived, message in reader.messages(topics):
            stamp = to_ns(message.header.stamp)
            origin = stamp if origin is None else origin
            second = (stamp - origin) / 1e9
            if topic != "/user/motion" or not any(begin <= second < end for begin, end in LOST):
                writer.write(topic, arrived, message)


def same_turns(bag: Path, replayed: Path) -> Callable[[Row], None]:
    """Whether the nodes cut the turns of a bag as `timar replay` does."""

    def judge(row: Row) -> None:
        with BagReader(bag) as reader, BagReader(replayed) as recorded:
            wanted = [turn for _, turn in turns_of_events(Inputs(reader).events(), 1.0, PipelineOptions())]
            made = [turn for _, turn in turns_of_topic(recorded, "/turns", MODEL_RATE)]
        assert len(made) == len(wanted), f"{len(made)} turns instead of {len(wanted)}"
        for one, other in zip(made, wanted, strict=True):
            for name in ("user_speech", "agent_speech", "user_motion"):
                got, expected = getattr(one, name), getattr(other, name)
                assert (got is None) == (expected is None), f"turn {one.number}: {name}"
                assert got is None or np.array_equal(got, expected, equal_nan=True), f"turn {one.number}: {name}"
        tracked = [0 if t.user_motion is None else int(np.isfinite(t.user_motion).all(axis=1).sum()) for t in made]
        row.notes.append(f"{len(made)} turns, tracked frames of each: {tracked}")

    return judge


def evaluated(sim: str, *arguments: str) -> tuple[set[tuple[str, str]], list[str]]:
    """(package, executable) of each process that simulation.launch.py would start, and the packages that lack."""
    script = TESTS / "support" / "standins" / "evaluate_launch.py"
    file = str(share("launch", "simulation.launch.py"))
    done = subprocess.run(
        [sys.executable, str(script), file, f"sim:={sim}", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1500:]
    entries = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    nodes = {(e["package"], e["executable"]) for e in entries if e["kind"] in ("Node", "LifecycleNode")}
    packages = {package for package, _ in nodes}
    if any(entry["kind"] == "IncludeLaunchDescription" for entry in entries):
        packages |= {"ros_gz_sim", "gz_ros2_control"}
    if sim in ("mock", "gazebo"):
        packages |= {"xacro", "joint_trajectory_controller", "joint_state_broadcaster"}
    return nodes, sorted(package for package in packages if not installed(package))


def installed(package: str) -> bool:
    """Whether a ROS package is installed."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return any(
        Path(prefix, "share", "ament_index", "resource_index", "packages", package).exists() for prefix in prefixes
    )


def simulators(runner: Runner, recording: str) -> None:
    """`simulation.launch.py` with every simulator."""
    for sim in ("none", "builtin"):
        own = ("head_simulator",) if sim == "builtin" else ()
        speed = "speed:=0" if sim == "builtin" else "speed:=4"
        nodes = (*CONVERSATION, "audio_source", *own)
        with (
            contextlib.suppress(NotUpError),
            runner.run("simulation", f"sim:={sim}", recording, speed, nodes=nodes) as run,
        ):
            run.until("finished: ")
    for sim in ("mock", "gazebo"):

        def judge(row: Row, sim: str = sim) -> None:
            nodes, lacking = evaluated(sim, "rviz:=true")
            row.nodes = str(len(nodes))
            row.notes.append(", ".join(sorted(executable for _, executable in nodes)))
            if lacking:
                row.notes.append(f"NOT RUN: not installed here: {', '.join(lacking)}")

        runner.check(f"simulation sim:={sim} rviz:=true, evaluated", judge)
        if not evaluated(sim)[1]:
            nodes = (*CONVERSATION, "audio_source")
            with (
                contextlib.suppress(NotUpError),
                runner.run("simulation", f"sim:={sim}", "gui:=false", nodes=nodes) as run,
            ):
                run.until("finished: ")


def refused(sim: str) -> Callable[[Row], None]:
    """Another robot than the one that the simulator loads must not be taken silently."""

    def judge(row: Row) -> None:
        command = ["ros2", "launch", "timar_ros", "simulation.launch.py", f"sim:={sim}", "robot:=tiago"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        row.code = done.returncode
        assert done.returncode != 0, "tiago was accepted"
        said = [line for line in (done.stdout + done.stderr).splitlines() if "tiago" in line]
        assert said, "the reason is not told"
        row.notes.append(said[-1][-160:])

    return judge


def recordings(runner: Runner, recording: str, whole: Path, part: Path) -> None:
    """A bag of a whole conversation, and one begun in the middle of a conversation."""
    player = (*CONVERSATION, "audio_source")
    with contextlib.suppress(NotUpError):
        with (
            runner.run("record", f"out:={whole}", "storage:=mcap", nodes=("recorder",)),
            runner.run("demo", recording, nodes=(*player, "head_simulator")) as run,
        ):
            run.until("finished: ")
            time.sleep(3.0)  # what is delayed still comes out
        runner.check("record storage:=mcap: the bag", holds(whole, from_the_start=True))
    with contextlib.suppress(NotUpError):
        # The whole sample: however long the recorder takes to start, the conversation still goes on.
        sample = f"recording:={share('samples', 'conversation.flac')}"
        with runner.run("bringup", "source:=recording", sample, nodes=player):
            time.sleep(2.5)  # the conversation is under way
            with runner.run("record", f"out:={part}", "storage:=sqlite3", nodes=("recorder",)):
                time.sleep(RECORDED)
        runner.check("record storage:=sqlite3, begun mid-conversation: the bag", holds(part, from_the_start=False))


def everything(runner: Runner, sample: Path, only: list[str]) -> None:
    """All runs, in an order in which each leaves what a later one reads."""
    recording, folder = f"recording:={sample}", runner.folder
    whole, part = folder / "whole", folder / "part"
    runner.check("--show-args", show_arguments)
    if "demo" in only or "replay" in only:
        recordings(runner, recording, whole, part)
    if "replay" in only:
        for bag in (whole, part):
            with (
                contextlib.suppress(NotUpError),
                runner.run(
                    "replay", f"bag:={bag}", "speed:=0", nodes=(*CONVERSATION, "bag_player"), of=bag.name
                ) as run,
            ):
                run.until("finished: ", patience=60.0)
        lost, replayed = folder / "lossy", folder / "replayed"
        runner.check("bag `lossy`: `whole` with gaps in its motion", lambda row: lossy(whole, lost))
        nodes = (*CONVERSATION, "bag_player", "recorder")
        arguments = (f"bag:={lost}", f"record:={replayed}", "speed:=0")
        with contextlib.suppress(NotUpError), runner.run("replay", *arguments, nodes=nodes, of=lost.name) as run:
            run.until("finished: ", patience=20.0)  # one turn that nobody answers takes 60 s
            time.sleep(3.0)
        runner.check("replay of bag `lossy`: the turns of `timar replay`", same_turns(lost, replayed))
    if "bringup" in only:
        for mode in ("rolling", "anticipatory"):
            arguments = ("source:=recording", recording, f"mode:={mode}")
            with (
                contextlib.suppress(NotUpError),
                runner.run("bringup", *arguments, nodes=(*CONVERSATION, "audio_source")) as run,
            ):
                run.until("finished: ")
    if "simulation" in only:
        simulators(runner, recording)
        for sim in ("mock", "gazebo"):
            runner.check(f"simulation sim:={sim} robot:=tiago is refused", refused(sim))


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the part of the sample conversation")
    parser.add_argument("--model", default="", help="model; empty: the one that ships")
    parser.add_argument("--only", nargs="+", default=["demo", "replay", "bringup", "simulation"], help="parts to run")
    args = parser.parse_args()
    if shutil.which("ros2") is None:
        print("skipped: no `ros2` here; scripts/get_ros_tools.py puts ROS 2's own tools in place", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="timar_real_tools_"))
    sound, rate = soundfile.read(share("samples", "conversation.flac"))
    soundfile.write(folder / "part.wav", sound[: round(args.seconds * rate)], rate)
    runner = Runner(folder, args.model)
    print("| | launch file | nodes | all active after [s] | end after Ctrl-C [s] | exit code | notes |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with free_domain() as domain:
        os.environ |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        everything(runner, folder / "part.wav", args.only)
    bad = [row for row in runner.rows if not row.good]
    print(f"{len(runner.rows)} rows, {len(bad)} bad" + (f"; what they wrote is in {folder}" if bad else ""))
    if not bad:
        shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
