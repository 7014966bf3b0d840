"""The fields of a message by path, and ways to put any value into one of them."""

from __future__ import annotations

import array
from typing import Any

import numpy as np


def leaves(message: Any, prefix: str = "") -> dict[str, str]:
    """The fields of a message and of the messages in it, by path (``header.stamp.sec``), with their types."""
    found: dict[str, str] = {}
    for name, kind in message.get_fields_and_field_types().items():
        value = getattr(message, name)
        if hasattr(value, "get_fields_and_field_types"):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = kind
    return found


def value_at(message: Any, path: str) -> Any:
    """What stands in a field."""
    for name in path.split("."):
        message = getattr(message, name)
    return message


def fill(message: Any, path: str, value: float) -> None:
    """Put a number into a field, or into a sequence's first place."""
    holder, _, field = path.rpartition(".")
    message = value_at(message, holder) if holder else message
    now = getattr(message, field)
    if isinstance(now, np.ndarray):
        now[0] = value
    elif isinstance(now, array.array):
        setattr(message, field, array.array(now.typecode, [value]))
    elif isinstance(now, list):
        setattr(message, field, [value])
    else:
        setattr(message, field, value)
