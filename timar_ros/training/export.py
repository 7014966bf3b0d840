"""A finished run as a model to ship: half-precision weights, the run's configuration and its log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from timar_ros.data.files import atomic_path
from timar_ros.errors import UserError
from timar_ros.motion import JAW, MOTION_SIZE


def export_model(run: str | Path, folder: str | Path, skip: frozenset[str] = frozenset()) -> None:
    """Write ``config.json``, ``model.safetensors`` (fp16; computed in fp32) and ``training_log.csv`` of a run.

    What the run's configuration asks for after training is done here: ``match_spread``, for which the training data
    must still be there (``skip``: its conversations to leave out), then ``calm_jaw``.

    Of a run that went on from another model, how that one was trained is kept too (``training.start``,
    ``training_log_start.csv``).

    :raises UserError: the run has no model yet, or its data cannot be read.
    """
    from timar_ros.baselines.checkpoint import is_dualtalk, load_dualtalk, save_dualtalk
    from timar_ros.model import load_timar, save_timar
    from timar_ros.training.config import config_from_dict
    from timar_ros.training.spread import match_spread

    run, folder = Path(run), Path(folder)
    described = run / "model" / "config.json"
    if not described.exists():
        raise UserError(f"{run}: has no model yet; train first")
    notes = json.loads(described.read_text(encoding="utf-8"))
    kept = {"training": dict(notes["training"])}
    start = kept["training"]["config"].get("start")
    log = Path(start or run) / "training_log.csv"
    earlier = log.read_bytes() if start and log.exists() else None  # read first: it may be the folder that is written
    if start and (Path(start) / "config.json").exists():
        before = json.loads((Path(start) / "config.json").read_text(encoding="utf-8"))
        kept["training"]["start"] = before.get("training")
    if is_dualtalk(run / "model"):
        save_dualtalk(load_dualtalk(run / "model"), folder, name=notes["name"], dtype="float16", **kept)
    else:
        model, config = load_timar(run / "model"), config_from_dict(notes["training"]["config"], str(described))
        if model.config.diffusion:
            if config.match_spread:
                match_spread(model, config, skip)
            with torch.no_grad():
                variance = model.diffloss.net.final_layer.linear.bias[MOTION_SIZE:]  # the second half of the outputs
                variance[JAW] -= config.calm_jaw
        save_timar(model, folder, name=notes["name"], dtype="float16", **kept)
    with atomic_path(folder / "training_log.csv") as temporary:
        shutil.copyfile(run / "log.csv", temporary)
    if earlier is not None:
        with atomic_path(folder / "training_log_start.csv") as temporary:
            temporary.write_bytes(earlier)
