"""Cut the golden values of the tests (test/golden) out of the developers' folder of golden values.

    python scripts/cut_golden.py FOLDER

The script computes nothing: every number is the developers' own, and `test_model_golden.py` compares both folders if
both exist. It leaves out turns that test nothing new, weights that another file contains already, and most of the
conditioning in training.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

TARGET = Path(__file__).resolve().parent.parent / "test" / "golden"
TURNS = {"paper": 10, "open_history": 10, "short_context": 6}
"""Number of turns to keep, so that the window of 8 (of 4) turns slides. The other cases change things within a turn."""
FEW_TURNS = 3
TRUNK, SAME_TRUNK = "default", "mlp_head"
"""These two weights files differ only in their heads; the second keeps only what is not in the first."""
CONDITIONING_STEP = 8
"""The script keeps every eighth frame of the conditioning in training, and the losses of all frames."""


def main() -> int:
    """Write test/golden."""
    source = Path(sys.argv[1])
    cases: dict[str, Any] = json.loads((source / "cases.json").read_text())
    (TARGET / "weights").mkdir(parents=True, exist_ok=True)
    trunk = load_file(source / "weights" / f"{TRUNK}.safetensors")
    for name in sorted({case["weights"] for case in cases["cases"].values()}):
        weights = load_file(source / "weights" / f"{name}.safetensors")
        if name == SAME_TRUNK:
            weights = {k: v for k, v in weights.items() if k not in trunk or not np.array_equal(v, trunk[k])}
        save_file(weights, TARGET / "weights" / f"{name}.safetensors")
        speech = f"weights/{name}_speech.safetensors"
        save_file(load_file(source / speech), TARGET / speech)
    save_file(load_file(source / "inputs.safetensors"), TARGET / "inputs.safetensors")
    for name, case in cases["cases"].items():
        if case["weights"] == SAME_TRUNK:
            case["trunk"] = TRUNK
        case["turns"] = TURNS.get(name, FEW_TURNS)
        values = load_file(source / f"{name}.safetensors")
        _save({k: v[: case["turns"]] for k, v in values.items()}, f"{name}.safetensors")
        training = source / f"{name}_training.safetensors"
        if training.is_file():
            values = load_file(training)
            values["conditioning"] = values["conditioning"][:, ::CONDITIONING_STEP]
            _save(values, training.name)
    for name in ("metrics.npz", "metrics.json"):
        shutil.copyfile(source / name, TARGET / name)
    (TARGET / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    return 0


def _save(values: dict[str, NDArray[Any]], name: str) -> None:
    save_file({k: np.ascontiguousarray(v) for k, v in values.items()}, TARGET / name)


if __name__ == "__main__":
    sys.exit(main())
