"""The graph's description as launch actions; imported by launch files only, where `launch` is installed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from launch import Event, EventHandler, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueCoroutine, OpaqueFunction, RegisterEventHandler
from launch.events.process import ProcessExited
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.ros_adapters import get_ros_node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from timar_ros.nodes.graph import ELSEWHERE, PACKAGE, GraphOptions, NodeSpec, describe
from timar_ros.nodes.lifecycle_client import LifecycleClient
from timar_ros.options import described

TRUE = ("true", "1", "yes")
TIMEOUT = 300.0
"""Seconds until all nodes must be active, unless some run elsewhere."""

Extra = Callable[[LaunchContext, GraphOptions], Sequence[LaunchDescriptionEntity]]


def description(
    extra: Extra | None = None, declared: Sequence[DeclareLaunchArgument] = (), **defaults: Any
) -> LaunchDescription:
    """The whole graph: every field of GraphOptions is a launch argument.

    :param extra: gives further actions, from the options that the user has chosen.
    :param declared: arguments of the launch file itself. An argument exists for what is declared after it, so these
        come before ``extra`` is called, which may read them.
    :param defaults: defaults of this launch file, where they differ from GraphOptions'.
    """
    act = OpaqueFunction(function=lambda context: build(options_from(context), context, extra))
    return LaunchDescription([*declared, *arguments(**defaults), act])


def arguments(**defaults: Any) -> list[DeclareLaunchArgument]:
    """A launch argument for each field of GraphOptions, and `keep_going` and `bring_up_timeout`.

    :param defaults: defaults where they differ; ``keep_going`` is one of them.
    """
    made = [
        DeclareLaunchArgument(
            item.name,
            default_value=str(defaults.get(item.name, item.default)),
            description=described(item),
            choices=list(item.metadata["choices"]) or None,
        )
        for item in fields(GraphOptions)
    ]
    keep_going = DeclareLaunchArgument(
        "keep_going",
        default_value=str(defaults.get("keep_going", False)),
        description="stay up when a node ends or fails; false: end the whole launch with an error",
    )
    deadline = DeclareLaunchArgument(
        "bring_up_timeout", default_value=str(TIMEOUT), description="seconds until all nodes must be active"
    )
    return [*made, keep_going, deadline]


def options_from(context: LaunchContext) -> GraphOptions:
    """What the user chose."""
    values: dict[str, Any] = {}
    for item in fields(GraphOptions):
        text = LaunchConfiguration(item.name).perform(context)
        kind: type = item.metadata["kind"]
        values[item.name] = text.lower() in TRUE if kind is bool else kind(text)
    return GraphOptions(**values)


def build(options: GraphOptions, context: LaunchContext, extra: Extra | None = None) -> list[LaunchDescriptionEntity]:
    """Actions for the graph that the options describe, and the further ones."""
    timeout = float(LaunchConfiguration("bring_up_timeout").perform(context))
    if options.only or options.without:
        timeout = max(timeout, ELSEWHERE + TIMEOUT)
    actions = start(describe(options), keep_going(context), timeout)
    return [*(extra(context, options) if extra is not None else ()), *actions]


def keep_going(context: LaunchContext) -> bool:
    """What the argument of that name says."""
    return LaunchConfiguration("keep_going").perform(context).lower() in TRUE


def full_namespace(context: LaunchContext, options: GraphOptions) -> str:
    """The graph's namespace, within one that an including launch file has pushed."""
    pushed = context.launch_configurations.get("ros_namespace")
    return str(make_namespace_absolute(prefix_namespace(pushed, options.namespace.strip("/")) or ""))


def start(specs: Sequence[NodeSpec], going_on: bool = False, timeout: float = TIMEOUT) -> list[LaunchDescriptionEntity]:
    """Actions that start the nodes, configure all at once, and then activate them one after the other.

    :param going_on: whether the launch is to stay up when a node ends or fails.
    :param timeout: so long [s] all of it may take.
    """
    nodes = [_node(spec, going_on) for spec in specs]
    failed = EventHandler(
        matcher=lambda event: isinstance(event, _Failure) and event.nodes is nodes,
        entities=[OpaqueFunction(function=lambda context: _give_up(context.locals.event.reason, going_on))],
    )
    bring_up = OpaqueCoroutine(coroutine=_bring_up, args=[nodes, timeout])
    return [RegisterEventHandler(failed), *nodes, bring_up]


class _Failure(Event):
    """Nodes could not be brought up."""

    def __init__(self, nodes: Sequence[LifecycleNode], reason: str) -> None:
        self.nodes, self.reason = nodes, reason


class _BringUpError(Exception):
    """A node could not be brought up, for the reason that the message names."""


async def _bring_up(context: LaunchContext, nodes: Sequence[LifecycleNode], timeout: float) -> None:
    # Services are asked here instead of by launch_ros's ChangeState events: a refusal, an answer that was lost and a
    # node that never answers must all become failures, and what happens later to a running node is not bring-up.
    deadline = time.monotonic() + timeout
    try:
        await asyncio.gather(*(_change(context, node, "configure", deadline) for node in nodes))
        for node in nodes:
            await _change(context, node, "activate", deadline)
            if context.is_shutdown:
                return
            get_logger("launch.user").info(f"{node.node_name} is active")
    except _BringUpError as error:
        await context.emit_event(_Failure(nodes, str(error)))


async def _change(context: LaunchContext, node: LifecycleNode, transition: str, deadline: float) -> None:
    name, ros = node.node_name, get_ros_node(context)
    client = LifecycleClient(ros, name)
    client.begin(transition)
    happened: bool | None = None
    while not happened and not context.is_shutdown:
        happened = client.poll()
        if happened is False:
            # A namesake that runs already may have been the one to refuse, while our own process still starts.
            raise _BringUpError(
                f"{name} could not {transition}: its log line says why, unless another node is called {name}, too"
            )
        namesakes = sum(f"{where.rstrip('/')}/{who}" == name for who, where in ros.get_node_names_and_namespaces())
        if namesakes > 1:
            raise _BringUpError(f"{namesakes} nodes are called {name}: end the other, or use another namespace")
        if happened is None and time.monotonic() > deadline:
            raise _BringUpError(f"{name} did not {transition} in time (bring_up_timeout)")
        await asyncio.sleep(0.05)


def _node(spec: NodeSpec, going_on: bool) -> LifecycleNode:
    def ended(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity] | None:
        name = f"{(event.action.expanded_node_namespace or '').rstrip('/')}/{spec.name}"
        if not context.is_shutdown:
            return _give_up(f"{name} has ended", going_on)
        # When all are ended, each node's end is no news, but that something went wrong is.
        return (
            _give_up(f"{name} ended with a fault: its log line says why", going_on) if event.returncode == 1 else None
        )

    return LifecycleNode(
        package=PACKAGE,
        executable=spec.executable,
        name=spec.name,
        # Relative, so that a namespace which an including launch file pushes comes before it.
        namespace=spec.namespace.strip("/"),
        parameters=[given for given in (spec.params_file, spec.parameters) if given],
        remappings=list(spec.remappings.items()),
        output="both",
        on_exit=ended,
    )


def _give_up(reason: str, going_on: bool) -> list[LaunchDescriptionEntity]:
    def fail(_context: LaunchContext) -> None:
        # An exception ends the launch with exit code 1 and this line; the action Shutdown would end it with 0.
        raise RuntimeError(reason)

    return [LogInfo(msg=reason)] if going_on else [OpaqueFunction(function=fail)]
