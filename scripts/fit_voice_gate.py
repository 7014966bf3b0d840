"""Add a voice gate to a trained model, so that music and noise do not move its jaw; takes minutes on one core.

    python scripts/fit_voice_gate.py MODEL --data DIR [--out FOLDER] [--clips 600]

DIR is a data set of `timar synth`. All other weights stay unchanged.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import torch

from timar_ros.model import TimarConfig, create_timar, load_timar, save_timar
from timar_ros.training.run_config import config_from_dict
from timar_ros.training.voice_gate import CLIPS, fit_voice_gate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="folder of a trained model")
    parser.add_argument("--data", required=True, help="conversations to learn from")
    parser.add_argument("--out", type=Path, help="folder to write (default: the model's own)")
    parser.add_argument("--clips", type=int, default=CLIPS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    notes = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
    trained_model = load_timar(args.model)
    shape = TimarConfig.from_dict({**notes["model"], "voice_gate": True})
    model = create_timar(shape, notes["speech"], 0)
    model.load_state_dict(trained_model.state_dict(), strict=False)
    model.trained = trained_model.trained
    config = config_from_dict(notes["training"]["config"], str(args.model))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=args.data))
    metrics = fit_voice_gate(model, config, clips=args.clips)
    notes["training"]["voice_gate"] = {"clips": args.clips, **metrics}
    out = args.out or args.model
    save_timar(model, out, name=notes["name"], dtype="float16", training=notes["training"])
    if out != args.model:
        shutil.copy(args.model / "training_log.csv", out)
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
