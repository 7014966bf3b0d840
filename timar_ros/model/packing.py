"""Copies of modules for inference on a processor, their weights laid out once as its matrix kernels want them.

A turn has few rows, so a matrix product spends much of its time on bringing the weights into blocks. Done once, that
makes products a tenth to a fifth (bf16) or a third to a half (fp32) faster; int8 weights and activations make them
faster still and less exact (docs/performance.md).
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
_QUANTISED = ("encoder_blocks.", "speech_encoder.encoder.layers.")  # nearly all of the work; the rest stays exact


class PackedLinear(nn.Module):
    """A linear layer with its weight in oneDNN's own layout; for inference on the processor alone.

    :ivar activation: ``none`` or ``gelu`` (exact), applied in the same kernel.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _ROWS)
        self.bias = None if bias is None else bias.detach()
        self.activation = "none"

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., in]`` to ``[..., out]``."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, self.activation, [], "none")
        return out


class Int8Linear(nn.Module):
    """A linear layer in int8: weights scaled by output channel, activations by row as they come (symmetric both)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach().float()
        self.scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        quantised = (weight / self.scales.unsqueeze(1)).round().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(quantised, [_ROWS, weight.shape[1]])
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., in]`` to ``[..., out]`` of the same type."""
        scale = x.abs().amax(dim=-1, keepdim=True).float().clamp_(min=1e-12) / 127
        # oneDNN multiplies bytes without sign by bytes with sign: 128 is the zero point, and the half makes cutting off
        # the decimals rounding.
        shifted = (x * (1 / scale)).add_(128.5).to(torch.uint8).flatten(0, -2)
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            shifted, 1.0, 128, self.packed, self.scales, self.zeros, None, 1.0, 0, x.dtype, "none", [], ""
        )
        out, scale = out.view(*x.shape[:-1], -1), scale.to(x.dtype)
        return out * scale if self.bias is None else torch.addcmul(self.bias, out, scale)


class PackedConvolutions(nn.Module):
    """A speech encoder's convolutions, each with a LayerNorm over channels, as packed products of overlapping windows.

    Frames come before channels throughout, so that nothing has to be transposed for the norms.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.windows: list[tuple[int, int]] = []
        for conv, norm, activation in _normed_convolutions(extractor):
            weight = conv.weight.detach().transpose(1, 2).flatten(1)
            self.layers.append(nn.Sequential(PackedLinear(weight, conv.bias), norm, activation))
            self.windows.append((weight.shape[1], conv.stride[0] * conv.in_channels))

    def forward(self, speech: Tensor) -> Tensor:
        """Samples ``[B, N]`` to features ``[B, channels, frames]``."""
        x = speech.unsqueeze(-1)
        for layer, (size, step) in zip(self.layers, self.windows, strict=True):
            x = layer(x.flatten(1).unfold(1, size, step).contiguous())
        return x.transpose(1, 2)


def packed(model: AnyModule, int8: bool = False) -> AnyModule:
    """A copy for inference: linear layers packed, weight norms multiplied out, all other weights shared.

    The copy does not follow later changes of the packed weights. Packing it again costs nothing.

    :param int8: quantise the transformer blocks of the model and of its speech encoder.
    """
    made = _packed(model, "", int8)
    assert isinstance(made, type(model))
    return made


def _packed(module: nn.Module, name: str, int8: bool) -> nn.Module:
    if type(module) is nn.Linear:
        if int8 and name.startswith(_QUANTISED) and can_pack(torch.int8):
            return Int8Linear(module.weight, module.bias)
        return PackedLinear(module.weight, module.bias) if can_pack(module.weight.dtype) else module
    if isinstance(module, nn.Conv1d) and nn.utils.parametrize.is_parametrized(module):
        return _plain_convolution(module)
    if _normed_convolutions(module) and can_pack(next(module.parameters()).dtype):
        return PackedConvolutions(module)
    clone = copy.copy(module)
    clone._modules = {
        key: None if child is None else _packed(child, f"{name}{key}.", int8) for key, child in module._modules.items()
    }
    first = clone._modules.get("fc1")
    if isinstance(clone, FeedForward) and isinstance(first, PackedLinear):
        first.activation, clone.act = "gelu", nn.Identity()
    return clone


def _normed_convolutions(module: nn.Module) -> list[tuple[nn.Conv1d, nn.LayerNorm, nn.Module]]:
    """The layers of a speech encoder's feature extractor, when each is a plain convolution with a LayerNorm."""
    found = []
    layers = module._modules.get("conv_layers")
    for layer in layers if isinstance(layers, nn.ModuleList) else ():
        conv, norm, activation = (layer._modules.get(key) for key in ("conv", "layer_norm", "activation"))
        if not isinstance(conv, nn.Conv1d) or not isinstance(norm, nn.LayerNorm) or activation is None:
            return []
        found.append((conv, norm, activation))
    return found


def _plain_convolution(conv: nn.Conv1d) -> nn.Conv1d:
    """The same convolution with its weight multiplied out (torch's own removal would change the original's class)."""
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
    plain.weight = nn.Parameter(conv.weight.detach(), requires_grad=False)
    plain.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach(), requires_grad=False)
    return plain.eval()


def is_packed(module: nn.Module) -> bool:
    """Whether a module is such a copy, whose weights can be neither trained nor saved."""
    return any(isinstance(each, PackedLinear | Int8Linear) for each in module.modules())


@functools.cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch and this processor have packed products for the type, and they are right."""
    layers = {torch.float32: PackedLinear, torch.bfloat16: PackedLinear, torch.int8: Int8Linear}
    if dtype not in layers:
        return False
    work = torch.bfloat16 if dtype == torch.int8 else dtype
    with torch.inference_mode():
        weight = torch.linspace(-1, 1, 16 * 32).view(16, 32).to(work)
        bias, x = torch.linspace(-1, 1, 16).to(work), torch.linspace(-1, 1, 96).view(3, 32).to(work)
        try:
            got = layers[dtype](weight, bias)(x)
        except (RuntimeError, AttributeError, NotImplementedError):
            return False
        return torch.allclose(got, nn.functional.linear(x, weight, bias), atol=1e-5 if work == torch.float32 else 0.15)
