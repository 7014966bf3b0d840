"""`timar train`: trains a model by a configuration file."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timar_ros.training.run_config import TrainConfig

SUMMARY = "train TIMAR, an ablation of it or the DualTalk baseline; several processes by accelerate launch or torchrun"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `timar train`."""
    parser.add_argument("config", metavar="CONFIG.yaml", help="recipe of the run, such as config/train/timar_mini.yaml")
    parser.add_argument("--resume", action="store_true", help="continue from the run folder's newest checkpoint")
    parser.add_argument("--folder", help="write the run here instead of the configuration's run.folder")
    parser.add_argument("--data", help="train on this folder instead of the configuration's data.path")
    parser.add_argument("--steps", type=int, metavar="N", help="number of steps, instead of the recipe's")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the configuration, such as --set optimiser.batch_size=4 (may be repeated)",
    )
    parser.add_argument(
        "--skip-broken", action="store_true", help="leave out broken conversations; else they are an error"
    )
    parser.add_argument(
        "--export", metavar="DIR", help="folder to write the final model to, in half precision, with the log"
    )
    parser.add_argument("--threads", type=int, help="CPU threads of each process (default: PyTorch's choice)")


def run(args: argparse.Namespace) -> int:
    """Check the data, train with a progress display, print the model's folder."""
    import logging

    import torch

    from timar_ros.console import progress, staged, stderr
    from timar_ros.errors import UserError
    from timar_ros.training.export import export_model
    from timar_ros.training.run_config import load_config
    from timar_ros.training.trainer import Trainer

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("timar_ros").setLevel(logging.INFO)
    if args.threads:
        torch.set_num_threads(args.threads)
    config = _overridden(load_config(args.config, args.set), args)
    with progress() as bar:
        report_stage = staged(bar)
        skip = _broken(config, functools.partial(report_stage, "checking the data"))
        trainer = Trainer(config, args.resume, skip, functools.partial(report_stage, "speech encoder, steps"))
    main = trainer.accelerator.is_main_process
    done = trainer.step >= trainer.total
    if done and not args.export:
        raise UserError(f"{config.run.folder}: already at step {trainer.step} of {trainer.total}; nothing to do")
    if not done:
        with progress() as bar:
            task = bar.add_task(config.name, total=trainer.total, completed=trainer.step, visible=main)

            def report(step: int, total: int, metrics: dict[str, float]) -> None:
                bar.update(task, total=total, completed=step, description=f"{config.name} loss {metrics['loss']:.3f}")

            metrics = trainer.fit(report)
    if main and args.export:
        export_model(trainer.run, args.export, skip)
    if main and not done:
        stderr.print(f"model: {trainer.run / 'model'}; " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
    return 0


def _broken(config: TrainConfig, progress: Callable[[int, int], None]) -> frozenset[str]:
    """Broken conversations to leave out; prints them.

    :raises UserError: when there are broken conversations, and the run must not skip them.
    """
    from timar_ros.console import stderr
    from timar_ros.data.data_check import check_folder
    from timar_ros.errors import UserError

    data = config.data
    splits = list(dict.fromkeys(split for split in (data.split, data.validation_split) if split))
    report = check_folder(data.path, splits, progress)
    names = frozenset().union(*(report.broken(split) for split in splits))
    if names and not data.skip_broken:
        raise UserError(
            f"{data.path}: {len(names)} broken conversation(s), the first: {report.faults[0]}; "
            "timar data check lists all, --skip-broken leaves them out"
        )
    if names:
        stderr.print(f"left out {len(names)} broken conversation(s): {', '.join(sorted(names)[:10])}")
    return names


def _overridden(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """The configuration with the command line's changes."""
    from dataclasses import replace

    if args.folder:
        config = replace(config, run=replace(config.run, folder=args.folder))
    if args.data:
        config = replace(config, data=replace(config.data, path=args.data))
    if args.steps:
        config = replace(config, optimiser=replace(config.optimiser, steps=args.steps, epochs=None))
    if args.skip_broken:
        config = replace(config, data=replace(config.data, skip_broken=True))
    return config
