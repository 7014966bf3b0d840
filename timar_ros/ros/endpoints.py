"""Publishers, subscriptions, timers and services that live as long as the lifecycle phase that created them."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions

from timar_ros.errors import UserError
from timar_ros.ros.diagnostics import Statistics
from timar_ros.ros.messages import MessageError
from timar_ros.ros.parameter_node import ParameterNode
from timar_ros.ros.parameters import Parameter, names
from timar_ros.streaming.message_checks import check_fields, type_name


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
        "subscribers that activation waits for, as 'topic=count', so that no message is lost at the start",
        check=_expectation_fault,
    ),
    Parameter("expected_subscribers_timeout", 20.0, "longest wait; then activation fails [s]", 0.1, 600.0),
    Parameter("quiet_after", 5.0, "silence of an input that is logged and reported [s]", 0.5, 3600.0, dynamic=True),
)


class StopRequestedError(Exception):
    """A transition was ended because the process must stop. This is no fault."""


class EndpointNode(ParameterNode, LifecycleNode):
    """Endpoints created in `configure` are destroyed at cleanup, those created in `activate` at deactivation."""

    statistics: Statistics
    stopping: Callable[[], bool] = staticmethod(lambda: False)
    """Whether the process was asked to stop. A callback that waits must then end its wait."""

    def prepare_endpoints(self) -> None:
        """Prepare the lists of endpoints; call this method before any endpoint is created."""
        # Endpoints by phase, in the order of creation, each with the call that destroys it.
        self._configured: dict[Any, Callable[[], Any]] = {}
        self._active: dict[Any, Callable[[], Any]] = {}
        self._scope = self._configured
        self._outputs: dict[str, Any] = {}
        self._last_messages: dict[str, float] = {}
        self.last_fault = ""
        """The latest exception of a callback, with the callback's topic, timer or service."""
        self.last_rejection = ""
        """The latest rejected message: its topic and the reason."""
        self._logged_faults: set[tuple[str, str, str]] = set()

    def note_fault(self, what: str, error: Exception) -> None:
        """Count an exception that ended a callback or a step of a thread; log each cause once. From any thread.

        :param what: the topic, timer, service or thread.
        """
        place = traceback.extract_tb(error.__traceback__)[-1:]
        where = f"{place[0].filename}:{place[0].lineno}" if place else ""
        self.last_fault = f"{what}: {type(error).__name__}: {error}"
        self.statistics.count("callback faults")
        cause = (what, type(error).__name__, where)
        if cause not in self._logged_faults:
            self._logged_faults.add(cause)
            trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            self.get_logger().error(f"{self.last_fault} (the node continues; logged once)\n{trace}")

    def guard(self, what: str, callback: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a callback: :meth:`note_fault` counts and logs its exceptions, and the process continues."""

        def guarded(*arguments: Any) -> Any:
            try:
                return callback(*arguments)
            except Exception as error:
                self.note_fault(what, error)
                return None

        return guarded

    def publish_on(self, message_type: type, topic: str, profile: QoSProfile) -> Any:
        """Create a publisher that publishes only while the node is active; thread-safe."""
        publisher = self.create_lifecycle_publisher(
            message_type,
            topic,
            profile,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            # No default callbacks of rclpy: each costs time in every cycle of the executor.
            event_callbacks=PublisherEventCallbacks(
                use_default_callbacks=False, incompatible_qos=lambda event: self._mismatch("subscriber", topic, event)
            ),
        )
        if self.phase == "active":  # created during `activate`: rclpy has activated the others already
            publisher.on_activate(None)
        self._outputs[topic] = publisher
        self._scope[publisher] = lambda: self._forget(self._outputs, topic, self.destroy_lifecycle_publisher, publisher)
        return publisher

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
        """Create a subscription that counts and logs bad messages; they do not end the node.

        :mod:`timar_ros.streaming.message_checks` checks every field before the callback gets the message.

        :param callback: may raise MessageError or UserError to reject a message. Any other exception is a bug of the
            node; :meth:`note_fault` counts and logs it, and the node continues.
        :param inactive: deliver also while the node is configured but not active (latched topics).
        :param optional: do not report silence on this topic.
        """
        watched = not optional and not inactive
        kind = type_name(message_type)

        def guarded(message: Any) -> None:
            if self.phase != "active" and not inactive:
                return
            if watched:
                self._last_messages[topic] = time.monotonic()
            self.statistics.tick(topic)
            try:
                check_fields(message, kind)
                callback(message)
            except (MessageError, UserError) as error:
                self.statistics.count(f"{topic} rejected")
                self.statistics.count("messages rejected")
                self.last_rejection = f"{topic}: message rejected: {error}"
                self.get_logger().warning(self.last_rejection, throttle_duration_sec=5.0)
            except Exception as error:
                self.note_fault(topic, error)

        subscription = self.create_subscription(
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
            self._last_messages[topic] = time.monotonic()
        self._scope[subscription] = lambda: self._forget(
            self._last_messages, topic, self.destroy_subscription, subscription
        )
        return subscription

    def _mismatch(self, other: str, topic: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self.statistics.count(f"{topic} incompatible {other}s", event.total_count_change)
        self.get_logger().warning(
            f"{topic}: a {other} with other {policy.lower()} does not connect: set qos_overrides on either side"
        )

    def every(self, seconds: float, callback: Callable[[], None], *, steady: bool = False) -> Any:
        """Create a timer on simulated time if the node uses it, else on steady time; it runs while the node is active.

        :param steady: use steady time even with simulated time; for monitoring only.
        """
        # A timer on the system's clock would stand still for the time by which that clock is set back.
        use_steady = steady or not self.get_parameter("use_sim_time").value
        clock = Clock(clock_type=ClockType.STEADY_TIME) if use_steady else self.get_clock()
        guarded = self.guard(f"timer {getattr(callback, '__name__', '')}", callback)
        timer = self.create_timer(seconds, lambda: guarded() if self.phase == "active" else None, clock=clock)
        self._scope[timer] = lambda: self.destroy_timer(timer)
        return timer

    def serve(self, service_type: type, name: str, callback: Callable[[Any, Any], Any]) -> Any:
        """Create a service that answers while the node is configured; its answer to a bad request has the reason."""
        kind = type_name(service_type)

        def guarded(request: Any, response: Any) -> Any:
            try:
                check_fields(request, kind)
                return callback(request, response)
            except (MessageError, UserError) as error:
                reason = str(error)
            except Exception as error:
                self.note_fault(name, error)
                reason = f"{type(error).__name__}: {error}"
            response.success, response.message = False, reason
            return response

        service = self.create_service(service_type, name, guarded)
        self._scope[service] = lambda: self.destroy_service(service)
        return service

    def drop(self, endpoint: Any) -> None:
        """Destroy an endpoint before its phase ends; no effect on one that is destroyed already."""
        for scope in (self._active, self._configured):
            if (destroy := scope.pop(endpoint, None)) is not None:
                destroy()

    def await_subscribers(self) -> None:
        """Wait for the subscribers in `expected_subscribers`.

        :raises UserError: when they do not come in time; the error names the output.
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
                    raise StopRequestedError(f"asked to stop while waiting for the subscribers of {topic}")
                time.sleep(0.005)

    def quiet_inputs(self) -> list[str]:
        """The watched inputs that were silent for `quiet_after`."""
        now, limit = time.monotonic(), float(self.value("quiet_after"))
        return [topic for topic, last in self._last_messages.items() if now - last > limit]

    def restart_input_watch(self) -> None:
        """Measure the inputs' silence from now on."""
        for topic in self._last_messages:
            self._last_messages[topic] = time.monotonic()

    @staticmethod
    def _forget(register: dict[str, Any], topic: str, destroy: Callable[[Any], Any], entity: Any) -> None:
        register.pop(topic, None)
        destroy(entity)
