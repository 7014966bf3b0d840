"""What a SetStyle request asks for: the inference node and the retarget node each know a half of its fields."""

from __future__ import annotations

import math

from timar_ros.errors import UserError
from timar_ros.srv import SetStyle


def asked(request: SetStyle.Request, *, gains: bool) -> dict[str, float]:
    """The values given (fields of a request that are not empty), by name.

    :param gains: whether the node that asks owns the gains (the retarget node) or everything else (inference).
    :raises UserError: when one is given that belongs to the other node, or that is no number.
    """
    given = {name: list(getattr(request, name)) for name in request.get_fields_and_field_types()}
    wanted = {name: float(values[0]) for name, values in given.items() if values}
    if unclear := [name for name, values in given.items() if not all(map(math.isfinite, values))]:
        raise UserError(f"{' and '.join(unclear)} must be finite: leave a field empty to leave its value as it is")
    foreign = [name for name in wanted if name.endswith("_gain") is not gains]
    if foreign:
        raise UserError(
            f"{' and '.join(foreign)}: ask {'timar_inference' if gains else 'the retarget node'}'s set_style"
        )
    return wanted


def told(wanted: dict[str, float]) -> str:
    """Values for an answer's text; empty for none."""
    return ", ".join(f"{name} {value:g}" for name, value in wanted.items())
