"""The graph's description as launch actions; only launch files import this module, since it needs `launch`."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from launch import Event, EventHandler, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueCoroutine,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.ros_adapters import get_ros_node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from timar_ros.graph.description import ELSEWHERE, PACKAGE, GraphOptions, NodeSpec, describe
from timar_ros.graph.lifecycle import LifecycleClient
from timar_ros.graph.restarts import MOST, WINDOW, Restarts, kept_conversation, restartable
from timar_ros.options import described

TRUE = ("true", "1", "yes")
RESPAWN_DELAY = 1.0
"""Seconds from a node's end until launch starts it anew; in them the launch decides whether it may."""

DISCOVERY = 3.5
"""Seconds from the launch's begin to the first activation; in them it learns of running nodes of the same name. FastDDS
may tell a new process of them only with its next heartbeat, after 3 s."""

_FOLDERS = contextlib.ExitStack()
"""Temporary folders; they are removed when launch's process ends, after all nodes."""
atexit.register(_FOLDERS.close)

TIMEOUT = 300.0
"""Time until all nodes must be active, unless some run elsewhere [s]."""

Extra = Callable[[LaunchContext, GraphOptions], Sequence[LaunchDescriptionEntity]]


def description(
    extra: Extra | None = None, declared: Sequence[DeclareLaunchArgument] = (), **defaults: Any
) -> LaunchDescription:
    """The whole graph: every field of GraphOptions is a launch argument.

    :param extra: returns further actions for the user's options.
    :param declared: arguments of the launch file itself. Launch declares them before it calls ``extra``, which may read
        them.
    :param defaults: defaults of this launch file that differ from GraphOptions'.
    """
    act = OpaqueFunction(function=lambda context: build(options_from(context), context, extra))
    return LaunchDescription([*declared, *arguments(**defaults), act])


def arguments(**defaults: Any) -> list[DeclareLaunchArgument]:
    """A launch argument for each field of GraphOptions, and `keep_going` and `bring_up_timeout`.

    :param defaults: defaults that differ from GraphOptions'; also of ``keep_going``.
    """
    declared = [
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
    return [*declared, keep_going, deadline]


def options_from(context: LaunchContext) -> GraphOptions:
    """The user's options from the launch arguments."""
    values: dict[str, Any] = {}
    for item in fields(GraphOptions):
        text = LaunchConfiguration(item.name).perform(context)
        kind: type = item.metadata["kind"]
        values[item.name] = text.lower() in TRUE if kind is bool else kind(text)
    return GraphOptions(**values)


def build(options: GraphOptions, context: LaunchContext, extra: Extra | None = None) -> list[LaunchDescriptionEntity]:
    """Actions for the graph that the options describe, and ``extra``'s actions."""
    timeout = float(LaunchConfiguration("bring_up_timeout").perform(context))
    if options.only or options.without:
        timeout = max(timeout, ELSEWHERE + TIMEOUT)
    options = _FOLDERS.enter_context(kept_conversation(options))
    actions = start(describe(options), keep_going(context), timeout, Restarts() if options.respawn else None)
    return [*(extra(context, options) if extra is not None else ()), *actions]


def keep_going(context: LaunchContext) -> bool:
    """The value of launch argument `keep_going`."""
    return LaunchConfiguration("keep_going").perform(context).lower() in TRUE


def full_namespace(context: LaunchContext, options: GraphOptions) -> str:
    """The graph's namespace, within the namespace that an including launch file has pushed."""
    pushed = context.launch_configurations.get("ros_namespace")
    return str(make_namespace_absolute(prefix_namespace(pushed, options.namespace.strip("/")) or ""))


def start(
    specs: Sequence[NodeSpec], going_on: bool = False, timeout: float = TIMEOUT, restarts: Restarts | None = None
) -> list[LaunchDescriptionEntity]:
    """Actions that start the nodes, configure all at once, and then activate them one after the other.

    :param going_on: whether the launch stays up when a node ends or fails.
    :param timeout: time until all nodes must be active [s].
    :param restarts: counts the restarts of nodes that were active before; None: no restarts.
    """
    nodes: list[LifecycleNode] = []
    state = _Graph(going_on, timeout, restarts)
    nodes += [_node(spec, state) for spec in specs]
    failed = EventHandler(
        matcher=lambda event: isinstance(event, _Failure) and event.nodes is nodes,
        entities=[OpaqueFunction(function=lambda context: _give_up(context.locals.event.reason, going_on))],
    )
    bring_up = OpaqueCoroutine(coroutine=_bring_up, args=[nodes, timeout, state])
    return [RegisterEventHandler(failed), *nodes, bring_up]


@dataclass
class _Graph:
    """What the nodes of one launch have in common."""

    going_on: bool
    timeout: float
    restarts: Restarts | None
    active: set[str] = field(default_factory=set)
    """Full names of the nodes that have been active; only these are restarted."""
    given_up: set[str] = field(default_factory=set)
    """Full names of the nodes that did not come up again."""
    starts: Counter[str] = field(default_factory=Counter)
    """How often each node was restarted."""


class _Failure(Event):
    """Bring-up of the nodes failed."""

    def __init__(self, nodes: Sequence[LifecycleNode], reason: str) -> None:
        self.nodes, self.reason = nodes, reason


class _BringUpError(Exception):
    """Bring-up of a node failed, for the reason in the message."""


async def _bring_up(context: LaunchContext, nodes: Sequence[LifecycleNode], timeout: float, state: _Graph) -> None:
    # This calls the lifecycle services itself, without launch_ros's ChangeState events: a refusal, a lost answer and a
    # node that never answers must all become failures, and a running node's later transitions are not bring-up.
    deadline = time.monotonic() + timeout

    def over() -> bool:
        return bool(context.is_shutdown)

    try:
        settled = time.monotonic() + DISCOVERY
        await asyncio.gather(*(_change(context, node, "configure", deadline, over) for node in nodes))
        for node in nodes:
            await _change(context, node, "activate", deadline, over, not_before=settled)
            if context.is_shutdown:
                return
            state.active.add(node.node_name)
            get_logger("launch.user").info(f"{node.node_name} is active")
    except _BringUpError as error:
        await context.emit_event(_Failure(nodes, str(error)))


async def _revive(context: LaunchContext, node: LifecycleNode, state: _Graph, number: int) -> None:
    """Take a node that launch starts anew for the ``number``-th time through its lifecycle."""
    deadline = time.monotonic() + state.timeout

    def over() -> bool:
        return context.is_shutdown or state.starts[node.node_name] != number

    try:
        for transition in ("configure", "activate"):
            # Other processes still see the dead one for up to 20 s, so a namesake says nothing here.
            await _change(context, node, transition, deadline, over, namesakes_fail=False)
        if not over():
            get_logger("launch.user").info(f"{node.node_name} is active again")
    except _BringUpError as error:
        get_logger("launch.user").error(str(error))
        state.given_up.add(node.node_name)
        await context.emit_event(ShutdownProcess(process_matcher=matches_action(node)))


async def _change(
    context: LaunchContext,
    node: LifecycleNode,
    transition: str,
    deadline: float,
    over: Callable[[], bool],
    *,
    namesakes_fail: bool = True,
    not_before: float = 0.0,
) -> None:
    name, ros = node.node_name, get_ros_node(context)
    client = LifecycleClient(ros, name)
    client.begin(transition)
    succeeded: bool | None = None
    while not succeeded and not over():
        succeeded = client.poll() if time.monotonic() >= not_before else None
        if succeeded is False:
            # The refusal may come from another running node of the same name, while this process still starts.
            raise _BringUpError(
                f"{name} could not {transition}: its log shows why, unless another node has the name {name}, too"
            )
        namesakes = sum(f"{where.rstrip('/')}/{who}" == name for who, where in ros.get_node_names_and_namespaces())
        if namesakes > 1 and namesakes_fail:
            raise _BringUpError(f"{namesakes} nodes have the name {name}: end the other, or use another namespace")
        if succeeded is None and time.monotonic() > deadline:
            raise _BringUpError(f"{name} did not {transition} in time (bring_up_timeout)")
        await asyncio.sleep(0.05)


def _node(spec: NodeSpec, state: _Graph) -> LifecycleNode:
    respawn = state.restarts is not None and restartable(spec)

    def ended(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity] | None:
        name = f"{(event.action.expanded_node_namespace or '').rstrip('/')}/{spec.name}"
        if context.is_shutdown:
            # During shutdown every node ends; only a fault is worth a report.
            failed = event.returncode == 1
            return _give_up(f"{name} ended with a fault: its log shows why", state.going_on) if failed else None
        if not respawn or state.restarts is None:
            return _give_up(f"{name} has ended", state.going_on)
        may = name in state.active and name not in state.given_up
        number = state.restarts.another(name) if may else None
        state.starts[name] += 1
        if number is not None:
            return [
                LogInfo(msg=f"{name} has ended: restart {number} of at most {MOST} in {WINDOW:.0f} s"),
                OpaqueCoroutine(coroutine=_revive, args=[event.action, state, state.starts[name]]),
            ]
        often = f" and was restarted {MOST} times within {WINDOW:.0f} s" if may else ""
        no_more = EmitEvent(event=ShutdownProcess(process_matcher=matches_action(event.action)))
        return [no_more, *_give_up(f"{name} has ended{often}", state.going_on)]

    return LifecycleNode(
        package=PACKAGE,
        executable=spec.executable,
        name=spec.name,
        # Relative, so that it lies within the namespace that an including launch file pushes.
        namespace=spec.namespace.strip("/"),
        parameters=[values for values in (spec.params_file, spec.parameters) if values],
        remappings=list(spec.remappings.items()),
        output="both",
        ros_arguments=["--enclave", spec.enclave] if spec.enclave else [],
        on_exit=ended,
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY,
    )


def _give_up(reason: str, going_on: bool) -> list[LaunchDescriptionEntity]:
    def fail(_context: LaunchContext) -> None:
        # An exception ends the launch with exit code 1 and this line; the action Shutdown would end it with 0.
        raise RuntimeError(reason)

    return [LogInfo(msg=reason)] if going_on else [OpaqueFunction(function=fail)]
