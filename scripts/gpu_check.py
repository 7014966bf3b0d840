"""Check this package on a GPU, in one command and a bounded time: `bash scripts/gpu_check.sh --out DIR`.

Each stage is a separate process with a time limit; the script records a failed stage with its traceback and continues
with the next. It writes ``DIR/results.json`` and ``DIR/results.md`` after every stage. The exit code is 1 if a stage
failed or found an error above its tolerance. The script needs neither ROS nor a network.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

EQUAL = 1e-4
"""Largest allowed difference of fp32 from golden vectors and from the oracle."""

BARS = {"p50_ms": 3.0, "p99_ms": 6.0, "speedup": 25.0}
"""Bars of the full-size model in bf16, one conversation, on an H100 or a similar card."""

LIBRARIES = ("torch", "transformers", "numpy", "scipy", "safetensors", "accelerate", "soundfile", "soxr", "tensorboard")

Found = dict[str, Any]


# Stages: each returns its results; "ok" is the verdict.


def environment(device: str, _: bool) -> Found:
    """Report versions, the card, its memory, and the time of a kernel launch."""
    import torch

    found: Found = {"ok": True, "python": platform.python_version(), "machine": platform.platform()}
    found["processors"] = len(os.sched_getaffinity(0))
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    found["cuda"], found["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            return found | {"ok": False, "error": "this PyTorch finds no CUDA device"}
        card = torch.cuda.get_device_properties(device)
        found["card"], found["memory_gb"] = card.name, round(card.total_memory / 1e9, 1)
        found["capability"] = f"{card.major}.{card.minor}"
        found["matmul_tf32"], found["cudnn_tf32"] = (
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
        )
        x = torch.zeros(8, device=device)
        for rounds in (100, 2000):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(rounds):
                x.add_(1)
            torch.cuda.synchronize()
        found["launch_us"] = 1e6 * (time.perf_counter() - start) / rounds
    return found


def golden(device: str, _: bool) -> Found:
    """Compute the golden case of the tests on the device in fp32, with both engines."""
    import numpy as np
    from safetensors.numpy import load_file

    from timar_ros.model import TimarConfig, load_timar
    from timar_ros.model.precision import pick_device
    from timar_ros.streaming import Conversation

    root, name = ROOT / "test/golden", "short_context"
    cases = json.loads((root / "cases.json").read_text())
    case, inputs, expected = (
        cases["cases"][name],
        load_file(root / "inputs.safetensors"),
        load_file(root / f"{name}.safetensors"),
    )
    sampling, weights = case["sampling"], root / "weights" / case["weights"]
    source = (f"{weights}_speech.safetensors", cases["speech"])
    found: Found = {"ok": True, "tolerance": EQUAL}
    for engine in ("oracle", "cached"):
        model = load_timar(f"{weights}.safetensors", speech=source, config=TimarConfig.from_authors(case["model"]))
        talk = Conversation(
            model.to(pick_device(device)),
            context_seconds=sampling.get("max_context_time"),
            mask_history_agent=sampling["mask_history_agent"],
            guidance=sampling["cfg"],
            guidance_schedule=sampling.get("cfg_schedule", "linear"),
            temperature=sampling.get("temperature", 1.0),
            sampling_steps=int(case["model"]["num_sampling_steps"]),
            engine=engine,
        )
        motion_error = z_error = 0.0
        for turn in range(case["turns"]):
            noise = None
            if "noise_initial" in expected:
                noise = tuple(expected[key][turn].astype(np.float32) for key in ("noise_initial", "noise_steps"))
            speech = (inputs[key][turn].astype(np.float32) / 6000 for key in ("user_speech", "agent_speech"))
            motion = talk.step(*speech, inputs["user_motion"][turn], noise=noise)
            motion_error = max(motion_error, float(np.abs(motion - expected["motion"][turn]).max()))
            z_error = max(z_error, float(np.abs(talk.conditioning - expected["conditioning"][turn]).max()))
        found[engine] = {"motion": motion_error, "conditioning": z_error, **_graph(talk.batch)}
        found["ok"] &= max(motion_error, z_error) <= EQUAL
        found["ok"] &= not (engine == "cached" and device.startswith("cuda") and not found[engine]["graphs"])
    return found


def equality(device: str, quick: bool) -> Found:
    """Compare the engine's static turns (on CUDA: its graphs) with the oracle, fp32, at every length of history."""
    import numpy as np
    import torch
    from support.tiny_models import random_turn as tiny_turn
    from support.tiny_models import tiny_model

    from timar_ros.evaluation.bench.benchmark import random_turn
    from timar_ros.model import Timar, TimarConfig, create_timar
    from timar_ros.model.precision import pick_device
    from timar_ros.streaming import ConversationBatch
    from timar_ros.streaming.engine.cached import CachedEngine

    found: Found = {"ok": True, "tolerance": EQUAL}

    def compare(name: str, model: Timar, turn: Callable[[int], Any], turns: int, **options: Any) -> None:
        rows = 3
        oracle = ConversationBatch(model, rows, engine="oracle", seed=0, **options)
        batch = ConversationBatch(model, rows, seed=0, **options)
        assert isinstance(batch.engine, CachedEngine)
        batch.engine.padded = True
        worst = {"motion": 0.0, "conditioning": 0.0}
        for number in range(turns):
            # The last conversation skips some turns, and the second one begins later.
            turn_inputs = [turn(10 * number), turn(10 * number + 1), turn(10 * number + 2)]
            if number % 3 == 1:
                turn_inputs[2] = None
            if number < 2:
                turn_inputs[1] = None
            got, expected = batch.step(turn_inputs), oracle.step(turn_inputs)
            for row in range(rows):
                if turn_inputs[row] is None:
                    continue
                for key, ours, theirs in (
                    ("motion", got[row], expected[row]),
                    ("conditioning", batch.conditioning(row), oracle.conditioning(row)),
                ):
                    error = float(np.abs(ours - theirs).max())
                    worst[key] = max(worst[key], error if np.isfinite(error) else float("inf"))
            if number % 2:
                batch.prepare()
        found[name] = worst | _graph(batch)
        found["ok"] &= max(worst.values()) <= EQUAL
        found["ok"] &= found[name]["graphs"] > 0 or not device.startswith("cuda")

    where = pick_device(device)
    tiny = tiny_model(partial_motion=True, standardise=True).to(where)
    for guidance in (1.0, 1.7):
        compare(f"tiny, guidance {guidance}", tiny, lambda s: tiny_turn(s, "some"), 12, guidance=guidance)
    for size in ("mini",) if quick else ("mini", "large"):
        model = create_timar(TimarConfig.of_size(size), zero_head=False).to(where, torch.float32)
        for policy in ("sliding", "stepped"):
            compare(f"{size}, {policy}", model, lambda s, m=model: random_turn(m, s), 11, context_policy=policy)
    return found


def training(_: str, quick: bool) -> Found:
    """Measure the trainer's steps per second on conversations of noise: timar-mini's recipe, then the full-size one."""
    import yaml

    from timar_ros.model.speech_encoder import LARGE_SPEECH, build_speech_encoder
    from timar_ros.training.run_config import config_from_dict
    from timar_ros.training.trainer import Trainer

    found: Found = {"ok": True}
    recipes = {"mini": "timar_mini.yaml"} if quick else {"mini": "timar_mini.yaml", "large": "timar_large.yaml"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _make_conversations(folder / "data/train")
        for name, file in recipes.items():
            content = yaml.safe_load((ROOT / "config/train" / file).read_text())
            content["data"] |= {"path": str(folder / "data"), "validation_split": None, "workers": 0}
            content["run"] = {"folder": str(folder / name), "checkpoint_every": 10**6, "log_every": 10**6}
            content["optimiser"] |= {"steps": 3 if quick else 16, "epochs": None, "warmup_steps": 2}
            content["optimiser"].pop("warmup_epochs", None)
            if quick:
                content["optimiser"] |= {"batch_size": 2, "micro_batch": None, "precision": "no"}
            if "filterbank_steps" in content["speech"]:
                content["speech"]["filterbank_steps"] = 2
            if content["speech"].get("weights"):  # the same encoder with random weights, frozen just the same
                build_speech_encoder(LARGE_SPEECH).save_pretrained(folder / "speech")
                content["speech"]["weights"] = str(folder / "speech")
                content["optimiser"] |= {"batch_size": 16, "micro_batch": None}
            trainer = Trainer(config_from_dict(content))
            trainer.save = lambda: None  # type: ignore[method-assign]  # the last step would write gigabytes
            seconds: list[float] = []
            losses: list[float] = []

            def report(_: int, __: int, metrics: dict[str, float], to: Any = (seconds, losses)) -> None:
                to[0].append(metrics["step_s"])
                to[1].append(metrics["loss"])

            trainer.fit(report)
            steady = sorted(seconds[len(seconds) // 3 :])
            median = steady[len(steady) // 2]
            batch = trainer.config.optimiser.batch_size
            found[name] = {
                "steps_per_s": 1 / median,
                "clips_per_s": batch / median,
                "batch_size": batch,
                "precision": trainer.config.optimiser.precision,
                "first_step_s": seconds[0],
                "first_loss": losses[0],
                "last_loss": losses[-1],
            }
            _emit(found)
            del trainer
    return found


def _make_conversations(folder: Path) -> None:
    """Two conversations of noise in bursts with slow motion, 24 s each, in DualTalk's layout."""
    import numpy as np

    folder.mkdir(parents=True)
    rng, frames = np.random.default_rng(0), 600
    for name in ("a", "b"):
        for speaker in (1, 2):
            loud = np.repeat(rng.random(frames // 10) > 0.5, 10).astype(np.float32)
            samples = 0.2 * rng.standard_normal(frames * 640) * np.repeat(0.01 + loud, 640)
            with wave.open(str(folder / f"{name}_speaker{speaker}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(16000)
                file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
            slow = np.sin(np.arange(frames)[:, None] / 25 * rng.uniform(0.5, 6, 56))
            pose = np.zeros((frames, 6), np.float32)
            pose[:, :3], pose[:, 3] = 0.1 * slow[:, :3], 0.1 * loud
            np.savez(folder / f"{name}_speaker{speaker}.npz", exp=slow[:, :50].astype(np.float32), pose=pose)


def _graph(batch: Any) -> Found:
    """Number of a batch's turns that became CUDA graphs, and of failed recordings."""
    from timar_ros.streaming.engine.static import GraphedCall

    calls = [turn._run for turn in batch._static.values() if isinstance(turn._run, GraphedCall)]
    return {"graphs": sum(call.replay is not None for call in calls), "failed": sum(call.failed for call in calls)}


# The most valuable stages come first, since the time limit may cut off the last ones.


@dataclasses.dataclass(frozen=True)
class Stage:
    """A function of this file, or arguments of ``timar bench``, with a time limit [s]."""

    name: str
    limit: float
    work: Callable[[str, bool], Found] | list[str]


def stages(quick: bool) -> list[Stage]:
    """All stages in order."""
    both, policies = ["float32", "bfloat16"], ["sliding", "stepped"]

    def bench(
        name: str, limit: float, size: str, dtype: list[str], policy: list[str], many: list[int], n: int
    ) -> Stage:
        count = ["--conversations", *map(str, many)]
        return Stage(
            name, limit, ["--size", size, "--dtype", *dtype, "--context-policy", *policy, *count, "--turns", str(n)]
        )

    first = [
        Stage("environment", 60, environment),
        Stage("golden", 60, golden),
        Stage("equality", 100, equality),
    ]
    if quick:
        return [*first, bench("bench mini", 120, "mini", both, policies, [1, 2], 12), Stage("training", 120, training)]
    return [
        *first,
        bench("bench mini x1", 40, "mini", both, policies, [1], 100),
        bench("bench large bf16 x1", 70, "large", ["bfloat16"], policies, [1], 100),
        bench("bench large fp32 x1", 60, "large", ["float32"], ["sliding"], [1], 50),
        bench("bench large bf16 x200", 80, "large", ["bfloat16"], ["stepped"], [200], 16),
        bench("bench large bf16 x16 x64", 60, "large", ["bfloat16"], policies, [16, 64], 16),
        Stage("training", 90, training),
        bench("bench mini x16 x64 x200", 60, "mini", both, ["sliding"], [16, 64, 200], 16),
        bench("bench large bf16 x200 sliding", 80, "large", ["bfloat16"], ["sliding"], [200], 12),
        bench("bench large fp32 x16 x64 x200", 120, "large", ["float32"], ["stepped"], [16, 64, 200], 12),
    ]


# The run


def main() -> int:
    """Run the stages, or one of them in this process (``--stage``)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder for results.json and results.md")
    parser.add_argument(
        "--wheels", type=Path, default=os.environ.get("TIMAR_WHEELS"), help="folder of wheels to install"
    )
    parser.add_argument("--seconds", type=float, default=460, help="time limit of all stages together")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny settings, to test the script itself")
    parser.add_argument("--only", nargs="+", help="stages whose name contains one of these words")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.stage is not None:
        return _one(args.stage, args.device, args.quick)
    began = time.monotonic()
    variables = dict(os.environ)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as site:
        if args.wheels is not None:
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", site]
            subprocess.run([*install, *map(str, sorted(Path(args.wheels).glob("*.whl")))], check=True)
            paths.insert(0, site)
        variables["PYTHONPATH"] = os.pathsep.join(paths)
        results: dict[str, Found] = {}
        for stage in stages(args.quick):
            if args.only and not any(word in stage.name for word in args.only):
                continue
            left = args.seconds - (time.monotonic() - began)
            if left < 10:
                results[stage.name] = {"ok": False, "error": "not run: no time left"}
            else:
                results[stage.name] = _stage(stage, args, variables, min(stage.limit, left))
            _write(args.out, results, time.monotonic() - began)
            print(f"{stage.name}: {_verdict(results[stage.name])}", flush=True)
    print((args.out / "results.md").read_text(), flush=True)
    return 0 if all(found["ok"] for found in results.values()) else 1


def _one(name: str, device: str, quick: bool) -> int:
    work = next(stage.work for stage in stages(quick) if stage.name == name)
    assert not isinstance(work, list)
    try:
        found = work(device, quick)
    except Exception:
        found = {"ok": False, "error": traceback.format_exc()}
    _emit(found)
    return 0 if found["ok"] else 1


def _emit(found: Found) -> None:
    """Write a stage's results so far, for the process that started it."""
    target = os.environ.get("GPU_CHECK_RESULT")
    if target is None:
        print(json.dumps(found, indent=1))
    else:
        Path(target).write_text(json.dumps(found), encoding="utf-8")


def _stage(stage: Stage, args: argparse.Namespace, variables: dict[str, str], limit: float) -> Found:
    """Run a stage in a separate process; results from before a timeout count."""
    name = stage.name.replace(" ", "_")
    result, log = args.out / f"{name}.json", args.out / f"{name}.log"
    result.unlink(missing_ok=True)
    if isinstance(stage.work, list):
        options = ["--device", args.device, "--json", str(result)]
        command = [sys.executable, "-m", "timar_ros.cli.main", "bench", *stage.work, *options]
    else:
        command = [sys.executable, str(Path(__file__).resolve()), "--stage", stage.name, "--device", args.device]
        command += ["--out", str(args.out), *(["--quick"] if args.quick else [])]
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=variables | {"GPU_CHECK_RESULT": str(result)},
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    found: Found = {}
    if result.exists():
        content = json.loads(result.read_text(encoding="utf-8"))
        found = {"rows": content} if isinstance(content, list) else content
    found["seconds"] = round(time.monotonic() - start, 1)
    said = log.read_text(encoding="utf-8", errors="replace")
    warnings = [line for line in said.splitlines() if "no CUDA graph" in line or "NOT EQUAL" in line]
    if warnings:
        found["warnings"] = warnings
    found["ok"] = bool(code == 0 and found.get("ok", True))
    if "rows" in found and any("no CUDA graph" in line for line in warnings):
        found["ok"] = False
    if code != 0 and "error" not in found:
        found["error"] = f"stopped after {limit:.0f} s\n{said[-3000:]}" if code is None else said[-6000:]
    return found


def _verdict(found: Found) -> str:
    reason = "" if found["ok"] else " ".join(found.get("error", "").strip().splitlines()[-1:])
    return f"{'ok' if found['ok'] else 'FAILED'} ({found.get('seconds', 0)} s) {reason}".strip()


def _write(out: Path, results: dict[str, Found], seconds: float) -> None:
    rows = [row for found in results.values() for row in found.get("rows", ())]
    bars = _bars(rows)
    content = {"seconds": round(seconds, 1), "stages": results, "bars": bars}
    (out / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    place = results.get("environment", {})
    lines = [
        f"# {place.get('card', 'device')}",
        "",
        f"torch {place.get('torch')}, transformers {place.get('transformers')}, Python {place.get('python')}",
        "",
        "| stage | result |",
        "|---|---|",
        *(f"| {name} | {_verdict(found)} |" for name, found in results.items()),
        "",
        "| engine | oracle ms | p50 | p95 | p99 | max | idle mean | gain | RTF | speech | fusion | head | error | MB |",
        "|---|" + "---:|" * 13,
    ]
    for row in rows:
        times = ("oracle_p50_s", "critical_p50_s", "critical_p95_s", "critical_p99_s", "critical_max_s", "idle_mean_s")
        parts = ("speech_s", "fusion_s", "head_s")
        cells = [
            f"{row['size']} {row['dtype']} {row['policy']} x{row['conversations']}",
            *(f"{1e3 * row[key]:.2f}" for key in times),
            f"{row['speedup']:.1f}",
            f"{row['real_time_factor']:.3f}",
            *(f"{1e3 * row[key]:.2f}" for key in parts),
            f"{row['relative_error_motion']:.1e}" if row["dtype"] != "float32" else f"{row['max_abs_error']:.1e}",
            f"{row['peak_memory_mb']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if bars:
        lines += ["", "| bar | wanted | measured | held |", "|---|---:|---:|---|"]
        lines += [
            f"| {b['name']} | {b['wanted']} | {b['measured']:.2f} | {'yes' if b['held'] else 'NO'} |" for b in bars
        ]
    for name in ("golden", "equality", "training"):
        if name in results:
            lines += ["", f"{name}: `{json.dumps({k: v for k, v in results[name].items() if k != 'error'})}`"]
    (out / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _bars(rows: list[Found]) -> list[Found]:
    """The bars of the full-size model in bf16, with the measured values."""
    full = [row for row in rows if (row["size"], row["dtype"]) == ("large", "bfloat16")]
    bars: list[Found] = []
    for row in full:
        if row["conversations"] == 1:
            p50, p99 = 1e3 * row["critical_p50_s"], 1e3 * row["critical_p99_s"]
            name = f"large bf16 {row['policy']} x1"
            bars += [
                {"name": f"{name}, p50 ms", "wanted": BARS["p50_ms"], "measured": p50, "held": p50 <= BARS["p50_ms"]},
                {"name": f"{name}, p99 ms", "wanted": BARS["p99_ms"], "measured": p99, "held": p99 <= BARS["p99_ms"]},
                {
                    "name": f"{name}, times the oracle's speed",
                    "wanted": BARS["speedup"],
                    "measured": row["speedup"],
                    "held": row["speedup"] >= BARS["speedup"],
                },
            ]
        if row["conversations"] == 200:
            factor = row["real_time_factor"]
            bars.append(
                {
                    "name": f"large bf16 {row['policy']} x200, real-time factor",
                    "wanted": 1.0,
                    "measured": factor,
                    "held": factor <= 1,
                }
            )
    return bars


if __name__ == "__main__":
    sys.exit(main())
