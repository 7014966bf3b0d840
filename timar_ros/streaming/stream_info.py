"""The StreamInfo message of a running pipeline, and the options in a recorded message.

The message has a field for every option of :class:`timar_ros.streaming.PipelineOptions`, under the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from timar_ros.options import from_plain, options_of, to_plain
from timar_ros.streaming.sampling_options import PipelineOptions

if TYPE_CHECKING:
    from timar_ros.model import Timar


def info_of(model: Timar, options: PipelineOptions) -> dict[str, Any]:
    """Values of all fields but the header. Defaults of the model are resolved wherever one number can express them."""
    import torch

    config = model.config
    resolved = {
        "playback_delay": options.delay_ns(config.turn_seconds) / 1e9,
        "context_seconds": float(options.context_seconds or config.context_seconds),
        "context_policy": options.window_policy,
        "sampling_steps": options.sampling_steps or config.sampling_steps,
        "guidance": options.guidance_for(config),
    }
    return {
        **to_plain(options),
        **resolved,
        "turn_duration": float(config.turn_seconds),
        "sample_rate": round(config.turn_samples / config.turn_seconds),
        "motion_rate": float(config.turn_frames / config.turn_seconds),
        "model": model.name,
        "model_sha256": model.sha256,
        "trained": model.trained,
        "device": str(model.device),
        "dtype": dtype_of(model),
        "threads": torch.get_num_threads(),
    }


def step_seconds(info: Any) -> float:
    """How much of the conversation a turn of the running pipeline takes [s]; in rolling mode a turn here is a hop.

    :param info: a StreamInfo message.
    """
    return float(info.hop if info.mode == "rolling" else info.turn_duration)


def allowance(mode: str) -> str:
    """Name of the option for the time to compute and transport motion; the time is too short when motion is late."""
    return {"anticipatory": "the segmenter's planning_lead", "rolling": "hop_margin"}.get(mode, "playback_delay")


def dtype_of(model: Timar) -> str:
    """Number type of a loaded model, as the loader takes it: int8 where the products are quantised."""
    from timar_ros.model.packing import Int8Linear

    quantised = any(isinstance(module, Int8Linear) for module in model.modules())
    return "int8" if quantised else str(model.dtype).removeprefix("torch.")


def options_from(info: Any) -> dict[str, Any]:
    """Keywords of PipelineOptions in a recorded StreamInfo, without options that the message lacks.

    :param info: a message of this or an older version of the package.
    """
    # Older messages hold numbers of single precision: 1.15 was meant, not 1.149999976.
    old = not hasattr(info, "planning_lead")
    values = {}
    for name, item in options_of(PipelineOptions).items():
        if not hasattr(info, name):
            continue
        value = from_plain(PipelineOptions, name, getattr(info, name))
        single = old and item.metadata["kind"] is float and value is not None
        values[name] = float(np.format_float_positional(np.float32(value), unique=True)) if single else value
    return values
