"""A conversation in progress: turns, normalization, the Conversation with its cache, and the pipeline around them.

Names are imported when first used, so that turn building does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timar_ros.streaming.batch import ConversationBatch, TurnData
    from timar_ros.streaming.conversation import Conversation
    from timar_ros.streaming.offline import generate, resolve_model
    from timar_ros.streaming.pipeline import Pipeline, TurnMotion
    from timar_ros.streaming.sampling_options import PipelineOptions, SamplingOptions
    from timar_ros.streaming.turns.turn_builder import TurnBuilder, TurnInput

_HOMES = {
    "Conversation": "conversation",
    "ConversationBatch": "batch",
    "Pipeline": "pipeline",
    "PipelineOptions": "sampling_options",
    "SamplingOptions": "sampling_options",
    "TurnBuilder": "turns.turn_builder",
    "TurnData": "batch",
    "TurnInput": "turns.turn_builder",
    "TurnMotion": "pipeline",
    "generate": "offline",
    "resolve_model": "offline",
}

__all__ = [
    "Conversation",
    "ConversationBatch",
    "Pipeline",
    "PipelineOptions",
    "SamplingOptions",
    "TurnBuilder",
    "TurnData",
    "TurnInput",
    "TurnMotion",
    "generate",
    "resolve_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
