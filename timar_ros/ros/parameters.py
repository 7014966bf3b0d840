"""A node's parameters as a table: one frozen row each has declaration, range, validation with a reason, and text.

The tables are data: `config/timar.yaml` and the documentation are generated from them, and tests compare the files.
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
"""Largest integer that a parameter can hold; as an upper bound it means no bound."""

Value = bool | int | float | str | list[str] | list[float]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a node.

    :param name: its name, as in ``config/timar.yaml``.
    :param default: its default; the default's type is the parameter's type. A float parameter also accepts integers.
        An empty list of strings is written ``[""]``, since an empty list has no type in ROS.
    :param description: its effect, with its unit.
    :param minimum: lowest allowed number (each element's, for a list).
    :param maximum: highest allowed number.
    :param choices: allowed strings; empty allows any.
    :param dynamic: may change at any time. Other parameters may change only while the node is unconfigured.
    :param read_only: fixed when the node starts.
    :param check: called with a value of the right type and range; returns why the value is refused, or None.
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
        """The value in this parameter's type: integers become floats for float parameters, sequences become lists."""
        if isinstance(self.default, float) and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(self.default, list) and isinstance(value, (list, tuple, array.array)):
            numbers = isinstance(self.default[0], float)
            return [float(item) for item in value] if numbers else list(value)
        return value

    def fault(self, value: Any) -> str | None:
        """The reason why ``value`` is refused, as text for the user; None for a valid value."""
        value = self.coerce(value)
        reason = self._type_fault(value) or self._range_fault(value)
        if reason is None and self.check is not None:
            reason = self.check(value)
        return None if reason is None else f"'{self.name}' {reason}"

    def _type_fault(self, value: Any) -> str | None:
        # A Python boolean is an integer, but 1 must not mean true.
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
        """The description that ``ros2 param describe`` shows."""
        descriptor = ParameterDescriptor(name=self.name, description=self.description, read_only=self.read_only)
        # `fault` checks the type, and accepts 2 for 2.0: a static type would refuse `-p speed:=2`.
        descriptor.dynamic_typing = isinstance(self.default, (float, list))
        if self.choices:
            descriptor.additional_constraints = "one of " + ", ".join(map(repr, self.choices))
        elif not self.dynamic and not self.read_only:
            descriptor.additional_constraints = "changes only while the node is unconfigured"
        if self.minimum is not None or self.maximum is not None:
            if type(self.default) is int:
                low = -(2**63) if self.minimum is None else int(self.minimum)
                high = 2**63 - 1 if self.maximum is None else int(self.maximum)
                descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
            elif isinstance(self.default, float):
                low_f = -math.inf if self.minimum is None else float(self.minimum)
                high_f = math.inf if self.maximum is None else float(self.maximum)
                descriptor.floating_point_range = [FloatingPointRange(from_value=low_f, to_value=high_f, step=0.0)]
        return descriptor


def _type_name(value: Any) -> str:
    if isinstance(value, list):
        return f"list of {_type_name(value[0])}s"
    return {bool: "boolean", int: "integer", float: "number", str: "string"}[type(value)]


def names(values: list[str]) -> list[str]:
    """The entries of a list-of-strings parameter, without the placeholder for "empty"."""
    return [value for value in values if value]


def option_parameters(cls: Any, names: Iterable[str] | None = None) -> tuple[Parameter, ...]:
    """A parameter for each option of a class that a running graph can use.

    :param names: only these.
    """
    parameters = []
    for name, item in options_of(cls).items():
        if not item.metadata["live"] or (names is not None and name not in names):
            continue
        data = item.metadata
        default: Any = data["unset"] if item.default is None else item.default
        lowest = [bound for bound in (data["low"], data["unset"]) if bound is not None]
        parameters.append(
            Parameter(
                name,
                default,
                described(item, unset=True),
                min(lowest) if lowest else None,
                None if data["high"] == LARGEST else data["high"],
                data["choices"],
            )
        )
    return tuple(parameters)


def option_values(cls: Any, value: Callable[[str], Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """The options in a node's parameters, as keywords of their class.

    :param value: returns a parameter's value by name.
    :param names: only these.
    """
    live = [n for n, item in options_of(cls).items() if item.metadata["live"] and (names is None or n in names)]
    return {name: from_plain(cls, name, value(name)) for name in live}
