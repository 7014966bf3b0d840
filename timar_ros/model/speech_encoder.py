"""Speech tokens through a wav2vec 2.0, HuBERT or WavLM encoder of transformers (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from timar_ros.errors import UserError, require
from timar_ros.files.reading import first_line

DEFAULT_SPEECH = "facebook/wav2vec2-large-960h-lv60-self"
"""The encoder of the released model, by its hub name."""

FAMILIES = {
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2Model"),
    "hubert": ("HubertConfig", "HubertModel"),
    "wavlm": ("WavLMConfig", "WavLMModel"),
}

# A small encoder, trained from scratch with the `mini` model: a learned filter bank (25 ms every 10 ms), then 20 ms.
MINI_SPEECH: dict[str, Any] = {
    "model_type": "wav2vec2",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "conv_dim": [128, 128, 128],
    "conv_stride": [160, 2, 1],
    "conv_kernel": [400, 3, 3],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 8,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "vocab_size": 32,
    "layerdrop": 0.0,
}

# wav2vec2-large-960h-lv60-self, so that the full-size model can be built with random weights without a download.
LARGE_SPEECH: dict[str, Any] = {
    "model_type": "wav2vec2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}


def default_speech_config(width: int) -> dict[str, Any]:
    """The encoder's configuration for a model with random weights and this ``speech_width``.

    :raises UserError: when there is no encoder of that width.
    """
    for config in (MINI_SPEECH, LARGE_SPEECH):
        if config["hidden_size"] == width:
            return config
    raise UserError(f"no default speech encoder has width {width}: give speech=, a dict of Wav2Vec2Config arguments")


def build_speech_encoder(config: Mapping[str, Any]) -> nn.Module:
    """A speech encoder with random weights from its transformers configuration.

    :param config: arguments of Wav2Vec2Config, HubertConfig or WavLMConfig, by ``model_type`` (default wav2vec2).
    :raises UserError: on another ``model_type`` or on arguments that the configuration refuses.
    """
    values = dict(config)
    family = values.pop("model_type", "wav2vec2")
    if family not in FAMILIES:
        raise UserError(f"speech encoder of model_type '{family}' is not supported: use one of {', '.join(FAMILIES)}")
    transformers = require("transformers", "pip install 'transformers>=4.45'", "the speech encoder")
    config_name, model_name = FAMILIES[family]
    # Masking in time and features belongs to the encoder's pre-training; without masking it needs no
    # `masked_spec_embed`.
    values |= {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    try:
        encoder: nn.Module = getattr(transformers, model_name)(getattr(transformers, config_name)(**values))
    except Exception as error:  # newer versions of transformers raise kinds of their own for a value of the wrong type
        raise UserError(f"speech encoder configuration: {first_line(error)}") from error
    return encoder


def speech_encoder_config(encoder: nn.Module) -> dict[str, Any]:
    """The configuration with which :func:`build_speech_encoder` builds an encoder like this one (plain values)."""
    config: Any = encoder.config
    values: dict[str, Any] = config.to_diff_dict()
    values["model_type"] = config.model_type
    for name in ("transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path"):
        values.pop(name, None)
    return values


def encode(encoder: nn.Module, speech: Tensor, frames: int) -> Tensor:
    """Each row of ``speech [B, N]`` (already normalised samples of one turn) separately to ``[B, frames, width]``.

    Convolutions, then linear interpolation in time to the motion's frames (end points aligned), then the transformer.
    """
    parts: Any = encoder
    window = frame_window(parts.config, speech.shape[1], frames)
    if window is None:
        features = parts.feature_extractor(speech)
        features = F.interpolate(features, size=frames, mode="linear", align_corners=True).transpose(1, 2)
    else:
        windows = speech.unfold(1, *window)[:, :frames]
        features = parts.feature_extractor(windows.flatten(0, 1)).reshape(len(speech), frames, -1)
    projected = parts.feature_projection(features)
    if isinstance(projected, tuple):  # HuBERT returns the hidden states alone
        projected = projected[0]
    hidden: Tensor = parts.encoder(projected)[0]
    return hidden


def frame_window(config: Any, samples: int, frames: int) -> tuple[int, int] | None:
    """``(length, step)`` in samples of each motion frame's window in a turn, if only these windows need be computed.

    wav2vec 2.0 makes 49 frames a second. Interpolation to 25 takes every second frame unchanged, with a window of 400
    samples in every 640. None where frames fall between the encoder's, overlap, or are normalised over time.

    :param config: the encoder's, of transformers.
    """
    length, hop, count = 1, 1, samples
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        length, hop, count = length + (kernel - 1) * hop, hop * stride, (count - kernel) // stride + 1
    if config.feat_extract_norm != "layer" or frames < 2 or (count - 1) % (frames - 1):
        return None
    step = hop * (count - 1) // (frames - 1)
    return (length, step) if length <= step else None
