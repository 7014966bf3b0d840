"""Generates `config/timar.yaml` and the parameter lists of docs/nodes.md from the nodes' parameter tables.

``python -m timar_ros.graph.parameter_reference yaml > config/timar.yaml``; ``… markdown`` for the documentation.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from timar_ros.ros.base import ManagedNode
from timar_ros.ros.endpoints import COMMON
from timar_ros.ros.parameters import Parameter

NODES = (
    "audio_source",
    "turn_segmenter",
    "timar_inference",
    "retarget",
    "head_simulator",
    "audio_sink",
    "live_page",
    "recorder",
    "bag_player",
    "audio_bridge",
    "head_bridge",
    "face_tracker",
    "avatar_bridge",
    "partner_selector",
    "speech",
    "barge_in",
)
"""All nodes: the graph's nodes in the order of the data flow, then the others."""

HEAD = """\
# Parameters of the nodes, at their defaults (written by `python -m timar_ros.graph.parameter_reference yaml`).
# Copy it, keep what you change, and pass it as params_file:=... to a launch file or --params-file to `timar up`.
# Every topic also accepts qos_overrides./<topic>.<publisher|subscription>.<history|depth|reliability>.
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
    """A node's own parameters as a list; one line names the parameters that it shares with an earlier node."""
    own: list[Parameter] = []
    shared: dict[str, list[str]] = {}
    for parameter in node_class(name).PARAMETERS:
        earlier = _first_owner(parameter, NODES[: NODES.index(name)])
        if earlier is None:
            own.append(parameter)
        else:
            shared.setdefault(earlier, []).append(f"`{parameter.name}`")
    same = [f"- {', '.join(names)}: as in [{node}](#{node})" for node, names in shared.items()]
    return "\n".join([listed(own), *same])


def _first_owner(parameter: Parameter, nodes: Sequence[str]) -> str | None:
    """The first of these nodes that has this parameter with the same default, meaning and range."""
    for node in nodes:
        for other in node_class(node).PARAMETERS:
            if replace(other, check=None) == replace(parameter, check=None):
                return node
    return None


def listed(parameters: Sequence[Parameter]) -> str:
    """Parameters as a list of name, default and meaning, without the range, which is in `config/timar.yaml`."""
    lines = []
    for parameter in parameters:
        when = " *Dynamic.*" if parameter.dynamic else ""
        named = all(re.search(rf"\b{choice}:|\({choice}", parameter.description) for choice in parameter.choices)
        choices = "" if named else _limits(parameter)
        default = json.dumps(parameter.default)
        lines.append(f"- `{parameter.name}: {default}` {parameter.description}{choices}.{when}")
    return "\n".join(lines)


def _limits(parameter: Parameter) -> str:
    if parameter.choices:
        return f" ({', '.join(parameter.choices)})"
    low, high = parameter.minimum, parameter.maximum
    if low is None and high is None:
        return ""
    return f" ({-math.inf if low is None else low:g} to {math.inf if high is None else high:g})"


def main(argv: list[str]) -> int:
    """Print the YAML file or the Markdown tables."""
    if argv == ["yaml"]:
        print(as_yaml(), end="")
    elif argv == ["markdown"]:
        print("\n\n".join(f"### {name}\n\n{as_markdown(name)}" for name in NODES))
    else:
        print("usage: python -m timar_ros.graph.parameter_reference yaml|markdown", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
