"""A stand-in for `launch` and `launch_ros`: evaluates a launch file in the order in which launch would visit it.

It models what goes wrong in launch files: a LaunchConfiguration that is read before its argument is declared fails, an
argument without a value fails, choices are checked, what the includer has set wins over a default. Nothing is started.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

MODULES = {
    "launch": "Event EventHandler LaunchContext LaunchDescription LaunchDescriptionEntity",
    "launch.actions": "DeclareLaunchArgument EmitEvent GroupAction IncludeLaunchDescription LogInfo OpaqueCoroutine "
    "OpaqueFunction RegisterEventHandler SetLaunchConfiguration Shutdown TimerAction",
    "launch.conditions": "IfCondition UnlessCondition",
    "launch.event_handlers": "OnProcessExit OnProcessStart OnShutdown",
    "launch.events": "Shutdown matches_action",
    "launch.events.process": "ProcessExited ShutdownProcess",
    "launch.launch_description_sources": "PythonLaunchDescriptionSource",
    "launch.logging": "get_logger",
    "launch.substitutions": "Command FindExecutable LaunchConfiguration PathJoinSubstitution",
    "launch.utilities": "perform_substitutions",
    "launch_ros": "",
    "launch_ros.actions": "LifecycleNode Node PushRosNamespace SetParameter SetUseSimTime",
    "launch_ros.event_handlers": "OnStateTransition",
    "launch_ros.events": "",
    "launch_ros.events.lifecycle": "ChangeState",
    "launch_ros.parameter_descriptions": "ParameterValue",
    "launch_ros.ros_adapters": "get_ros_node",
    "launch_ros.substitutions": "FindPackageShare",
    "launch_ros.utilities": "make_namespace_absolute prefix_namespace",
}


class Entity:
    """Anything of launch: it keeps what it was made of and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def visit(self, context: LaunchContext) -> Iterable[Entity]:
        """What follows from it."""
        return ()


class LaunchContext:
    """The launch configurations, by name."""

    is_shutdown = False

    def __init__(self) -> None:
        self.launch_configurations: dict[str, str] = {}

    def perform_substitution(self, given: Any) -> str:
        """The text of a substitution."""
        return given.perform(self) if hasattr(given, "perform") else str(given)


class LaunchDescription(Entity):
    """Entities, one after the other."""

    def __init__(self, entities: Iterable[Entity] = ()) -> None:
        self.entities = list(entities)

    def add_action(self, entity: Entity) -> None:
        """One more, at the end."""
        self.entities.append(entity)

    def visit(self, context: LaunchContext) -> Iterable[Entity]:
        """All, in order."""
        return self.entities


class DeclareLaunchArgument(Entity):
    """From here on the argument exists."""

    def __init__(self, name: str, *, default_value: Any = None, description: str = "", choices: Any = None) -> None:
        self.name, self.default, self.description, self.choices = name, default_value, description, choices

    def visit(self, context: LaunchContext) -> Iterable[Entity]:
        """Take the given value, or the default."""
        if self.name not in context.launch_configurations:
            if self.default is None:
                raise RuntimeError(f"required launch argument '{self.name}' was not provided")
            context.launch_configurations[self.name] = context.perform_substitution(self.default)
        value = context.launch_configurations[self.name]
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(f"argument '{self.name}' provided value '{value}' is not valid: {self.choices}")
        return ()


class LaunchConfiguration(Entity):
    """The value of an argument that has been declared."""

    def __init__(self, name: str, *, default: Any = None) -> None:
        self.name, self.default = name, default

    def perform(self, context: LaunchContext) -> str:
        """The value; an error where the argument is not declared yet."""
        if self.name not in context.launch_configurations:
            if self.default is None:
                raise RuntimeError(f"launch configuration '{self.name}' does not exist")
            return context.perform_substitution(self.default)
        return context.launch_configurations[self.name]


class OpaqueFunction(Entity):
    """Calls a function with the context."""

    def __init__(self, *, function: Any, args: Any = (), kwargs: Any = None, **_: Any) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs or {}

    def visit(self, context: LaunchContext) -> Iterable[Entity]:
        """What the function returns."""
        return self.function(context, *self.args, **self.kwargs) or ()


class GroupAction(Entity):
    """Its actions, in a scope of their own."""

    def visit(self, context: LaunchContext) -> Iterable[Entity]:
        """The actions."""
        return self.kwargs.get("actions") or self.args[0]


def prefix_namespace(base: str | None, namespace: str | None) -> str | None:
    """As launch_ros.utilities does."""
    if base is None or (namespace or "").startswith("/"):
        return namespace
    return f"{base.rstrip('/')}/{namespace}" if namespace else base


def make_namespace_absolute(namespace: str) -> str:
    """As launch_ros.utilities does."""
    return namespace if namespace.startswith("/") else f"/{namespace}"


def install() -> None:
    """Make the stand-ins importable in this process."""
    made: dict[str, Any] = {
        name: each
        for name, each in globals().items()
        if isinstance(each, type) or name in ("prefix_namespace", "make_namespace_absolute")
    }
    for module, names in MODULES.items():
        sys.modules[module] = ModuleType(module)
        sys.modules[module].__path__ = []  # type: ignore[attr-defined]
        for name in names.split():
            made.setdefault(name, Entity if name == "LaunchDescriptionEntity" else type(name, (Entity,), {}))
            setattr(sys.modules[module], name, made[name])
