"""Publishers, subscriptions, timers and services that live as long as the lifecycle phase that made them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions

from timar_ros.errors import UserError
from timar_ros.nodes.messages import MessageError
from timar_ros.nodes.parameter_node import ParameterNode
from timar_ros.nodes.parameters import Parameter, names
from timar_ros.nodes.statistics import Statistics


def _expectation_fault(values: list[str]) -> str | None:
    for value in names(values):
        topic, _, number = value.rpartition("=")
        if not topic or not number.isdigit():
            return f"must have entries like 'turns=2', not {value!r}"
    return None


COMMON = (
    Parameter(
        "expected_subscribers",
        [""],
        "activation waits until these outputs have so many subscribers, as 'topic=count'; nothing is lost at the start",
        check=_expectation_fault,
    ),
    Parameter("expected_subscribers_timeout", 20.0, "activation fails after waiting so long [s]", 0.1, 600.0),
    Parameter("quiet_after", 5.0, "an input silent for so long [s] is logged and reported", 0.5, 3600.0, dynamic=True),
)


class ToldToEndError(Exception):
    """A transition was given up because the process is to end: no fault."""


class EndpointNode(ParameterNode, LifecycleNode):
    """What a node created with these methods in `configure` is destroyed at cleanup, in `activate` at deactivation."""

    statistics: Statistics
    stopping: Callable[[], bool] = staticmethod(lambda: False)
    """Whether the process was told to end: what waits in a callback then gives up."""

    def prepare_endpoints(self) -> None:
        """Set up the book-keeping; before anything is created."""
        # What lives as long as a phase, in the order of its making, and how each thing is ended.
        self._configured: dict[Any, Callable[[], Any]] = {}
        self._active: dict[Any, Callable[[], Any]] = {}
        self._scope = self._configured
        self._outputs: dict[str, Any] = {}
        self._heard: dict[str, float] = {}

    def publish_on(self, message_type: type, topic: str, profile: QoSProfile) -> Any:
        """A publisher that is silent unless the node is active; thread-safe."""
        made = self.create_lifecycle_publisher(
            message_type,
            topic,
            profile,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            # Not rclpy's own: each of them costs at every turn of the executor.
            event_callbacks=PublisherEventCallbacks(
                use_default_callbacks=False, incompatible_qos=lambda event: self._mismatch("subscriber", topic, event)
            ),
        )
        if self.phase == "active":  # created during `activate`: rclpy has opened the others already
            made.on_activate(None)
        self._outputs[topic] = made
        self._scope[made] = lambda: self._forget(self._outputs, topic, self.destroy_lifecycle_publisher, made)
        return made

    def subscribe(
        self,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        profile: QoSProfile,
        *,
        inactive: bool = False,
        optional: bool = False,
    ) -> Any:
        """A subscription whose bad messages are counted and logged instead of ending the node.

        :param callback: may raise MessageError or UserError to reject a message. Anything else is a fault of ours.
        :param inactive: deliver also while the node is configured but not active (latched topics).
        :param optional: silence on this topic is nothing to report.
        """
        watched = not optional and not inactive

        def guarded(message: Any) -> None:
            if self.phase != "active" and not inactive:
                return
            if watched:
                self._heard[topic] = time.monotonic()
            self.statistics.tick(topic)
            try:
                callback(message)
            except (MessageError, UserError) as error:
                self.statistics.count(f"{topic} rejected")
                self.get_logger().warning(f"{topic}: message rejected: {error}", throttle_duration_sec=5.0)

        made = self.create_subscription(
            message_type,
            topic,
            guarded,
            profile,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            event_callbacks=SubscriptionEventCallbacks(
                use_default_callbacks=False, incompatible_qos=lambda event: self._mismatch("publisher", topic, event)
            ),
        )
        self.statistics.count(topic, 0)
        if watched:
            self._heard[topic] = time.monotonic()
        self._scope[made] = lambda: self._forget(self._heard, topic, self.destroy_subscription, made)
        return made

    def _mismatch(self, other: str, topic: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self.statistics.count(f"{topic} incompatible {other}s", event.total_count_change)
        self.get_logger().warning(
            f"{topic}: a {other} with other {policy.lower()} does not connect: set qos_overrides on either side"
        )

    def every(self, seconds: float, callback: Callable[[], None], *, steady: bool = False) -> Any:
        """A timer on the node's clock (``steady``: on wall time, for watching only); runs while active."""
        clock = Clock(clock_type=ClockType.STEADY_TIME) if steady else self.get_clock()
        made = self.create_timer(seconds, lambda: callback() if self.phase == "active" else None, clock=clock)
        self._scope[made] = lambda: self.destroy_timer(made)
        return made

    def serve(self, service_type: type, name: str, callback: Callable[[Any, Any], Any]) -> Any:
        """A service; it answers while the node is configured."""
        made = self.create_service(service_type, name, callback)
        self._scope[made] = lambda: self.destroy_service(made)
        return made

    def drop(self, made: Any) -> None:
        """End something that was made here before its phase ends; nothing happens where it has ended already."""
        for scope in (self._active, self._configured):
            if (end := scope.pop(made, None)) is not None:
                end()

    def await_subscribers(self) -> None:
        """Wait for what `expected_subscribers` says.

        :raises UserError: when they do not come in time, naming the output.
        """
        deadline = time.monotonic() + float(self.value("expected_subscribers_timeout"))
        for entry in names(self.value("expected_subscribers")):
            topic, _, number = entry.rpartition("=")
            if topic not in self._outputs:
                raise UserError(f"'expected_subscribers' names {topic!r}; this node publishes {sorted(self._outputs)}")
            while (count := self._outputs[topic].get_subscription_count()) < int(number):
                if time.monotonic() > deadline:
                    raise UserError(f"{topic} has {count} of {number} expected subscribers: are the other nodes up?")
                if self.stopping():
                    raise ToldToEndError(f"told to end while waiting for the subscribers of {topic}")
                time.sleep(0.005)

    def quiet_inputs(self) -> list[str]:
        """Watched inputs on which nothing came for `quiet_after`."""
        now, limit = time.monotonic(), float(self.value("quiet_after"))
        return [topic for topic, last in self._heard.items() if now - last > limit]

    def listen_anew(self) -> None:
        """Start the watch over the inputs now."""
        for topic in self._heard:
            self._heard[topic] = time.monotonic()

    @staticmethod
    def _forget(register: dict[str, Any], topic: str, destroy: Callable[[Any], Any], entity: Any) -> None:
        register.pop(topic, None)
        destroy(entity)
