"""The values of a SetStyle request: the inference node uses some of its fields, the retarget node the others."""

from __future__ import annotations

import math

from timar_ros.errors import UserError
from timar_ros.srv import SetStyle


def values_of(request: SetStyle.Request, *, gains: bool) -> dict[str, float]:
    """The values of a request by name; an empty field has none.

    :param gains: True for the retarget node, which uses the fields ``*_gain``; False for the inference node, which uses
        all others.
    :raises UserError: when a value is for the other node, or not finite.
    """
    fields = {name: list(getattr(request, name)) for name in request.get_fields_and_field_types()}
    if wrong := [name for name, values in fields.items() if not all(map(math.isfinite, values))]:
        raise UserError(f"{' and '.join(wrong)} must be finite: leave a field empty to leave its value as it is")
    style = {name: float(values[0]) for name, values in fields.items() if values}
    if foreign := [name for name in style if name.endswith("_gain") is not gains]:
        node = "timar_inference" if gains else "the retarget node"
        raise UserError(f"{' and '.join(foreign)}: call {node}'s set_style")
    return style


def in_words(style: dict[str, float]) -> str:
    """Values as the text of an answer; empty for none."""
    return ", ".join(f"{name} {value:g}" for name, value in style.items())
