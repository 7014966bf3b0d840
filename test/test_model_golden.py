"""The network against golden vectors: a small part lies beside the tests, the rest is checked where it is at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_models import training_batch

from timar_ros.model import Timar, TimarConfig, load_timar
from timar_ros.streaming import Conversation
from timar_ros.training.objective import Objective

HERE = Path(__file__).parent / "golden"
CASES = (
    "paper", "open_history", "short_context", "guidance", "temperature", "iterative", "bidirectional", "mlp_head",
    "encoder_decoder",
)  # fmt: skip


def load(root: Path, case: dict[str, Any], speech: dict[str, Any]) -> Timar:
    weights = root / "weights" / case["weights"]
    source = (f"{weights}_speech.safetensors", speech)
    return load_timar(f"{weights}.safetensors", speech=source, config=TimarConfig.from_authors(case["model"]))


def errors(root: Path, name: str, engine: str) -> tuple[float, float]:
    """Largest absolute errors of motion and of conditioning over a case's turns."""
    cases = json.loads((root / "cases.json").read_text())
    case, inputs, golden = (
        cases["cases"][name],
        load_file(root / "inputs.safetensors"),
        load_file(root / f"{name}.safetensors"),
    )
    sampling = case["sampling"]
    talk = Conversation(
        load(root, case, cases["speech"]),
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
        if "noise_initial" in golden:
            noise = (golden["noise_initial"][turn].astype(np.float32), golden["noise_steps"][turn].astype(np.float32))
        speech = (inputs[key][turn].astype(np.float32) / 6000 for key in ("user_speech", "agent_speech"))
        motion = talk.step(*speech, inputs["user_motion"][turn], noise=noise)
        motion_error = max(motion_error, float(np.abs(motion - golden["motion"][turn]).max()))
        assert talk.conditioning is not None
        z_error = max(z_error, float(np.abs(talk.conditioning - golden["conditioning"][turn]).max()))
    return motion_error, z_error


@pytest.mark.parametrize("engine", ["oracle", "cached"])
def test_part_of_golden_that_is_here(engine: str) -> None:
    assert max(errors(HERE, "short_context", engine)) <= 1e-5


@pytest.mark.parametrize("engine", ["oracle", "cached"])
@pytest.mark.parametrize("case", CASES)
def test_all_golden_cases(shared: Path, case: str, engine: str) -> None:
    assert max(errors(shared / "golden", case, engine)) <= 1e-5


@pytest.mark.parametrize("case", ["paper", "bidirectional", "mlp_head", "encoder_decoder"])
def test_training_losses(shared: Path, case: str) -> None:
    root = shared / "golden"
    cases = json.loads((root / "cases.json").read_text())
    inputs, golden = load_file(root / "inputs.safetensors"), load_file(root / f"{case}_training.safetensors")
    model = load(root, cases["cases"][case], cases["speech"])
    user, agent = (
        torch.from_numpy(inputs[key][:8].astype(np.float32)).flatten() / 6000 for key in ("user_speech", "agent_speech")
    )
    motion = torch.from_numpy(inputs["user_motion"].astype(np.float32))
    first, second = motion[:8].flatten(0, 1), motion[2:10].flatten(0, 1)
    batch = training_batch(
        torch.stack((user, agent)),
        torch.stack((agent, user)),
        torch.stack((first, second)),
        torch.stack((second, first)),
        agent_mask=torch.from_numpy(golden["mask"]).bool(),
    )
    if "noise" in golden:
        batch["timesteps"] = torch.from_numpy(golden["timesteps"]).unflatten(0, (-1, 2, 200))
        batch["noise"] = torch.from_numpy(golden["noise"]).float().unflatten(0, (-1, 2, 200))
    objective = Objective(model)
    with torch.inference_mode():
        (total, _, count), each = objective(batch), objective.frame_losses(batch)
    assert abs(float(total / count) - float(golden["loss"][0])) <= 1e-5
    assert each.conditioning is not None
    conditioning = each.conditioning.unflatten(0, (2, 200)).numpy()
    np.testing.assert_allclose(conditioning, golden["conditioning"], rtol=0, atol=1e-5)
    if "mse" in golden:
        assert each.bound is not None
        np.testing.assert_allclose(each.mse.numpy(), golden["mse"], rtol=0, atol=1e-5)
        np.testing.assert_array_less(np.abs(each.bound.numpy() - golden["vb"]) / (1 + golden["vb"]), 1e-5)
