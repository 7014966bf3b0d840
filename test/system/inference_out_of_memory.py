"""Node `timar_inference` whose GPU has no memory left while a file exists: the error that torch raises, without a GPU.

python test/system/inference_out_of_memory.py FILE [arguments of the node]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from timar_ros.nodes import timar_inference
from timar_ros.streaming.pipeline import Pipeline

switch = Path(sys.argv.pop(1))
process = Pipeline.process


def fragile(pipeline: Pipeline, turns: Any) -> Any:
    """The pipeline's step, or the error."""
    if switch.exists():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    return process(pipeline, turns)


Pipeline.process = fragile  # type: ignore[method-assign]
sys.exit(timar_inference.main())
