"""A DualTalk baseline on disk: config.json and model.safetensors, as in TIMAR's folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from timar_ros.baselines.dualtalk import DualTalk, DualTalkConfig
from timar_ros.errors import UserError
from timar_ros.files.reading import first_line
from timar_ros.model.checkpoint import folder_format, write_folder

FORMAT = "timar_ros dualtalk 1"


def save_dualtalk(model: DualTalk, folder: str | Path, *, name: str, dtype: str | None = None, **notes: Any) -> None:
    """Write a model's folder, each file by rename; ``dtype`` ("float16") is the weights' stored type."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = torch.float16 if dtype == "float16" else torch.float32
    state = {key: value.detach().cpu().to(stored).contiguous() for key, value in model.state_dict().items()}
    description = {
        "format": FORMAT,
        "name": name,
        "trained": True,
        "model": model.config.to_dict(),
        "speech": model.speech_config,
        **notes,
    }
    write_folder(folder, state, description)


def is_dualtalk(folder: str | Path) -> bool:
    """Whether a folder holds a DualTalk baseline."""
    return folder_format(folder) == FORMAT


def load_dualtalk(folder: str | Path) -> DualTalk:
    """Load a folder that :func:`save_dualtalk` wrote, in fp32 on the CPU, ready for inference.

    :raises UserError: unreadable, or weights that do not fit the configuration.
    """
    folder = Path(folder)
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = DualTalk(DualTalkConfig.from_dict(values["model"]), values["speech"])
        model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: no readable DualTalk model ({first_line(error)})") from error
    return model.eval()
