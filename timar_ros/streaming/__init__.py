"""A conversation in progress: turns, normalising, the Conversation with its cache, and the pipeline around them.

Names that need torch are imported when first used, so that turn building stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timar_ros.streaming.batch import ConversationBatch
    from timar_ros.streaming.conversation import Conversation

__all__ = ["Conversation", "ConversationBatch"]

_HOMES = {"Conversation": "conversation", "ConversationBatch": "batch"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
