"""A run's state on disk, complete enough to continue bit for bit, in safetensors and JSON (no pickles)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from timar_ros.errors import UserError
from timar_ros.model.checkpoint import save_tensors

PREFIX = "step-"


class Average:
    """Exponential moving average of a model's trained parameters alone."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take the parameters after ``step`` optimiser steps; early on the average is short, to forget the start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(model.named_parameters())
        names = list(self.values)
        torch._foreach_lerp_([self.values[n] for n in names], [parameters[n].detach() for n in names], 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block the model has the average's parameters."""
        parameters = {name: p for name, p in model.named_parameters() if name in self.values}
        kept = {name: p.detach().clone() for name, p in parameters.items()}
        with torch.no_grad():
            for name, value in self.values.items():
                parameters[name].copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    parameters[name].copy_(value)


def save_state(
    run: Path,
    step: int,
    model: nn.Module,
    average: Average,
    optimiser: torch.optim.Optimizer,
    notes: dict[str, Any],
    keep: int,
) -> Path:
    """Write ``step-NNNNNNN/`` (by rename, so it is never partial) and remove all but the last ``keep``."""
    names, stored = {p: name for name, p in model.named_parameters()}, _stored(model)
    state: dict[str, Tensor] = {f"model.{k}": v for k, v in model.state_dict().items() if k in stored}
    state |= {f"average.{k}": v for k, v in average.values.items()}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            for key, value in optimiser.state.get(parameter, {}).items():
                state[f"optimiser.{key}.{names[parameter]}"] = torch.as_tensor(value)
    folder = run / f"{PREFIX}{step:07d}"
    part = run / f".{folder.name}.{os.getpid()}.part"
    part.mkdir(parents=True)
    save_tensors({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, part / "state.safetensors")
    (part / "state.json").write_text(json.dumps({"step": step, **notes}, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    part.replace(folder)
    for old in sorted(run.glob(f"{PREFIX}*"))[:-keep]:
        shutil.rmtree(old)
    return folder


def newest_state(run: Path) -> Path | None:
    """The last checkpoint's folder, or None."""
    found = sorted(run.glob(f"{PREFIX}*"))
    return found[-1] if found else None


def load_state(folder: Path, model: nn.Module, average: Average, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint's values in place; returns what state.json holds (``step`` and notes).

    :raises UserError: unreadable, or of another model.
    """
    try:
        state = load_file(folder / "state.safetensors")
        notes: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except Exception as error:
        raise UserError(
            f"{folder}: no readable checkpoint ({error}); remove the folder to continue from the one before"
        ) from error
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimiser": {}}
    for key, value in state.items():
        kind, _, name = key.partition(".")
        parts[kind][name] = value
    parameters = dict(model.named_parameters())
    expected = _stored(model)
    if set(parts["model"]) != expected or any(parts["model"][k].shape != model.state_dict()[k].shape for k in expected):
        raise UserError(f"{folder}: holds another model than the configuration describes; choose another run.folder")
    model.load_state_dict(parts["model"], strict=False)
    for name, value in average.values.items():
        value.copy_(parts["average"][name])
    for key, value in parts["optimiser"].items():
        kind, _, name = key.partition(".")
        parameter = parameters[name]
        # AdamW's step counter stays on the CPU, as torch keeps it.
        optimiser.state[parameter][kind] = value.clone() if kind == "step" else value.to(parameter.device)
    return notes


def _stored(model: nn.Module) -> set[str]:
    """Names of a checkpoint's tensors: buffers and trained parameters; frozen ones come from their own source."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return set(model.state_dict()) - frozen
