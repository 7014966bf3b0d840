"""Make conversations, train timar-mini on them and export it, within a time limit, on a machine with a GPU.

    python scripts/train_mini.py --out DIR --seconds 400 [--conversations 1000] [--start models/timar-mini] ...

The script writes to DIR ``model/`` (the model to ship, updated regularly), ``run/`` (checkpoints and log), ``synth/``
(the conversations) and ``times.json``. Another call with the same folders resumes the run. The package need not be
installed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def _arrays(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch as arrays; see :func:`timar_ros.training.dataset.collate`."""
    from timar_ros.training.dataset import collate

    return {key: value if isinstance(value, list) else value.numpy() for key, value in collate(samples).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run and of the model")
    parser.add_argument("--seconds", type=float, required=True, help="time limit, with the export")
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder of the conversations (default: OUT/synth)")
    parser.add_argument("--run", type=Path, help="folder of checkpoints and log (default: OUT/run)")
    parser.add_argument("--config", default="config/train/timar_mini.yaml")
    parser.add_argument("--start", help="folder of a model to start from")
    parser.add_argument("--batch", type=int, default=48, help="clips per step")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes that make data")
    parser.add_argument("--export-every", type=float, default=60.0, help="seconds between exports")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="value of the configuration")
    args = parser.parse_args()
    started = time.monotonic()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    log = logging.getLogger("train_mini")

    import torch

    from timar_ros.synth.conversations import make_folder
    from timar_ros.training import trainer as training
    from timar_ros.training.export import export_model
    from timar_ros.training.model_building import save_model
    from timar_ros.training.run_config import load_config
    from timar_ros.training.run_state import newest_state

    args.out.mkdir(parents=True, exist_ok=True)
    times: dict[str, float] = {}

    def note(name: str) -> None:
        times[name] = round(time.monotonic() - started, 1)
        log.info("%s after %.1f s", name, times[name])
        (args.out / "times.json").write_text(json.dumps(times) + "\n")

    data = args.data or args.out / "synth"
    note("imported")
    count = make_folder(data, args.conversations, args.seed, jobs=args.jobs)
    note(f"{count} conversations made")
    torch.set_float32_matmul_precision("high")
    config = load_config(args.config, [*args.set, "optimiser.steps=null", "optimiser.epochs=null",
                                       f"optimiser.seconds={args.seconds}"])  # fmt: skip
    run = args.run or args.out / "run"
    # The rest of the time, less a reserve for the export.
    reserve = 40.0 if args.seconds > 120 else 0.2 * args.seconds
    left = max(5.0, args.seconds - (time.monotonic() - started) - reserve)
    config = replace(
        config,
        start=args.start,
        data=replace(config.data, path=str(data), workers=args.jobs, validation_clips=16),
        optimiser=replace(
            config.optimiser,
            seconds=left,
            batch_size=args.batch,
            micro_batch=None,
            learning_rate=args.rate,
            ema=0.999,
        ),
        run=replace(config.run, folder=str(run), checkpoint_every=10**9, validate_every=1000, log_every=25, keep=1),
    )
    if shutil.disk_usage("/dev/shm").free < 8 << 30:  # noqa: S108
        # Tensors travel from worker to trainer in shared memory, arrays through pipes.
        log.info("little shared memory: batches go through pipes")
        training.collate = _arrays  # type: ignore[assignment]
    trainer = training.Trainer(config, resume=newest_state(run) is not None)
    note("trainer built")
    reported = exported = time.monotonic()

    def report(step: int, _: int, metrics: dict[str, float]) -> None:
        nonlocal reported, exported
        now = time.monotonic()
        if now - reported >= 10 or step in (1, 20):
            reported = now
            log.info("step %d, %.0f s: %s", step, trainer.spent, ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
        if now - exported >= args.export_every:
            exported = now
            trainer.save()
            with trainer.average.applied(trainer.model):
                save_model(trainer.model, args.out / "model", config, "float16", step=step)

    metrics = trainer.fit(report)
    note(f"{trainer.step} steps trained")
    torch.set_num_threads(os.cpu_count() or 1)
    export_model(run, args.out / "model")
    note("exported")
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
