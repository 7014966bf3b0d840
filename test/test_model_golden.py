"""The network and its training loss against golden values: every case lies beside the tests, uncut ones elsewhere."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from support.tiny_models import training_batch

from timar_ros.model import Timar, TimarConfig, load_timar
from timar_ros.streaming import Conversation
from timar_ros.training.objective import Objective

HERE = Path(__file__).parent / "golden"
CASES = tuple(json.loads((HERE / "cases.json").read_text())["cases"])
TRAINING_CASES = tuple(case for case in CASES if (HERE / f"{case}_training.safetensors").is_file())


def read_weights(root: Path, case: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The weights of a case. A case with a `trunk` is kept as what differs from that file's network."""
    weights = load_file(root / "weights" / f"{case['weights']}.safetensors")
    if "trunk" not in case:
        return weights
    trunk = load_file(root / "weights" / f"{case['trunk']}.safetensors")
    return {name: value for name, value in trunk.items() if not name.startswith("diffloss.")} | weights


def load(root: Path, case: dict[str, Any], speech: dict[str, Any]) -> Timar:
    source = (str(root / "weights" / f"{case['weights']}_speech.safetensors"), speech)
    with tempfile.TemporaryDirectory() as folder:
        save_file(read_weights(root, case), Path(folder, "weights.safetensors"))
        config = TimarConfig.from_authors(case["model"])
        return load_timar(f"{folder}/weights.safetensors", speech=source, config=config)


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


def test_every_case_is_here() -> None:
    assert set(CASES) == {
        "paper", "open_history", "short_context", "guidance", "temperature", "iterative", "bidirectional", "mlp_head",
        "encoder_decoder",
    }  # fmt: skip
    assert set(TRAINING_CASES) == {"paper", "bidirectional", "mlp_head", "encoder_decoder"}


@pytest.mark.parametrize("engine", ["oracle", "cached"])
@pytest.mark.parametrize("case", CASES)
def test_golden_cases(case: str, engine: str) -> None:
    assert max(errors(HERE, case, engine)) <= 1e-5


@pytest.mark.parametrize("engine", ["oracle", "cached"])
@pytest.mark.parametrize("case", CASES)
def test_golden_cases_uncut(shared: Path, case: str, engine: str) -> None:
    assert max(errors(shared / "golden", case, engine)) <= 1e-5


def test_values_here_are_a_part_of_the_developers(shared: Path) -> None:
    """`python scripts/cut_golden.py FOLDER` takes them from there."""
    root = shared / "golden"
    cases, whole = (json.loads((folder / "cases.json").read_text()) for folder in (HERE, root))
    cut = ("turns", "trunk")
    assert cases["speech"] == whole["speech"]
    for name, case in cases["cases"].items():
        assert {k: v for k, v in case.items() if k not in cut} == {
            k: v for k, v in whole["cases"][name].items() if k not in cut
        }
        ours, theirs = read_weights(HERE, case), read_weights(root, whole["cases"][name])
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    for path in (*HERE.glob("*.safetensors"), *HERE.glob("weights/*_speech.safetensors")):
        ours, theirs = load_file(path), load_file(root / path.relative_to(HERE))
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            kept = theirs[key]
            if path.stem.endswith("_training") and key == "conditioning":
                kept = kept[:, :: kept.shape[1] // value.shape[1]]
            assert np.array_equal(value, kept[: len(value)]), (path.name, key)


@pytest.mark.parametrize("case", TRAINING_CASES)
def test_training_losses(case: str) -> None:
    check_training(HERE, case)


@pytest.mark.parametrize("case", TRAINING_CASES)
def test_training_losses_uncut(shared: Path, case: str) -> None:
    check_training(shared / "golden", case)


def check_training(root: Path, case: str) -> None:
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
    conditioning, expected = each.conditioning.unflatten(0, (2, 200)).numpy(), golden["conditioning"]
    step = 200 // expected.shape[1]  # beside the tests lies every eighth frame
    np.testing.assert_allclose(conditioning[:, ::step], expected, rtol=0, atol=1e-5)
    if "mse" in golden:
        assert each.bound is not None
        np.testing.assert_allclose(each.mse.numpy(), golden["mse"], rtol=0, atol=1e-5)
        np.testing.assert_array_less(np.abs(each.bound.numpy() - golden["vb"]) / (1 + golden["vb"]), 1e-5)
