"""The graph's description as launch actions; imported by launch files only, where `launch` is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from timar_ros.nodes.graph import PACKAGE, GraphOptions, NodeSpec, describe

TRUE = ("true", "1", "yes")
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
    """A launch argument for each field of GraphOptions, and `keep_going`."""
    made = [
        DeclareLaunchArgument(
            item.name,
            default_value=str(defaults.get(item.name, item.default)),
            description=item.metadata["help"],
            choices=list(item.metadata["choices"]) or None,
        )
        for item in fields(GraphOptions)
    ]
    keep_going = DeclareLaunchArgument(
        "keep_going", default_value="False", description="stay up when a node ends or fails to configure"
    )
    return [*made, keep_going]


def options_from(context: LaunchContext) -> GraphOptions:
    """What the user chose."""
    values: dict[str, Any] = {}
    for item in fields(GraphOptions):
        text = LaunchConfiguration(item.name).perform(context)
        kind: type = type(item.default)
        values[item.name] = text.lower() in TRUE if kind is bool else kind(text)
    return GraphOptions(**values)


def build(options: GraphOptions, context: LaunchContext, extra: Extra | None = None) -> list[LaunchDescriptionEntity]:
    """Actions for the graph that the options describe, and the further ones."""
    keep_going = LaunchConfiguration("keep_going").perform(context).lower() in TRUE
    return [*(extra(context, options) if extra is not None else ()), *start(describe(options), keep_going)]


def start(specs: Sequence[NodeSpec], keep_going: bool = False) -> list[LaunchDescriptionEntity]:
    """Actions that start the nodes, configure all at once, and then activate them one after the other."""
    nodes = [_node(spec, keep_going) for spec in specs]
    waiting = {spec.name for spec in specs}

    def configured(name: str) -> list[LaunchDescriptionEntity]:
        waiting.discard(name)
        return [] if waiting else [_ask(nodes[0], Transition.TRANSITION_ACTIVATE)]

    actions: list[LaunchDescriptionEntity] = []
    for index, (spec, node) in enumerate(zip(specs, nodes, strict=True)):
        following = [_ask(nodes[index + 1], Transition.TRANSITION_ACTIVATE)] if index + 1 < len(nodes) else []
        ready = LogInfo(msg=f"{spec.full_name} is active")
        actions += [
            _on_process_start(node),
            _on(node, "configuring", "inactive", [OpaqueFunction(function=lambda _, name=spec.name: configured(name))]),
            _on(node, "activating", "active", [ready, *following]),
            _on(node, "configuring", "unconfigured", _failed(spec, "configure", keep_going)),
            _on(node, "activating", "inactive", _failed(spec, "activate", keep_going)),
        ]
    # Handlers first: a node may be faster than their registration.
    return [*actions, *nodes]


def _node(spec: NodeSpec, keep_going: bool) -> LifecycleNode:
    reason = f"{spec.full_name} has ended"

    def ended(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        # When all are ended, each node's end is no news.
        return [] if context.is_shutdown else _give_up(reason, keep_going)

    return LifecycleNode(
        package=PACKAGE,
        executable=spec.executable,
        name=spec.name,
        namespace=spec.namespace,
        parameters=[spec.params_file, spec.parameters],
        remappings=list(spec.remappings.items()),
        output="both",
        on_exit=[OpaqueFunction(function=ended)],
    )


def _ask(node: LifecycleNode, transition: int) -> EmitEvent:
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))


def _on_process_start(node: LifecycleNode) -> RegisterEventHandler:
    configure = _ask(node, Transition.TRANSITION_CONFIGURE)
    return RegisterEventHandler(OnProcessStart(target_action=node, on_start=[configure]))


def _on(
    node: LifecycleNode, start: str, goal: str, entities: Sequence[LaunchDescriptionEntity]
) -> RegisterEventHandler:
    return RegisterEventHandler(
        OnStateTransition(target_lifecycle_node=node, start_state=start, goal_state=goal, entities=list(entities))
    )


def _failed(spec: NodeSpec, what: str, keep_going: bool) -> list[LaunchDescriptionEntity]:
    return _give_up(f"{spec.full_name} could not {what}: its log line says why", keep_going)


def _give_up(reason: str, keep_going: bool) -> list[LaunchDescriptionEntity]:
    def fail(_context: LaunchContext) -> None:
        # An exception ends the launch with exit code 1 and this line; the action Shutdown would end it with 0.
        raise RuntimeError(reason)

    return [LogInfo(msg=reason)] if keep_going else [OpaqueFunction(function=fail)]
