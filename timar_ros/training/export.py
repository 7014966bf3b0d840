"""A finished run as a model to ship: half-precision weights, the run's configuration and its log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from timar_ros.errors import UserError
from timar_ros.files import atomic_path
from timar_ros.motion import JAW, MOTION_SIZE


def export_model(run: str | Path, folder: str | Path, skip: frozenset[str] = frozenset()) -> None:
    """Write ``config.json``, ``model.safetensors`` (fp16; computed in fp32) and ``training_log.csv`` of a run.

    The export does the steps that the run's configuration wants after training: ``match_spread``, which still needs the
    training data (``skip``: its conversations to leave out), then ``calm_jaw``. It also trains a voice gate.

    For a run that started from another model, the export also keeps how that model was trained (``training.start``,
    ``training_log_start.csv``).

    :raises UserError: the run has no model yet, or its data cannot be read.
    """
    from timar_ros.baselines.dualtalk_checkpoint import is_dualtalk, load_dualtalk, save_dualtalk
    from timar_ros.model import load_timar, save_timar
    from timar_ros.training.run_config import config_from_dict
    from timar_ros.training.spread import match_spread
    from timar_ros.training.voice_gate import fit_voice_gate

    run, folder = Path(run), Path(folder)
    described = run / "model" / "config.json"
    if not described.exists():
        raise UserError(f"{run}: has no model yet; train first")
    notes = json.loads(described.read_text(encoding="utf-8"))
    kept = {"training": dict(notes["training"])}
    start = kept["training"]["config"].get("start")
    log = Path(start or run) / "training_log.csv"
    earlier = log.read_bytes() if start and log.exists() else None  # read first: this may be the output folder
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
        if model.config.voice_gate:
            kept["training"]["voice_gate"] = fit_voice_gate(model, config, skip)
        save_timar(model, folder, name=notes["name"], dtype="float16", **kept)
    with atomic_path(folder / "training_log.csv") as temporary:
        shutil.copyfile(run / "log.csv", temporary)
    if earlier is not None:
        with atomic_path(folder / "training_log_start.csv") as temporary:
            temporary.write_bytes(earlier)
