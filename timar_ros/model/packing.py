"""Copies of modules for inference on a processor, their weights laid out once as its matrix kernels want them.

A turn has few rows, so a matrix product spends much of its time on bringing the weights into blocks. Done once, that
makes products a tenth to a fifth (bf16) or a third to a half (fp32) faster (docs/performance.md).
"""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn

_ROWS = 110  # the row count that the layout is chosen for; every other count works


class PackedLinear(nn.Module):
    """A linear layer with its weight in oneDNN's own layout; for inference on the processor alone."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), _ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., in]`` to ``[..., out]``."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out


def packed(module: nn.Module) -> nn.Module:
    """A copy for inference: linear layers packed, weight norms multiplied out, all other weights shared.

    The copy does not follow later changes of the packed weights. Packing it again costs nothing.
    """
    if type(module) is nn.Linear and can_pack(module.weight.dtype):
        return PackedLinear(module)
    if isinstance(module, nn.Conv1d) and nn.utils.parametrize.is_parametrized(module):
        module = copy.deepcopy(module)
        nn.utils.parametrize.remove_parametrizations(module, "weight")
        return module.requires_grad_(False)
    clone = copy.copy(module)
    clone._modules = {name: None if child is None else packed(child) for name, child in module._modules.items()}
    return clone


def is_packed(module: nn.Module) -> bool:
    """Whether a module is such a copy, whose weights can be neither trained nor saved."""
    return any(isinstance(each, PackedLinear) for each in module.modules())


@functools.cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch and this processor have packed products for the type, and they are right."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    with torch.inference_mode():
        linear = nn.Linear(32, 16)
        for parameter in linear.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        linear, x = linear.to(dtype), torch.linspace(-1, 1, 96, dtype=dtype).view(3, 32)
        try:
            got = PackedLinear(linear)(x)
        except (RuntimeError, AttributeError, NotImplementedError):
            return False
        return torch.allclose(got, linear(x), atol=1e-5 if dtype == torch.float32 else 0.1)
