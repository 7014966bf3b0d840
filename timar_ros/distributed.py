"""One command in several processes, started by torchrun or accelerate launch."""

from __future__ import annotations

import os


def process_index() -> int:
    """This process's index among the command's processes, from 0."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """The number of the command's processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def without_gpu() -> bool:
    """Whether Accelerate needs ``cpu=True``.

    Without a GPU and without this argument, Accelerate treats processes that were started together as unrelated.
    """
    import torch

    return process_count() > 1 and not torch.cuda.is_available()
