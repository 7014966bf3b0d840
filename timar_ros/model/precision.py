"""Which device and which floating-point type to compute in."""

from __future__ import annotations

import time

import torch
from torch import nn

from timar_ros.errors import UserError
from timar_ros.model.attention import Block
from timar_ros.model.config import TimarConfig
from timar_ros.model.packing import PackedBlock, PackedLinear, can_pack

INT8 = "int8"
"""Name of the fastest and least exact number type for inference on a CPU."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str | torch.device) -> torch.device:
    """A torch device by name; ``auto`` takes CUDA if there is a GPU.

    :raises UserError: when there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"unknown device '{device}': use cpu, cuda, cuda:N or auto") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{device}': this PyTorch sees no CUDA device; use device=cpu")
    if chosen.type == "cuda":  # convolutions in fp32 would keep ten bits of each factor (TF32) by default
        torch.backends.cudnn.allow_tf32 = False
    return chosen


def pick_dtype(dtype: str, device: torch.device, config: TimarConfig | None = None) -> torch.dtype:
    """A floating-point type by name; ``auto`` times fp32 and bf16 on the device and takes the faster.

    ``int8`` gives the type of the remaining parts when the blocks are quantised
    (:func:`timar_ros.model.packing.packed`).

    :raises UserError: on an unknown name, or when int8 is not available here.
    """
    if dtype == "auto":
        return faster_dtype(device, config or TimarConfig())
    if dtype == INT8:
        if device.type != "cpu" or not can_pack(torch.int8):
            raise UserError(
                "dtype int8 needs oneDNN and a processor whose int8 products do not saturate (VNNI or AMX): "
                "use bfloat16 or auto"
            )
        return torch.bfloat16 if can_pack(torch.bfloat16) else torch.float32
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype '{dtype}': use {', '.join(DTYPES)}, {INT8} or auto")
    return DTYPES[dtype]


@torch.inference_mode()
def faster_dtype(device: torch.device, config: TimarConfig, rounds: int = 5) -> torch.dtype:
    """bf16 when a turn's tokens pass a block of this width at least a fifth faster than in fp32, else fp32.

    Many CPUs emulate bf16 and are slower with it; a smaller gain is not worth the loss of exactness.
    """
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        block: nn.Module = Block(config.encoder_width, config.encoder_heads, config.mlp_ratio, 0.0, 0.0)
        block = block.to(device, dtype).eval()
        if device.type == "cpu" and can_pack(dtype):
            block = PackedBlock(block, PackedLinear)
        x = torch.randn(1, config.turn_tokens, config.encoder_width, device=device, dtype=dtype)
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            block(x, None)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        best[dtype] = min(times)
    return torch.bfloat16 if best[torch.bfloat16] * 1.2 < best[torch.float32] else torch.float32
