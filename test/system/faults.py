"""Faults on the running graph, each at random moments; a Markdown table of what happened. Exits 1 if a node died.

    python test/system/faults.py [--times 20] [--seed 0] [--only WORDS]

Real nodes in processes of their own over real DDS, with the simulated head; this program speaks for both people and
does the harm. Times are wall time. What is looked at after each fault:

- died: nodes that ended without being killed by this program;
- recovery: turns from the end of the fault (a killed node: from its activation) until motion is made and followed
  again; a turn is 1 s, and the answer to a turn comes when it is over;
- commanded: the largest speed of a joint between two points of a trajectory, as a share of its limit;
- measured: the same between two measured positions of the simulated head, which swings past where it is sent;
- begins away: the largest distance between a trajectory's first point and the measured position at its time [rad];
- said: the commonest complaint on /diagnostics.

A sender's clock is set by its stamps: the clock of this machine stays as it is. CPU at 25 % is every node stopped for
75 of every 100 ms. A full disk is a limit of 0 bytes on the files of the processes that write; a read-only disk is a
mount (root only). A GPU without memory is a stand-in that raises torch's error (inference_out_of_memory.py).
"""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil
from talking_graph import Seen, TalkingGraph, running

from timar_ros.graph import supervisor
from timar_ros.graph.description import NodeSpec
from timar_ros.graph.supervisor import Child, command

PATIENCE = 60.0
"""Seconds after which a graph that has not recovered is held not to recover."""
SETTLE = 4.0
SWITCH = "out_of_memory"
"""While a file of this name is in the graph's folder, the GPU's memory is used up."""
HOUR, YEAR = 3600.0, 365.25 * 86400.0


@dataclass
class Result:
    """What one fault did."""

    died: list[str]
    recovery: float
    """Turns (of 1 s)."""
    seen: Seen = field(default_factory=Seen)


class FaultyGraph(TalkingGraph):
    """Its inference can be told that the GPU's memory is used up."""

    def child(self, name: str) -> Child:
        """A node's new process."""
        if name != "timar_inference":
            return super().child(name)
        program = [
            sys.executable,
            str(Path(__file__).with_name("inference_out_of_memory.py")),
            str(self.folder / SWITCH),
        ]

        def stand_in(spec: NodeSpec, parameters: Path) -> list[str]:
            return [*program, *command(spec, parameters)[3:]]

        with mock.patch.object(supervisor, "command", stand_in):
            return super().child(name)


Fault = Callable[[TalkingGraph], None]


def killed(name: str) -> Fault:
    """kill -9 and a restart."""

    def fault(graph: TalkingGraph) -> None:
        graph.signal(signal.SIGKILL, name)
        graph.children[name].join(5.0)
        graph.spin(1.0)
        graph.start(name)

    return fault


def stopped(name: str, seconds: float) -> Fault:
    """SIGSTOP for a while."""

    def fault(graph: TalkingGraph) -> None:
        graph.signal(signal.SIGSTOP, name)
        graph.spin(seconds)
        graph.signal(signal.SIGCONT, name)

    return fault


def pulsed(on: float, off: float, seconds: float, *names: str) -> Fault:
    """Stopped for ``off`` of every ``on + off`` seconds."""

    def fault(graph: TalkingGraph) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            graph.signal(signal.SIGSTOP, *names)
            graph.spin(off)
            graph.signal(signal.SIGCONT, *names)
            graph.spin(on)

    return fault


def changed(seconds: float, **values: float) -> Fault:
    """Another chunk, loss or flood for a while."""

    def fault(graph: TalkingGraph) -> None:
        before = {name: getattr(graph, name) for name in values}
        graph.flooded = time.monotonic()
        for name, value in values.items():
            setattr(graph, name, value)
        graph.spin(seconds)
        for name, value in before.items():
            setattr(graph, name, value)

    return fault


def clock(seconds: float) -> Fault:
    """The sender's clock steps, and stays there for 4 s."""
    return changed(4.0, shift=seconds)


def full_disk(graph: TalkingGraph) -> None:
    """No file of the nodes that write may grow for 4 s."""
    writers = [psutil.Process(graph.pid(name)) for name in ("audio_sink", "timar_inference")]
    hard = [process.rlimit(psutil.RLIMIT_FSIZE)[1] for process in writers]
    for process, most in zip(writers, hard, strict=True):
        process.rlimit(psutil.RLIMIT_FSIZE, (0, most))
    graph.spin(4.0)
    for process, most in zip(writers, hard, strict=True):
        process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, most))


def read_only_disk(graph: TalkingGraph) -> None:
    """Nothing new can be written where the nodes write, for 4 s: as after an error of the disk."""
    folder = str(graph.folder)
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        graph.spin(4.0)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def out_of_memory(graph: TalkingGraph) -> None:
    """Every pass of the network raises for 4 s what torch raises when the GPU's memory is used up."""
    switch = graph.folder / SWITCH
    switch.touch()
    graph.spin(4.0)
    switch.unlink()


FAULTS: dict[str, Fault] = {
    **{f"kill -9 and restart of {name}": killed(name) for name in ("turn_segmenter", "timar_inference", "retarget")},
    **{f"kill -9 and restart of {name}": killed(name) for name in ("audio_sink", "head_simulator")},
    **{
        f"SIGSTOP of {name} for {seconds:g} s": stopped(name, seconds)
        for name in ("turn_segmenter", "timar_inference", "retarget")
        for seconds in (0.3, 2.0, 5.0)
    },
    "30 % of the audio lost": changed(4.0, loss=0.3),
    **{f"sender's clock {by:+g} s": clock(by) for by in (10.0, -10.0)},
    **{f"sender's clock {by / HOUR:+g} h": clock(by) for by in (HOUR, -HOUR)},
    **{f"sender's clock {by / YEAR:+g} years": clock(by) for by in (50 * YEAR, -50 * YEAR)},
    "inference slower than real time": pulsed(0.1, 1.4, 6.0, "timar_inference"),
    "CPU at 25 %": pulsed(0.025, 0.075, 6.0),
    "disk full": full_disk,
    "read-only disk": read_only_disk,
    "GPU out of memory (a stand-in raises the error)": out_of_memory,
    "audio in chunks of 10 ms": changed(4.0, chunk=0.01),
    "user/motion at 1 kHz": changed(4.0, flood=1000.0),
}


def measure(graph: TalkingGraph, fault: Fault) -> Result:
    """Do the harm at a random moment; wait until the head follows new motion again."""
    graph.spin(SETTLE + graph.random.random())
    graph.seen = Seen()
    fault(graph)
    over = time.monotonic()
    while not (graph.answered > over and graph.moved > graph.answered) and time.monotonic() - over < PATIENCE:
        graph.spin(0.02)
    recovery = time.monotonic() - over
    graph.spin(2.0)
    return Result(graph.dead(), recovery, graph.seen)


def row(name: str, results: list[Result]) -> str:
    """A line of the table."""
    ends = [end for result in results for end in result.died]
    said: Counter[str] = sum((result.seen.said for result in results), Counter())
    times = sorted(result.recovery for result in results)
    recovered = [f"{turns:.1f}" if turns < PATIENCE else "none" for turns in (times[len(times) // 2], times[-1])]
    figures = [
        f"{max(getattr(result.seen, what) for result in results):.{digits}f}"
        for what, digits in (("commanded", 2), ("measured", 2), ("away", 3))
    ]
    complaint = said.most_common(1)[0][0] if said else ""
    cells = (name, str(len(results)), ", ".join(ends) or "0", *recovered, *figures, complaint)
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="how often each fault is tried")
    parser.add_argument("--seed", type=int, default=0, help="what the random moments come from")
    parser.add_argument("--only", default="", help="only faults whose name contains this")
    args = parser.parse_args()
    died = 0
    with tempfile.TemporaryDirectory() as folder, running(lambda: FaultyGraph(Path(folder), args.seed)) as graph:
        print(
            "| fault | times | died | recovery, turns (median) | (worst) | commanded | measured | begins away [rad] "
            "| said |"
        )
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        for name, fault in FAULTS.items():
            if args.only not in name:
                continue
            results = [measure(graph, fault) for _ in range(args.times)]
            died += sum(len(result.died) for result in results)
            print(row(name, results), flush=True)
            for dead in [name for name, child in graph.children.items() if child.process.poll() is not None]:
                graph.start(dead)
    return 1 if died else 0


if __name__ == "__main__":
    sys.exit(main())
