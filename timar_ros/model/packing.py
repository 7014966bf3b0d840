"""Copies of modules for inference on a processor, their weights laid out once as its matrix kernels want them.

A turn has few rows, so a matrix product spends much of its time on bringing the weights into blocks. Done once, that
makes products a tenth to a fifth (bf16) or a third to a half (fp32) faster (docs/performance.md).
"""

from __future__ import annotations

import copy
import functools
from typing import TypeVar

import torch
from torch import Tensor, nn

from timar_ros.model.attention import FeedForward

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_ROWS = 110  # the row count that the layout is chosen for; every other count works


class PackedLinear(nn.Module):
    """A linear layer with its weight in oneDNN's own layout; for inference on the processor alone.

    :ivar activation: ``none`` or ``gelu`` (exact), applied in the same kernel.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), _ROWS)
        self.activation = "none"
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., in]`` to ``[..., out]``."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, self.activation, [], "none")
        return out


def packed(model: AnyModule) -> AnyModule:
    """A copy for inference: linear layers packed, weight norms multiplied out, all other weights shared.

    The copy does not follow later changes of the packed weights. Packing it again costs nothing.
    """
    made = _packed(model)
    assert isinstance(made, type(model))
    return made


def _packed(module: nn.Module) -> nn.Module:
    if type(module) is nn.Linear and can_pack(module.weight.dtype):
        return PackedLinear(module)
    if isinstance(module, nn.Conv1d) and nn.utils.parametrize.is_parametrized(module):
        return _plain_convolution(module)
    clone = copy.copy(module)
    clone._modules = {name: None if child is None else _packed(child) for name, child in module._modules.items()}
    first = clone._modules.get("fc1")
    if isinstance(clone, FeedForward) and isinstance(first, PackedLinear):
        first.activation, clone.act = "gelu", nn.Identity()
    return clone


def _plain_convolution(conv: nn.Conv1d) -> nn.Conv1d:
    """The same convolution with its weight multiplied out (torch's own removal would change the original's class)."""
    weight = conv.weight.detach()
    with torch.device("meta"):
        plain = nn.Conv1d(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0],),
            stride=(conv.stride[0],),
            padding=(int(conv.padding[0]),),
            dilation=(conv.dilation[0],),
            groups=conv.groups,
            bias=conv.bias is not None,
        )
    plain.weight = nn.Parameter(weight, requires_grad=False)
    plain.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach(), requires_grad=False)
    return plain.eval()


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
