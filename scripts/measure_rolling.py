"""Compare the modes on conversations with known motion: lips, nods, when the head answers, distance to the truth.

    python scripts/measure_rolling.py FOLDER [--conversations 40] [--model timar-mini] [--seeds 2]

FOLDER is in DualTalk's layout (``timar synth FOLDER``). One line for each way: delay of the agent's voice, lips, nods,
peak of nod power in real time after the partner's phrases, its strength, step over spread of head and jaw, FD and MSE.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from timar_ros.data.dualtalk import Clip, DualTalkFolder
from timar_ros.evaluation.behaviour import measure
from timar_ros.evaluation.metrics import compute_metrics
from timar_ros.evaluation.reaction import Reactions
from timar_ros.streaming.offline import generate, resolve_model
from timar_ros.streaming.options import PipelineOptions

RATE = 16000


def ways(hops: list[float], looks: list[float]) -> dict[str, tuple[dict[str, Any], bool, float]]:
    """Options, whether speech is ahead, and the delay between what is said and what is shown [s], by name."""
    made: dict[str, tuple[dict[str, Any], bool, float]] = {
        "reactive": ({}, True, 1.15),
        "anticipatory": ({"mode": "anticipatory"}, True, 0.0),
    }
    for hop in hops:
        options: dict[str, Any] = {"mode": "rolling", "hop": hop, "look_ahead": max(0.4, hop + 0.12)}
        made[f"rolling, hop {hop:g}, voice delayed"] = (options, False, hop + 0.12)
    for hop, look in itertools.product(hops, looks):
        if look >= hop + 0.12 - 1e-9:
            options = {"mode": "rolling", "hop": hop, "look_ahead": look}
            made[f"rolling, hop {hop:g}, {look:g} s ahead"] = (options, True, 0.0)
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--splits", nargs="+", default=["test", "ood"])
    parser.add_argument("--conversations", type=int, default=40)
    parser.add_argument("--model", default="timar-mini")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--hops", type=float, nargs="+", default=[0.2])
    parser.add_argument("--looks", type=float, nargs="+", default=[0.4])
    parser.add_argument("--guidance", type=float, default=PipelineOptions.guidance)
    args = parser.parse_args()
    model = resolve_model(args.model, threads=1)
    items: list[tuple[Clip, dict[str, Any], DualTalkFolder]] = []
    for split in args.splits:
        if not (Path(args.folder) / split).is_dir():
            continue
        folder = DualTalkFolder(args.folder, split, normalise=False)
        items += [(clip, folder.load(clip), folder) for clip in folder.clips(None)]
    items = items[: args.conversations]
    print(f"{len(items)} conversations and roles of {args.folder}, {model.name}, {args.seeds} seeds")
    rows = ways(args.hops, args.looks)
    truths = Reactions([])
    for _, item, _ in items:
        truths.add(item["agent_motion"], 0.0, item["user_speech"], item["agent_speech"])
    print(f"{'truth':36s} peak {truths.peak:.1f} s, strength {truths.strength:.1f}, {len(truths.power)} phrase ends")
    for name, (options, ahead, delay) in rows.items():
        reactions, found = Reactions([]), defaultdict(list)
        for (_, item, _), seed in itertools.product(items, range(args.seeds)):
            motion = generate(
                model,
                PipelineOptions(seed=seed, guidance=args.guidance, **options),
                item["user_speech"],
                item["agent_speech"],
                item["user_motion"],
                speech_ahead=ahead,
            )
            truth, partner = item["agent_motion"][: len(motion)], item["user_motion"][: len(motion)]
            motion = motion[: len(truth)]
            reactions.add(motion, delay, item["user_speech"], item["agent_speech"])
            for key, value in measure(motion, truth, item["user_speech"], item["agent_speech"]).items():
                found[key].append(value)
            for part, columns in (("jaw", slice(50, 51)), ("head", slice(53, 56))):
                values = motion[:, columns]
                found[f"step_{part}"].append(float(np.mean(np.diff(values, axis=0).std(0) / values.std(0))))
            split = (truth[:, :50], np.concatenate([truth[:, 53:], truth[:, 50:53]], axis=1))
            other = (partner[:, :50], np.concatenate([partner[:, 53:], partner[:, 50:53]], axis=1))
            for key, value in compute_metrics(motion, *split, *other).items():
                found[key].append(float(value))
        mean = {key: float(np.nanmean(values)) for key, values in found.items()}
        print(
            f"{name:36s} delay {delay:.2f} lips {mean['jaw_follows']:.2f} nods {mean['nod_ratio']:.2f} "
            f"peak {reactions.peak:.1f} strength {reactions.strength:.1f} "
            f"step/sd head {mean['step_head']:.3f} jaw {mean['step_jaw']:.2f} spread {mean['head_spread']:.2f} "
            f"FD {mean['fid_exp']:.2f} {mean['fid_jaw'] * 1e3:.2f} {mean['fid_pose'] * 1e2:.2f} "
            f"MSE {mean['mse_exp'] * 10:.2f} {mean['mse_jaw'] * 1e3:.2f} {mean['mse_pose'] * 1e2:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
