"""A node's parameters as a table: one frozen row each gives declaration, range, validation with a reason, and text.

The tables are data, so that `config/timar.yaml`, the documentation and the tests are held against them.
"""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from timar_ros.options import described, from_plain, options_of

LARGEST = 2**63 - 1
"""Largest integer that a parameter can hold: a bound there is none."""

Value = bool | int | float | str | list[str] | list[float]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a node.

    :param name: its name, as in ``config/timar.yaml``.
    :param default: its default; the default's type is the parameter's type. An integer given for a float is taken.
        An empty list of strings is written ``[""]``, since an empty list has no type in ROS.
    :param description: what it does, with its unit.
    :param minimum: lowest allowed number (each element's, for a list).
    :param maximum: highest allowed number.
    :param choices: allowed strings; empty allows any.
    :param dynamic: may change at any time. Others may change only while the node is unconfigured.
    :param read_only: fixed when the node starts.
    :param check: gets a value of the right type and range, returns the reason why it is refused, or None.
    """

    name: str
    default: Value
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False
    read_only: bool = False
    check: Callable[[Any], str | None] | None = None

    def coerce(self, value: Any) -> Any:
        """The value as this parameter's type: integers become floats where floats are meant, a list a list."""
        if isinstance(self.default, float) and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(self.default, list) and isinstance(value, (list, tuple, array.array)):
            numbers = isinstance(self.default[0], float)
            return [float(item) for item in value] if numbers else list(value)
        return value

    def fault(self, value: Any) -> str | None:
        """Why ``value`` is refused, in words for the user, or None when it is fine."""
        value = self.coerce(value)
        reason = self._type_fault(value) or self._range_fault(value)
        if reason is None and self.check is not None:
            reason = self.check(value)
        return None if reason is None else f"'{self.name}' {reason}"

    def _type_fault(self, value: Any) -> str | None:
        # A boolean is an integer to Python, and 1 is no answer to a yes-or-no question.
        if not isinstance(value, type(self.default)) or isinstance(value, bool) != isinstance(self.default, bool):
            return f"must be a {_type_name(self.default)}, not {value!r}"
        if isinstance(value, list) and isinstance(self.default, list):
            example = self.default[0]
            if not all(isinstance(item, type(example)) for item in value):
                return f"must be a list of {_type_name(example)}s, not {value!r}"
        return None

    def _range_fault(self, value: Any) -> str | None:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, float) and not math.isfinite(item):
                return f"must be finite, not {item}"
            if self.minimum is not None and item < self.minimum:
                return f"must be at least {self.minimum:g}, not {item:g}"
            if self.maximum is not None and item > self.maximum:
                return f"must be at most {self.maximum:g}, not {item:g}"
            if self.choices and item not in self.choices:
                return f"must be one of {', '.join(map(repr, self.choices))}, not {item!r}"
        return None

    def descriptor(self) -> ParameterDescriptor:
        """What ``ros2 param describe`` shows."""
        made = ParameterDescriptor(name=self.name, description=self.description, read_only=self.read_only)
        # Typed by `fault` instead, which takes 2 for 2.0: a static type refuses `-p speed:=2` before we are asked.
        made.dynamic_typing = isinstance(self.default, (float, list))
        if self.choices:
            made.additional_constraints = "one of " + ", ".join(map(repr, self.choices))
        elif not self.dynamic and not self.read_only:
            made.additional_constraints = "changes only while the node is unconfigured"
        if self.minimum is not None or self.maximum is not None:
            if type(self.default) is int:
                low = -(2**63) if self.minimum is None else int(self.minimum)
                high = 2**63 - 1 if self.maximum is None else int(self.maximum)
                made.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
            elif isinstance(self.default, float):
                low_f = -math.inf if self.minimum is None else float(self.minimum)
                high_f = math.inf if self.maximum is None else float(self.maximum)
                made.floating_point_range = [FloatingPointRange(from_value=low_f, to_value=high_f, step=0.0)]
        return made


def _type_name(value: Any) -> str:
    if isinstance(value, list):
        return f"list of {_type_name(value[0])}s"
    return {bool: "boolean", int: "integer", float: "number", str: "string"}[type(value)]


def names(values: list[str]) -> list[str]:
    """The entries of a list-of-strings parameter, without the placeholder for "empty"."""
    return [value for value in values if value]


def option_parameters(cls: Any, names: Iterable[str] | None = None) -> tuple[Parameter, ...]:
    """A parameter for each option of a class that makes sense in a running graph.

    :param names: only these.
    """
    made = []
    for name, item in options_of(cls).items():
        if not item.metadata["live"] or (names is not None and name not in names):
            continue
        data = item.metadata
        default: Any = data["unset"] if item.default is None else item.default
        lowest = [bound for bound in (data["low"], data["unset"]) if bound is not None]
        made.append(
            Parameter(
                name,
                default,
                described(item, unset=True),
                min(lowest) if lowest else None,
                None if data["high"] == LARGEST else data["high"],
                data["choices"],
            )
        )
    return tuple(made)


def option_values(cls: Any, value: Callable[[str], Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """The options that a node's parameters stand for, as keywords of their class.

    :param value: gives a parameter's value by name.
    :param names: only these.
    """
    live = [n for n, item in options_of(cls).items() if item.metadata["live"] and (names is None or n in names)]
    return {name: from_plain(cls, name, value(name)) for name in live}
