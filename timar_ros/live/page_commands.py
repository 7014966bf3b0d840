"""The commands of the live page: they are checked here, before any other code uses them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError

BUTTONS = ("reset", "cancel", "record", "play", "microphone", "hear")
"""The buttons. ``reset`` and ``cancel`` act once; the others are on or off."""

STYLES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "guidance": (1.0, 3.0),
    "speaking_gain": (0.0, 2.0),
    "listening_gain": (0.0, 2.0),
}
"""The sliders, with their ranges on the page. The nodes check the values again, against their own ranges."""

ROLES = ("off", "user", "agent")
"""The speakers that the page's microphone can stand for."""

RATES = (8_000, 192_000)
"""Rates of a page's microphone [Hz]."""

MOST_SAMPLES = 16_384
"""Most samples of one message of the page's microphone: 0.34 s at 48 kHz."""


@dataclass(frozen=True)
class Press:
    """A button: ``on`` is for switches; ``role`` and ``rate`` [Hz] are for the microphone."""

    button: str
    on: bool = True
    role: str = "off"
    rate: int = 48_000


@dataclass(frozen=True)
class Style:
    """A slider: the name of a field of SetStyle and its new value."""

    name: str
    value: float


def read_command(text: str) -> Press | Style:
    """A command of the page.

    :raises UserError: for any other text; the error names what is wrong.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("a command must be JSON") from error
    if not isinstance(data, dict):
        raise UserError("a command must be an object")
    what = data.get("do")
    if what == "style":
        return _style(data)
    if not isinstance(what, str) or what not in BUTTONS:
        raise UserError(f"'do' must be one of {', '.join((*BUTTONS, 'style'))}")
    on = data.get("on", True)
    if not isinstance(on, bool):
        raise UserError(f"{what}: 'on' must be true or false")
    if what != "microphone":
        return Press(what, on)
    role, rate = data.get("role"), data.get("rate", 48_000)
    if not isinstance(role, str) or role not in ROLES:
        raise UserError(f"microphone: 'role' must be one of {', '.join(ROLES)}")
    if isinstance(rate, bool) or not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"microphone: 'rate' must be a whole number from {RATES[0]} to {RATES[1]}")
    return Press(what, role != "off", role, rate)


def _style(data: dict[str, object]) -> Style:
    name, value = data.get("name"), data.get("value")
    if not isinstance(name, str) or name not in STYLES:
        raise UserError(f"style: 'name' must be one of {', '.join(STYLES)}")
    low, high = STYLES[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{name} must be a number")
    if not low <= value <= high:
        raise UserError(f"{name} must be from {low:g} to {high:g}")
    return Style(name, float(value))


def read_sound(data: bytes) -> NDArray[np.float32]:
    """Samples of the page's microphone (16 bits, little-endian, mono) as [n] in -1 to 1.

    :raises UserError: when the message is too long or has half a sample.
    """
    if not 0 < len(data) <= 2 * MOST_SAMPLES or len(data) % 2:
        raise UserError(f"sound must be 1 to {MOST_SAMPLES} samples of two bytes")
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768.0
