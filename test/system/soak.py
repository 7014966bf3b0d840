"""Hours of conversation: does memory grow, do stamps drift, do limits hold? Exits 1 if a figure is bad.

    python test/system/soak.py --hours 1               # the running graph, in real time
    python test/system/soak.py --simulated-hours 8     # turn builder, model and retargeting alone, as fast as they can

Live: real nodes over DDS with the simulated head; both people speak from the sample conversation. The growth of memory
is counted from the fourth minute on. Each trajectory is checked with its limits of position, velocity,
acceleration and jerk. A turn without motion is dropped; motion that comes after the time of its first frame is late,
which is told, but depends on what else the machine does.

Simulated: the same conversation in chunks of 100 ms with jitter, changing loudness and a tracker that comes and goes,
from a stamp of today on. A pipeline that resumes from the saved state must give the same bytes. Ctrl-C ends this part
early, with a verdict on what was done.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from support.limit_checker import LimitChecker
from talking_graph import ROBOT, TalkingGraph, running

from timar_ros.data.audio_files import load_conversation
from timar_ros.model import Timar
from timar_ros.motion import MODEL_RATE, MOTION_RATE, MOTION_SIZE
from timar_ros.msg import Turn
from timar_ros.retarget import JointMotion, Retargeter, load_profile
from timar_ros.retarget.robot_check import TOLERANCE, violations
from timar_ros.ros import messages, qos
from timar_ros.streaming.offline import resolve_model
from timar_ros.streaming.pipeline import Pipeline
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.turns.turn_builder import Role, TurnBuilder
from timar_ros.streaming.turns.turn_types import TurnInput

SAMPLE = Path(__file__).parent.parent.parent / "samples" / "conversation.flac"
NS = 1_000_000_000
MOST_GROWTH = 10.0
"""By how much a process may grow in all [MB]."""
MOST_DRIFT = 0.005
"""How far the turns' stamps may move against their numbers [s]."""
MOST_DROPPED = 0.001
"""Share of turns that may be dropped."""
MINUTE, SETTLED = 60.0, 3
CHUNK = 0.1
"""Length of the chunks of simulated audio [s]."""
PLANS = 10
"""A trajectory is planned once in so many simulated turns."""


class Table:
    """A table of figures, a row for each stretch of time; printed as it grows."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.rows: list[dict[str, float]] = []

    def add(self, **figures: float) -> None:
        """Print a row."""
        if not self.rows:
            names = (self.unit, *figures)
            print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)
        self.rows.append(figures)
        cells = (str(len(self.rows)), *(f"{value:.4g}" for value in figures.values()))
        print(f"| {' | '.join(cells)} |", flush=True)

    def growth(self, name: str, first: int) -> float:
        """How much larger the last value is than that of a row."""
        return self.rows[-1][name] - self.rows[min(first, len(self.rows) - 1)][name]


class SoakedGraph(TalkingGraph):
    """Counts turns and their motion, and checks each trajectory."""

    def __init__(self, folder: Path) -> None:
        user, agent, _ = load_conversation(SAMPLE)
        super().__init__(folder, voices={"user": user, "agent": agent})
        self.turns: dict[int, int] = {}
        self.motion: set[int] = set()
        self.newest, self.late, self.trajectories = -1, 0, 0
        self.latest, self.excess = -np.inf, -np.inf
        self.node.create_subscription(Turn, "turns", self._on_turn, qos.turns())

    def _on_turn(self, message: Any) -> None:
        self.turns[message.number] = messages.to_ns(message.header.stamp)

    def _on_motion(self, message: Any) -> None:
        super()._on_motion(message)
        motion = messages.motion(message)
        if not np.isfinite(motion.frames).all():
            self.excess = np.inf
        behind = (time.time_ns() - motion.stamp_ns) * 1e-9
        self.late += behind > 0.0
        self.latest = max(self.latest, behind)
        self.motion.add(motion.turn)

    def _on_trajectory(self, message: Any) -> None:
        super()._on_trajectory(message)
        self.trajectories += 1
        if list(message.joint_names) != self.names:
            return
        start = messages.to_ns(message.header.stamp)
        offsets = [p.time_from_start.sec * NS + p.time_from_start.nanosec for p in message.points]
        fields = ("positions", "velocities", "accelerations")
        position, velocity, acceleration = (np.array([getattr(p, f) for p in message.points]) for f in fields)
        count = len(offsets)
        motion = JointMotion(
            self.profile.neck, tuple(self.names), start + np.array(offsets, np.int64), position, velocity, acceleration,
            position, np.zeros(count), np.zeros(count), np.ones(count, bool),
        )  # fmt: skip
        worst = max(violations(self.profile, motion).values())
        self.excess = max(self.excess, worst if np.isfinite(worst) else np.inf)

    def memory(self) -> dict[str, float]:
        """Memory of each node [MB]."""
        return {name: psutil.Process(self.pid(name)).memory_info().rss / 1e6 for name in self.children}


def live(hours: float) -> dict[str, bool]:
    """What was seen in so many hours of the running graph, and whether it is good."""
    table = Table("minute")
    with tempfile.TemporaryDirectory() as folder, running(lambda: SoakedGraph(Path(folder))) as graph:
        assert isinstance(graph, SoakedGraph)
        begun = time.monotonic()
        while len(table.rows) < hours * 60:
            graph.spin(max(0.0, begun + MINUTE * (len(table.rows) + 1) - time.monotonic()))
            # The last turn may still wait for its motion.
            done = sorted(graph.turns)[:-2]
            table.add(
                turns=len(done),
                dropped=len(set(done) - graph.motion),
                late=graph.late,
                latest_s=graph.latest,
                trajectories=graph.trajectories,
                excess=graph.excess,
                **graph.memory(),
                load=psutil.getloadavg()[0],
            )
            if graph.dead():
                break
        dead, said = graph.dead(), graph.seen.said
    numbers = np.array(sorted(graph.turns))
    offsets = np.array([graph.turns[number] for number in numbers]) - numbers * NS
    drift = float(np.ptp(offsets)) * 1e-9
    last = table.rows[-1]
    for complaint, times in said.most_common(5):
        print(f"diagnostics, {times} times: {complaint}")
    print(f"motion late: {last['late']:.0f} of {len(graph.motion)}, by at most {graph.latest:.2f} s")
    grown = {name: table.growth(name, SETTLED) for name in graph.children}
    return {
        f"nodes that died: {', '.join(dead) or 'none'}": not dead,
        f"turns: {len(numbers)}, numbers missing: {int(np.ptp(numbers)) + 1 - len(numbers)}": bool(
            np.ptp(numbers) + 1 == len(numbers)
        ),
        f"turns without motion: {last['dropped']:.0f}": last["dropped"] <= MOST_DROPPED * last["turns"],
        f"stamps against numbers: {drift * 1e3:.3f} ms": drift < MOST_DRIFT,
        f"trajectories: {graph.trajectories}, largest excess over a limit {graph.excess:.2g}": (
            graph.trajectories > 0 and graph.excess <= TOLERANCE
        ),
        f"measured speed at most {graph.seen.measured:.2f} of the limit": graph.seen.measured <= 1.0,
        "growth of memory [MB]: " + ", ".join(f"{name} {more:+.1f}" for name, more in grown.items()): (
            max(grown.values()) < MOST_GROWTH
        ),
    }


def conversation(builder: TurnBuilder, seconds: int, begin: int, seed: int = 0) -> Iterator[TurnInput]:
    """Turns of so many seconds of both people and a tracker, from the stamp ``begin`` [ns]."""
    random = np.random.default_rng(seed)
    voices: dict[Role, np.ndarray] = dict(zip(("user", "agent"), load_conversation(SAMPLE)[:2], strict=True))
    size = round(CHUNK * MODEL_RATE)
    phase = random.uniform(0.0, 2 * np.pi, MOTION_SIZE)
    for second in range(seconds):
        frames = second * MOTION_RATE + np.arange(MOTION_RATE + 1)
        waves = 0.05 * np.sin(frames[:, None] / MOTION_RATE * (0.5 + phase) + phase)
        if (second // 300) % 2 == 0:
            builder.add_motion(begin + second * NS, MOTION_RATE, waves.astype(np.float32))
        for chunk in range(round(1 / CHUNK)):
            first = second * MODEL_RATE + chunk * size
            for role, speech in voices.items():
                loudness = np.float32(0.05 + 0.95 * np.sin(second / 700.0 + len(role)) ** 2)
                samples = speech.take(np.arange(first, first + size), mode="wrap") * loudness
                stamp = begin + first * NS // MODEL_RATE + round(random.normal(0.0, 0.002) * NS)
                if (refused := builder.add_audio(role, stamp, first, MODEL_RATE, samples, stream_id=1)) is not None:
                    raise SystemExit(f"second {second}: {refused}")
            yield from builder.pop()
    yield from builder.finish()


def simulated(hours: float, model: Timar) -> dict[str, bool]:
    """What was computed in so many simulated hours, and whether it is good."""
    options = PipelineOptions()
    seconds, begin = round(hours * 3600), time.time_ns() // NS * NS
    pipeline, builder = Pipeline(model, options), TurnBuilder.of(options, 1.0)
    resumed: Pipeline | None = None
    profile = load_profile(ROBOT)
    retargeter, checker = Retargeter(profile), LimitChecker(profile)
    retargeter.start(begin)
    table, process, started = Table("stretch"), psutil.Process(), time.monotonic()
    numbers, drift, different, compared, still = 0, 0, 0, 0, 0
    hour = max(1, min(3600, seconds // 4))
    before: np.ndarray | None = None
    with suppress(KeyboardInterrupt):
        for turn in conversation(builder, seconds, begin):
            if numbers == min(1800, seconds // 2):
                resumed = Pipeline(model, options)
                resumed.load_state_dict(pipeline.state_dict())
            motion = pipeline.step(turn)
            assert motion is not None
            assert motion.number == numbers
            if resumed is not None and compared < 600:
                again = resumed.step(turn)
                assert again is not None
                different += again.frames.tobytes() != motion.frames.tobytes()
                compared += 1
                resumed.idle()
            pipeline.idle()
            drift = max(drift, abs(turn.stamp_ns - begin - numbers * NS))
            still += before is not None and bool(np.array_equal(before, motion.frames))
            before = motion.frames
            retargeter.push(motion.stamp_ns, motion.rate, motion.frames, motion.speaking)
            checker.take(retargeter.advance(motion.stamp_ns + NS // 2), retargeter)
            if numbers % PLANS == 0:
                checker.take_plan(retargeter.plan(motion.stamp_ns + 3 * NS // 2), retargeter)
            numbers += 1
            if numbers % hour == 0:
                counters = builder.counters
                table.add(
                    hours=numbers / 3600,
                    lost_samples=counters.lost_user + counters.lost_agent,
                    not_finite=pipeline.broken_turns,
                    stamp_off_ms=drift * 1e-6,
                    commands=checker.commands,
                    excess=max(checker.worst.values()),
                    memory_MB=process.memory_info().rss / 1e6,
                    ms_a_turn=(time.monotonic() - started) / numbers * 1e3,
                )
    worst = max(checker.worst, key=checker.worst.__getitem__)
    grown = table.growth("memory_MB", 0)
    lost = builder.counters.lost_user + builder.counters.lost_agent
    return {
        f"turns: {numbers} of {seconds}": numbers == seconds,
        f"samples lost: {lost}": lost == 0,
        f"turns not finite: {pipeline.broken_turns}, frozen: {still}": pipeline.broken_turns + still == 0,
        f"stamps off their time by at most {drift * 1e-6:.3f} ms": drift * 1e-9 < MOST_DRIFT,
        f"after resuming, different turns: {different} of {compared}": different == 0 and compared > 0,
        f"commands: {checker.commands}, largest excess {checker.worst[worst]:.2g} ({worst})": (
            checker.worst[worst] <= TOLERANCE
        ),
        f"growth of memory from the first stretch on: {grown:+.1f} MB": grown < MOST_GROWTH,
    }


def main() -> int:
    """Print tables and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=0.0, help="real hours of the running graph")
    parser.add_argument("--simulated-hours", type=float, default=0.0, help="hours of conversation without a graph")
    parser.add_argument("--model", default="", help="simulated: model; tiny: a few thousand random weights")
    args = parser.parse_args()
    checks: dict[str, bool] = {}
    if args.hours:
        checks |= live(args.hours)
    if args.simulated_hours:
        torch.set_num_threads(1)
        if args.model == "tiny":
            from support.tiny_models import tiny_model

            model = tiny_model()
        else:
            model = resolve_model(args.model or None)
        checks |= simulated(args.simulated_hours, model)
    if not checks:
        parser.error("give --hours or --simulated-hours")
    for text, good in checks.items():
        print(f"{'ok  ' if good else 'BAD '} {text}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
