"""One command in several processes, as torchrun and accelerate launch start them."""

from __future__ import annotations

import os


def process_index() -> int:
    """Which of the command's processes this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """How many processes the command has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def without_gpu() -> bool:
    """Whether Accelerate has to be told ``cpu=True``.

    Without a GPU and untold it takes processes that were started together for so many that have nothing to do with
    each other.
    """
    import torch

    return process_count() > 1 and not torch.cuda.is_available()
