"""What the graph costs: ROS's share of the latency, and CPU by node; exits 1 if a figure is bad.

    python test/system/graph_cost.py [--seconds 120] [--model MODEL] [--threads 1] [--json FILE]

The whole graph (`timar demo`'s nodes) in real time on noise. Overhead: from the last chunk of a turn, published by
another process, to its motion received there, less the model's time for that turn.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile

from timar_ros.graph.description import GraphOptions
from timar_ros.graph.session import session
from timar_ros.graph.supervisor import Supervisor
from timar_ros.msg import AudioChunk
from timar_ros.ros import qos

BARS = {"overhead_p50_ms": 5.0, "overhead_p99_ms": 20.0, "cpu_all_percent": 60.0, "cpu_but_inference_percent": 20.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--model", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), args)
    for name, value in figures.items():
        bar = BARS.get(name)
        verdict = "" if bar is None else f"  (bar {bar:g}: {'ok' if value <= bar else 'MISSED'})"
        print(f"{name:32} {value:8.2f}{verdict}")
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2) + "\n")
    return int(any(figures[name] > bar for name, bar in BARS.items()))


def measure(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 0.05, (round(args.seconds * 16000), 2)).astype(np.float32)
    soundfile.write(folder / "noise.wav", noise, 16000)
    log = folder / "turns.csv"
    parameters = folder / "params.yaml"
    parameters.write_text(
        f"/**/timar_inference:\n  ros__parameters:\n    torch_threads: {args.threads}\n    latency_log: {log}\n"
    )
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    options = GraphOptions(
        source="recording",
        recording=str(folder / "noise.wav"),
        model=args.model,
        device="cpu",
        sim="builtin",
        params_file=str(parameters),
    )
    heard: dict[str, dict[int, float]] = {"user": {}, "agent": {}}
    with session(options, folder / "logs") as graph:
        node = graph.observer
        for role, times in heard.items():
            node.create_subscription(
                AudioChunk,
                f"{role}/audio",
                lambda m, times=times: times.setdefault(m.sample_index + len(m.data), time.monotonic()),
                qos.audio(),
            )
        graph.supervisor.bring_up()
        before, begun = cpu(graph.supervisor), time.monotonic()
        while not node.observed.audio_ended:
            graph.supervisor.spin(0.05)
        spent, passed = cpu(graph.supervisor), time.monotonic() - begun
        turns, latency = dict(node.observed.turns), dict(node.observed.latency)
        graph.supervisor.bring_down()
        graph.supervisor.end()
    arrived = {number: turns[number] + seconds for number, seconds in latency.items()}
    model = {int(row["turn"]): float(row["model"]) for row in csv.DictReader(log.open())}
    overhead = [
        arrived[number] - max(times[(number + 1) * 16000] for times in heard.values()) - model[number]
        for number in arrived
        if number in model and all((number + 1) * 16000 in times for times in heard.values())
    ]
    share = {name: 100.0 * (spent[name] - before[name]) / passed for name in spent}
    return {
        "turns": float(len(overhead)),
        "overhead_p50_ms": 1e3 * float(np.percentile(overhead, 50)),
        "overhead_p99_ms": 1e3 * float(np.percentile(overhead, 99)),
        "overhead_max_ms": 1e3 * max(overhead),
        "model_p50_ms": 1e3 * float(np.percentile(list(model.values()), 50)),
        "model_p95_ms": 1e3 * float(np.percentile(list(model.values()), 95)),
        **{f"cpu_{name}_percent": value for name, value in share.items()},
        "cpu_all_percent": sum(share.values()),
        "cpu_but_inference_percent": sum(value for name, value in share.items() if name != "timar_inference"),
    }


def cpu(supervisor: Supervisor) -> dict[str, float]:
    """CPU seconds of each node so far."""
    times = {name: psutil.Process(child.process.pid).cpu_times() for name, child in supervisor.children.items()}
    return {name: each.user + each.system for name, each in times.items()}


if __name__ == "__main__":
    sys.exit(main())
