"""Copies of modules for inference on a CPU, with weights packed once in the layout of its matrix kernels.

A turn has few rows, so a matrix product spends much of its time packing the weights into blocks. Packing once makes
products a tenth to a fifth (bf16) or a third to a half (fp32) faster; int8 weights and activations make products faster
still and less exact (docs/performance.md).
"""

from __future__ import annotations

import copy
import functools
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from timar_ros.model.attention import Block, attend
from timar_ros.model.joint import JointHead

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_ROWS = 110  # the row count that the layout is chosen for; every other count works
# Layers and encoders of transformers that PackedBlock and PackedSpeechEncoder can replace.
_PRENORM_LAYERS = ("Wav2Vec2EncoderLayerStableLayerNorm", "HubertEncoderLayerStableLayerNorm")
_READS_WEIGHTS = ("WavLMAttention",)  # reads its layers' weights directly: not packed
_PRENORM_ENCODERS = ("Wav2Vec2EncoderStableLayerNorm", "HubertEncoderStableLayerNorm")


class PackedLinear(nn.Module):
    """A linear layer with its weight in oneDNN's own layout; for inference on the processor alone.

    :param activation: ``none`` or ``gelu`` (exact), applied in the same kernel.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _ROWS)
        self.bias = None if bias is None else bias.detach()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., in]`` to ``[..., out]``."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, self.activation, [], "none")
        return out


class Int8Linear(nn.Module):
    """A linear layer in int8: weights scaled by output channel, activations by row at run time (both symmetric)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        super().__init__()
        weight = weight.detach().float()
        self.activation = activation
        self.scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        quantised = (weight / self.scales.unsqueeze(1)).round().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(quantised, [_ROWS, weight.shape[1]])
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., in]`` to ``[..., out]`` of the same type."""
        scale = x.abs().amax(dim=-1, keepdim=True).float().clamp_(min=1e-12) / 127
        # oneDNN multiplies unsigned by signed bytes: 128 is the zero point, and adding a half makes truncation
        # rounding.
        shifted = (x * (1 / scale)).add_(128.5).to(torch.uint8).flatten(0, -2)
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            shifted, 1.0, 128, self.packed, self.scales, self.zeros, None, 1.0, 0, x.dtype, "none", [], ""
        )
        out, scale = out.view(*x.shape[:-1], -1), scale.to(x.dtype)
        out = out * scale if self.bias is None else torch.addcmul(self.bias, out, scale)
        return nn.functional.gelu(out) if self.activation == "gelu" else out


class PackedBlock(nn.Module):
    """A pre-norm transformer block, TIMAR's or a speech encoder's, with one product for queries, keys and values.

    :param block: TIMAR's, or a layer of a speech encoder that :func:`_is_prenorm_layer` knows.
    :param linear: the class that replaces linear layers.
    """

    def __init__(self, block: nn.Module, linear: type[PackedLinear | Int8Linear]) -> None:
        super().__init__()
        each: Any = block
        if isinstance(block, Block):
            qkv, self.heads, proj = block.attn.qkv, block.attn.heads, block.attn.proj
            self.norm1, self.norm2, fc1, fc2 = block.norm1, block.norm2, block.mlp.fc1, block.mlp.fc2
            self.qkv = linear(qkv.weight, qkv.bias)
        else:
            parts = [getattr(each.attention, name) for name in ("q_proj", "k_proj", "v_proj")]
            self.qkv = linear(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
            self.heads, proj = each.attention.num_heads, each.attention.out_proj
            self.norm1, self.norm2 = each.layer_norm, each.final_layer_norm
            fc1, fc2 = each.feed_forward.intermediate_dense, each.feed_forward.output_dense
        self.proj = linear(proj.weight, proj.bias)
        self.fc1 = linear(fc1.weight, fc1.bias, "gelu")
        self.fc2 = linear(fc2.weight, fc2.bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`timar_ros.model.attention.Block.project`."""
        fused: Tensor = self.qkv(self.norm1(x))
        q, k, v = fused.view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """As :meth:`timar_ros.model.attention.Block.finish`."""
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.fc2(self.fc1(self.norm2(x)))
        return out

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x [B, T, width]`` to the same shape; ``mask`` is boolean, True where the query may see the key."""
        q, k, v = self.project(x)
        if mask is None:
            return self.finish(x, attend(q, k, v))
        return self.finish(x, nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))


class PackedPositions(nn.Module):
    """A speech encoder's positional convolution as one product per group of channels, with only the taps that matter.

    A turn has fewer frames (25) than the kernel has taps (128): most taps only see the padding.
    """

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        each: Any = embedding
        conv = each.conv
        outs = conv.out_channels // conv.groups
        weight = conv.weight.detach().view(conv.groups, outs, -1, conv.kernel_size[0])
        self.weight = weight.permute(0, 3, 2, 1).contiguous()  # [groups, taps, in, out]
        self.bias = conv.bias.detach().view(conv.groups, 1, outs)
        self.before = int(conv.padding[0])
        self.activation = each.activation

    def forward(self, x: Tensor) -> Tensor:
        """``[B, F, width]`` to the same shape."""
        batch, frames, width = x.shape
        groups, taps = self.weight.shape[:2]
        first, end = max(0, self.before - frames + 1), min(taps, self.before + frames)
        padded = nn.functional.pad(x, (0, 0, self.before - first, end - 1 - self.before))
        windows = padded.view(batch, -1, groups, width // groups).unfold(1, end - first, 1)
        windows = windows.permute(2, 0, 1, 4, 3).reshape(groups, batch * frames, -1)
        out = torch.baddbmm(self.bias, windows, self.weight[:, first:end].flatten(1, 2))
        activated: Tensor = self.activation(out.transpose(0, 1).reshape(x.shape))
        return activated


class PackedSpeechEncoder(nn.Module):
    """The transformer of a speech encoder with pre-norm layers: position, blocks, norm."""

    def __init__(self, position: PackedPositions, blocks: list[PackedBlock], norm: nn.Module) -> None:
        super().__init__()
        self.pos_conv_embed = position
        self.layers = nn.ModuleList(blocks)
        self.layer_norm = norm

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """``[B, F, width]`` to the last hidden states of the same shape, as a tuple of one."""
        x = x + self.pos_conv_embed(x)
        for block in self.layers:
            x = block(x)
        return (self.layer_norm(x),)


class PackedConvolutions(nn.Module):
    """A speech encoder's convolutions, each with a LayerNorm over channels, as packed products of overlapping windows.

    Frames come before channels throughout, so that the norms need no transpose.
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

    The copy does not follow later changes of the packed weights. Packing a packed copy costs nothing.

    :param int8: quantise the transformer blocks of the model and of its speech encoder.
    """
    copy = _packed(model, int8)
    assert isinstance(copy, type(model))
    return copy


def _packed(module: nn.Module, int8: bool) -> nn.Module:
    if type(module).__name__ in _READS_WEIGHTS or isinstance(module, JointHead):
        return module  # a joint head's products have one row or two, which packing makes slower
    if _has_positions(module):
        return PackedPositions(module)
    dtype = next((p.dtype for p in module.parameters()), None)
    if dtype is not None and can_pack(dtype):
        if type(module) is nn.Linear:
            return PackedLinear(module.weight, module.bias)
        if _normed_convolutions(module):
            return PackedConvolutions(module)
        if isinstance(module, Block) or _is_prenorm_layer(module):
            return PackedBlock(module, Int8Linear if int8 and can_pack(torch.int8) else PackedLinear)
    clone = copy.copy(module)
    clone._modules = {key: None if child is None else _packed(child, int8) for key, child in module._modules.items()}
    if type(module).__name__ in _PRENORM_ENCODERS:
        encoder: Any = clone
        blocks = [layer for layer in encoder.layers if isinstance(layer, PackedBlock)]
        if len(blocks) == len(encoder.layers) and isinstance(encoder.pos_conv_embed, PackedPositions):
            return PackedSpeechEncoder(encoder.pos_conv_embed, blocks, encoder.layer_norm)
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


def _has_positions(module: nn.Module) -> bool:
    """Whether a module is a speech encoder's positional convolution that PackedPositions supports."""
    if not type(module).__name__.endswith("PositionalConvEmbedding") or module._modules.get("batch_norm") is not None:
        return False
    conv = module._modules.get("conv")
    return isinstance(conv, nn.Conv1d) and conv.bias is not None and conv.stride == conv.dilation == (1,)


def _is_prenorm_layer(module: nn.Module) -> bool:
    """Whether a module is a speech encoder's layer with the same computation as a TIMAR block."""
    if type(module).__name__ not in _PRENORM_LAYERS or module._modules.get("adapter_layer") is not None:
        return False
    feed_forward: Any = module.feed_forward
    activation = feed_forward.intermediate_act_fn
    return (
        type(activation).__name__ in ("GELU", "GELUActivation") and getattr(activation, "approximate", "none") == "none"
    )


def is_packed(module: nn.Module) -> bool:
    """Whether a module is a packed copy, whose weights can be neither trained nor saved."""
    return any(isinstance(each, PackedLinear | Int8Linear) for each in module.modules())


@functools.cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch and this processor have correct packed products for the type."""
    layers = {torch.float32: PackedLinear, torch.bfloat16: PackedLinear, torch.int8: Int8Linear}
    if dtype not in layers:
        return False
    # Int8 products work with either type. Their error is that of rounding; saturation causes a tenth or more.
    works = [torch.float32, torch.bfloat16] if dtype == torch.int8 else [dtype]
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    with torch.inference_mode():
        for work in works:
            noise = torch.Generator().manual_seed(0)
            weight, x = (torch.randn(n, 32, generator=noise).to(work) for n in (64, 48))
            # Equal signs at full scale: a CPU without VNNI adds two int8 products in 16 bits and saturates.
            for w, y in ((weight, x), (weight.abs(), x.abs()), (torch.ones_like(weight), torch.ones_like(x))):
                bias = torch.linspace(-1, 1, len(w)).to(work)
                try:
                    output = layers[dtype](w, bias)(y).float()
                except (RuntimeError, AttributeError, NotImplementedError):
                    return False
                exact = nn.functional.linear(y.float(), w.float(), bias.float())
                if not torch.linalg.norm(output - exact) <= tolerance * torch.linalg.norm(exact):
                    return False
    return True
