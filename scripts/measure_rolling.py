"""Compare the modes on conversations with known motion: lips, nods, time of the answer, distance to the truth.

    python scripts/measure_rolling.py FOLDER [--conversations 40] [--store RESULTS.jsonl] [--minutes 10]

FOLDER is in DualTalk's layout (``timar synth FOLDER``). One line for each setting: delay of the agent's voice, lips,
nods, peak of nod power in real time after the partner's phrases, its strength, seams, step over spread of head and jaw,
FD and MSE. ``--store`` keeps every finished conversation, and an interrupted run continues from there.
``--by-frame`` prints the jaw's MSE in reactive mode by the frame's place in its turn instead.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from timar_ros.data.dualtalk_folder import DualTalkFolder, Item
from timar_ros.evaluation.metrics.behaviour import measure
from timar_ros.evaluation.metrics.conversation_signals import seam_ratio
from timar_ros.evaluation.metrics.paper_metrics import compute_metrics
from timar_ros.evaluation.metrics.reaction import Reactions
from timar_ros.model import Timar
from timar_ros.motion import HEAD, JAW
from timar_ros.streaming.offline import generate, resolve_model
from timar_ros.streaming.sampling_options import PipelineOptions

TRUTH = "truth"

Setting = tuple[dict[str, Any], bool, float]
"""Options, whether speech is ahead, and the delay from speech to motion [s]."""


def make_settings(hops: list[float], looks: list[float], policies: list[str]) -> dict[str, Setting]:
    """The compared settings by name."""
    by_name: dict[str, Setting] = {
        "reactive": ({}, True, 1.15),
        "anticipatory": ({"mode": "anticipatory"}, True, 0.0),
    }
    for hop, policy in itertools.product(hops, policies):
        rolling: dict[str, Any] = {"mode": "rolling", "hop": hop, "context_policy": policy}
        name = f"rolling, hop {hop:g}, {policy}"
        least = hop + PipelineOptions.hop_margin
        for look in looks:
            if look < least - 1e-9:  # a look-ahead shorter than a hop and its margin: the voice is delayed
                by_name[f"{name}, voice delayed"] = ({**rolling, "look_ahead": max(0.4, least)}, False, least)
            else:
                by_name[f"{name}, {look:g} s ahead"] = ({**rolling, "look_ahead": look}, True, 0.0)
    return by_name


def conversations(folder: str, splits: list[str], most: int) -> Iterator[tuple[str, Item]]:
    """Name and content of the conversations and roles to measure."""
    folders = {
        split: DualTalkFolder(folder, split, normalise=False) for split in splits if (Path(folder) / split).is_dir()
    }
    clips = (
        (f"{split}/{clip.pair.name}-{clip.agent}", data.load(clip))
        for split, data in folders.items()
        for clip in data.clips(None)
    )
    return itertools.islice(clips, most)


def measured(model: Timar, item: Item, setting: Setting, seed: int, guidance: float | None) -> dict[str, Any]:
    """All figures of one conversation with one setting."""
    options, ahead, delay = setting
    pipeline_options = PipelineOptions(seed=seed, guidance=guidance, **options)
    motion = generate(
        model, pipeline_options, item["user_speech"], item["agent_speech"], item["user_motion"], speech_ahead=ahead
    )
    truth, partner = item["agent_motion"][: len(motion)], item["user_motion"][: len(motion)]
    motion = motion[: len(truth)]
    reactions = Reactions([])
    reactions.add(motion, delay, item["user_speech"], item["agent_speech"])
    step = round(pipeline_options.step_seconds(model.config.turn_seconds) * model.config.motion_rate)
    figures: dict[str, Any] = dict(measure(motion, truth, item["user_speech"], item["agent_speech"], step))
    if pipeline_options.mode == "rolling":
        # The first frame that is shown of a hop: with speech ahead, hops' frames begin the margin after its end.
        first = pipeline_options.hop_margin if ahead else 0.0
        figures["seam_ratio"] = seam_ratio(motion[:, HEAD], step, round(first * model.config.motion_rate))
    for part, columns in (("jaw", slice(50, 51)), ("head", slice(53, 56))):
        values = motion[:, columns]
        figures[f"step_{part}"] = float(np.mean(np.diff(values, axis=0).std(0) / values.std(0)))
    split = (truth[:, :50], np.concatenate([truth[:, 53:], truth[:, 50:53]], axis=1))
    other = (partner[:, :50], np.concatenate([partner[:, 53:], partner[:, 50:53]], axis=1))
    figures |= {key: float(value) for key, value in compute_metrics(motion, *split, *other).items()}
    return figures | {"power": [row.tolist() for row in reactions.power]}


def jaw_by_frame(model: Timar, items: Iterator[tuple[str, Item]], guidance: float | None) -> list[float]:
    """MSE of the jaw·10³ for each place in a turn, in reactive mode without seams."""
    frames, errors = model.config.turn_frames, []
    for _, item in items:
        options = PipelineOptions(guidance=guidance, seams=False)
        motion = generate(model, options, item["user_speech"], item["agent_speech"], item["user_motion"])
        count = min(len(motion), len(item["agent_motion"])) // frames * frames
        error = np.square(motion[frames:count, JAW] - item["agent_motion"][frames:count, JAW]).mean(1)
        errors.append(error.reshape(-1, frames))
    return [float(each) * 1e3 for each in np.concatenate(errors).mean(0)]


def row(name: str, delay: float, figures: list[dict[str, Any]]) -> str:
    """A line of the table."""
    values = defaultdict(list)
    for each in figures:
        for key, value in each.items():
            if key != "power":
                values[key].append(value)
    mean = {key: float(np.nanmean(of_key)) for key, of_key in values.items()}
    reactions = Reactions([np.asarray(power) for each in figures for power in each["power"]])
    return (
        f"{name:40s} {len(figures)} runs, {len(reactions.power)} phrase ends, delay {delay:.2f} "
        f"lips {mean['jaw_follows']:.2f} nods {mean['nod_ratio']:.2f} "
        f"peak {reactions.peak:.1f} strength {reactions.strength:.1f} seams {mean['seam_ratio']:.2f} "
        f"step/sd head {mean['step_head']:.3f} jaw {mean['step_jaw']:.2f} spread {mean['head_spread']:.2f} "
        f"FD {mean['fid_exp']:.2f} {mean['fid_jaw'] * 1e3:.2f} {mean['fid_pose'] * 1e2:.2f} "
        f"MSE {mean['mse_exp'] * 10:.2f} {mean['mse_jaw'] * 1e3:.2f} {mean['mse_pose'] * 1e2:.2f}"
    )


def main() -> None:
    """Measure the conversations that the store lacks, then print the table of the store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--splits", nargs="+", default=["test", "ood"])
    parser.add_argument("--conversations", type=int, default=40)
    parser.add_argument("--model", default="timar-mini")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--hops", type=float, nargs="+", default=[0.2])
    parser.add_argument("--looks", type=float, nargs="+", default=[0.0, 0.2, 0.4, 1.0])
    parser.add_argument("--policies", nargs="+", default=["stepped"], choices=["sliding", "stepped"])
    parser.add_argument("--guidance", type=float, help="default: the mode's own")
    parser.add_argument("--by-frame", action="store_true", help="the jaw's MSE by the frame's place in its turn")
    parser.add_argument("--store", type=Path, help="file of finished conversations, one JSON line each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no conversation after this time")
    args = parser.parse_args()
    model = resolve_model(args.model, threads=1)
    if args.by_frame:
        items = conversations(args.folder, args.splits, args.conversations)
        print(*(f"{each:.2f}" for each in jaw_by_frame(model, items, args.guidance)))
        return
    rows = make_settings(args.hops, args.looks, args.policies)
    results: dict[tuple[str, str, int, str], dict[str, Any]] = {}
    if args.store is not None and args.store.exists():
        for line in args.store.read_text(encoding="utf-8").splitlines():
            key, figures = json.loads(line)
            results[tuple(key)] = figures
    ends, truths = time.monotonic() + 60 * args.minutes, Reactions([])
    for place, (item_name, item) in enumerate(conversations(args.folder, args.splits, args.conversations)):
        truths.add(item["agent_motion"], 0.0, item["user_speech"], item["agent_speech"])
        for (name, setting), seed in itertools.product(rows.items(), range(args.seeds)):
            key = (name, item_name, seed, f"{model.sha256[:12]} {args.guidance}")
            if key in results or time.monotonic() > ends:
                continue
            # Noise of its own for every conversation: conversations with the same noise share its luck.
            results[key] = measured(model, item, setting, 1000 * seed + place, args.guidance)
            if args.store is not None:
                with args.store.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, results[key]]) + "\n")
    print(f"{args.folder}, {model.name}, {args.seeds} seeds")
    print(f"{TRUTH:40s} {len(truths.power)} phrase ends, peak {truths.peak:.1f} strength {truths.strength:.1f}")
    for name, (_, _, delay) in rows.items():
        figures = [each for key, each in results.items() if key[0] == name and key[3].startswith(model.sha256[:12])]
        if figures:
            print(row(name, delay, figures))


if __name__ == "__main__":
    main()
