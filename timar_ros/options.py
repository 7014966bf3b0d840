"""Options as dataclass fields: one definition gives the check, the command-line flag and the node parameter.

A field of :func:`option` has its help text, unit, bounds and choices as metadata. This module imports neither torch nor
rclpy.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, field, fields
from typing import Any

from timar_ros.errors import UserError


def option(
    default: Any,
    help_text: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    kind: type | None = None,
    unset: Any = None,
    none: str = "",
    live: bool = True,
) -> Any:
    """A field of a frozen dataclass of options.

    :param unit: unit of a number, such as ``s``.
    :param low: lowest allowed number; ``high`` the highest.
    :param choices: allowed strings; empty allows any.
    :param kind: type of the value; default: the default's type. Required if the default is None.
    :param unset: value that replaces None in node parameters and messages.
    :param none: the meaning of None, in words.
    :param live: whether a running graph can use the option, so that it is a node parameter.
    """
    metadata = {
        "help": help_text,
        "unit": unit,
        "low": low,
        "high": high,
        "choices": tuple(choices),
        "kind": kind or type(default),
        "unset": unset,
        "none": none,
        "live": live,
    }
    return field(default=default, metadata=metadata)


def options_of(cls: Any) -> dict[str, Field[Any]]:
    """The fields of a class (or instance) of options by name."""
    return {item.name: item for item in fields(cls)}


def same_option(cls: Any, name: str) -> Any:
    """A field for another class of options, with the default and the metadata of this class's field."""
    item = options_of(cls)[name]
    return field(default=item.default, metadata=item.metadata)


def check(options: Any) -> None:
    """Check every value of an instance against its field's metadata.

    :raises UserError: naming the option, its value and what is allowed.
    """
    for name, item in options_of(options).items():
        value = getattr(options, name)
        if value is None and item.default is None:
            continue
        kind, choices, low, high = (item.metadata[key] for key in ("kind", "choices", "low", "high"))
        if choices and value not in choices:
            raise UserError(f"{name} = '{value}': use {' or '.join(choices)}")
        if kind is bool and not isinstance(value, bool):
            raise UserError(f"{name} = {value}: must be true or false")
        if kind not in (int, float):
            continue
        whole = kind is int
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        in_range = number and math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
        if not in_range:
            shown = (f"{bound:d}" if whole else f"{bound:g}" for bound in (low, high) if bound is not None)
            bounds = " to ".join(shown)
            raise UserError(
                f"{name} = {value}: must be a {'whole ' if whole else ''}number{f' from {bounds}' if bounds else ''}"
            )


def add_flags(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    cls: Any,
    names: Iterable[str] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    several: Iterable[str] = (),
) -> None:
    """Add a command-line flag for each field: ``--sampling-steps N``; for a boolean ``--seams`` and ``--no-seams``.

    :param names: the fields, in this order; default: all.
    :param defaults: defaults of this command that differ from the class's.
    :param several: fields for which this command accepts several values.
    """
    known = options_of(cls)
    for name in known if names is None else names:
        item = known[name]
        default = (defaults or {}).get(name, item.default)
        flag, kind = f"--{name.replace('_', '-')}", item.metadata["kind"]
        text = described(item).replace("%", "%%")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
            continue
        more: dict[str, Any] = {"choices": item.metadata["choices"] or None}
        if not more["choices"]:
            more["metavar"] = {"": {int: "N", float: "X"}.get(kind, name.upper())}.get(
                item.metadata["unit"], item.metadata["unit"].upper()
            )
        if name in several:
            more["nargs"], default = "+", [default]
        parser.add_argument(flag, type=kind, default=default, help=text, **more)


def flag_values(args: argparse.Namespace, cls: Any) -> dict[str, Any]:
    """The values of the fields that have flags; None for a flag without value and default."""
    return {name: getattr(args, name) for name in options_of(cls) if hasattr(args, name)}


def described(item: Field[Any], unset: bool = False) -> str:
    """Help text of a field with its unit and the meaning of None.

    :param unset: write None as the field's ``unset`` value, as in a node parameter.
    """
    text: str = item.metadata["help"] + (f" [{item.metadata['unit']}]" if item.metadata["unit"] else "")
    if not item.metadata["none"]:
        return text
    if not unset:
        return f"{text} (default: {item.metadata['none']})"
    mark = "negative" if item.metadata["unset"] < 0 else f"{item.metadata['unset']:g}"
    return f"{text}; {mark}: {item.metadata['none']}"


def to_plain(options: Any) -> dict[str, Any]:
    """All values by name, with the ``unset`` value in place of None, for messages and node parameters."""
    return {
        name: item.metadata["unset"] if getattr(options, name) is None else getattr(options, name)
        for name, item in options_of(options).items()
    }


def from_plain(cls: Any, name: str, value: Any) -> Any:
    """The option's value from a message or node parameter: the ``unset`` value becomes None."""
    item = options_of(cls)[name]
    unset, kind = item.metadata["unset"], item.metadata["kind"]
    if unset is not None and (value < 0 if unset < 0 else value == unset):
        return None
    return kind(value)
