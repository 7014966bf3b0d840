"""Writes down what the parameter tables say: `config/timar.yaml`, and the tables of docs/nodes.md.

``python -m timar_ros.nodes.reference yaml > config/timar.yaml``; ``… markdown`` for the documentation.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import sys
import textwrap
from collections.abc import Sequence

from timar_ros.nodes.base import ManagedNode
from timar_ros.nodes.endpoints import COMMON
from timar_ros.nodes.parameters import Parameter

NODES = (
    "audio_source",
    "turn_segmenter",
    "timar_inference",
    "retarget",
    "head_simulator",
    "audio_sink",
    "recorder",
    "bag_player",
    "audio_bridge",
    "head_bridge",
    "avatar_bridge",
    "partner_selector",
)
"""All nodes: those of the graph in the order of the data, then those beside it."""

HEAD = """\
# Parameters of the nodes, at their defaults (written by `python -m timar_ros.nodes.reference yaml`).
# Copy it, keep what you change, and give it as params_file:=... to a launch file or --params-file to `timar up`.
# Beside these, every topic takes qos_overrides./<topic>.<publisher|subscription>.<history|depth|reliability>.
"""


def node_class(name: str) -> type[ManagedNode]:
    """The class of a node's module."""
    module = importlib.import_module(f"timar_ros.nodes.{name}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, ManagedNode) and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} defines {len(found)} nodes"
    return found[0]


def as_yaml() -> str:
    """The parameter file with every default and its description."""
    lines = [HEAD]
    for name in NODES:
        lines += [f"/**/{name}:", "  ros__parameters:"]
        for parameter in (*node_class(name).PARAMETERS, *COMMON):
            text = f"{parameter.description}{_limits(parameter)}"
            lines += textwrap.wrap(text, 114, initial_indent="    # ", subsequent_indent="    # ")
            lines.append(f"    {parameter.name}: {json.dumps(parameter.default)}")
        lines.append("")
    return "\n".join(lines)


def as_markdown(name: str) -> str:
    """A node's own parameters as a table."""
    return table(node_class(name).PARAMETERS)


def table(parameters: Sequence[Parameter]) -> str:
    """Parameters as a table."""
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for parameter in parameters:
        when = " Changes at any time." if parameter.dynamic else ""
        default = json.dumps(parameter.default)
        lines.append(f"| `{parameter.name}` | `{default}` | {parameter.description}{_limits(parameter)}.{when} |")
    return "\n".join(lines)


def _limits(parameter: Parameter) -> str:
    if parameter.choices:
        return f" ({', '.join(parameter.choices)})"
    low, high = parameter.minimum, parameter.maximum
    if low is None and high is None:
        return ""
    return f" ({-math.inf if low is None else low:g} to {math.inf if high is None else high:g})"


def main(argv: list[str]) -> int:
    """Print one of the two."""
    if argv == ["yaml"]:
        print(as_yaml(), end="")
    elif argv == ["markdown"]:
        print("\n\n".join(f"### {name}\n\n{as_markdown(name)}" for name in NODES))
    else:
        print("usage: python -m timar_ros.nodes.reference yaml|markdown", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
