"""Evaluates a launch file without starting anything and prints what it would start, as JSON lines.

    evaluate_launch.py [--standin] FILE [NAME:=VALUE ...]

With `launch` and `launch_ros` as they are installed, or with the stand-ins. A process of its own, since launch changes
how the logging of a whole process works.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    arguments = sys.argv[1:]
    standin = "--standin" in arguments
    if standin:
        arguments.remove("--standin")
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        from support.standins import launch_tools

        launch_tools.install()
    from launch import LaunchContext

    spec = importlib.util.spec_from_file_location("launch_file", arguments[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = LaunchContext()
    context.launch_configurations.update(dict(pair.split(":=", 1) for pair in arguments[1:]))
    description = module.generate_launch_description()
    if not standin:
        for argument in description.get_launch_arguments():
            print(json.dumps({"kind": "argument", "name": argument.name, "help": argument.description}))
    evaluate(description, context, standin)


def evaluate(entity: Any, context: Any, standin: bool) -> None:
    """Visit an entity and all that follows from it; processes and included files are only told."""
    kind = type(entity).__name__
    if kind in ("Node", "LifecycleNode"):
        print(json.dumps(_node(entity, context, standin) | {"kind": kind}))
    elif kind == "IncludeLaunchDescription":
        print(json.dumps({"kind": kind}))
    elif kind not in ("OpaqueCoroutine", "RegisterEventHandler", "LogInfo", "EmitEvent"):
        for following in entity.visit(context) or ():
            evaluate(following, context, standin)


def _node(node: Any, context: Any, standin: bool) -> dict[str, Any]:
    if standin:
        chosen = {key: node.kwargs.get(key) for key in ("package", "executable", "namespace", "name")}
        return {key: None if value is None else str(value) for key, value in chosen.items()}
    node._perform_substitutions(context)
    return {"package": node.node_package, "executable": node.node_executable, "name": node.node_name}


if __name__ == "__main__":
    main()
