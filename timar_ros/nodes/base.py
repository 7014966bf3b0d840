"""What every node of this package shares: parameters, transitions that report, guarded callbacks, diagnostics.

A node overrides the hooks `configure`, `activate`, `deactivate`, `cleanup`, `diagnose` and `changed`. What it creates
with `publish_on`, `subscribe`, `every` and `serve` in `configure` lives until cleanup, in `activate` until
deactivation.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from timar_ros.errors import UserError
from timar_ros.nodes import qos
from timar_ros.nodes.endpoints import COMMON, EndpointNode, ToldToEndError
from timar_ros.nodes.parameters import Parameter
from timar_ros.nodes.statistics import Statistics

__all__ = ["ERROR", "OK", "WARN", "ManagedNode", "Parameter", "another_clock"]

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
Diagnosis = tuple[bytes, str, dict[str, str]]

OTHER_CLOCK = 30.0
"""What lies so far in the past [s] is not late: its stamps come from another clock than the node's."""


def another_clock(behind: float) -> str | None:
    """What to tell of input whose time lies so far behind the node's clock [s]; None when it may just be late."""
    if behind < OTHER_CLOCK:
        return None
    return (
        f"stamps lie {behind:.0f} s in the past, so they are of another clock: play the bag with --clock and set "
        "use_sim_time, or use bag_player"
    )


SUCCESS, FAILURE, FAULT = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class ManagedNode(EndpointNode):
    """A lifecycle node with the manners of this package.

    :param name: the node's default name.
    :param options: what rclpy's Node takes besides (``namespace``, ``parameter_overrides``, ``context`` …).
    :raises UserError: when a parameter given at the start is refused.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.statistics = Statistics()
        self.phase = "unconfigured"
        self.fault: str | None = None
        self.loading = False
        """Whether `configure` runs."""
        self.hardware = ""
        """The device that the node works with, for the diagnostics; empty: none."""
        self._waiting_for: list[str] = []
        self.prepare_endpoints()
        self.declare_table((*self.PARAMETERS, *COMMON))
        self._guard_invalid_transitions()
        # Wall time, not the node's clock: a simulated clock that stands still must not silence the diagnostics.
        self._diagnostics = Node.create_publisher(self, DiagnosticArray, "/diagnostics", qos.diagnostics())
        self.create_timer(1.0, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Hooks ----------------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Read the parameters, load, create. Raise UserError with the reason if that cannot be done."""

    def activate(self) -> None:
        """Begin. Outputs are already open."""

    def deactivate(self) -> None:
        """Stop what `activate` began; outputs are still open. Also called when `activate` fails half-way."""

    def cleanup(self) -> None:
        """Free what `configure` took; also called when `configure` fails half-way, so everything may be missing."""

    def diagnose(self) -> Diagnosis:
        """Level, message and extra rows for ``/diagnostics`` while active."""
        return OK, "active", {}

    def now_ns(self) -> int:
        """The node's time (simulated where ``use_sim_time`` is set) [ns]."""
        return int(self.get_clock().now().nanoseconds)

    # Transitions ----------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        """Run `configure`; on failure the node is as it was and can be configured again."""
        self.statistics = Statistics()
        self._scope = self._configured
        result = self._attempt("configure", self._load, FAILURE)
        if result is SUCCESS:
            self.phase = "inactive"
        else:
            self._go_unconfigured()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the outputs, wait for expected subscribers, run `activate`."""
        super().on_activate(state)
        self.phase = "active"
        self._scope = self._active
        self.listen_anew()
        result = self._attempt("activate", self._begin, FAILURE)
        if result is not SUCCESS:
            self._go_inactive(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `deactivate`, then close the outputs."""
        return self._go_inactive(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        """Run `cleanup` and destroy what was created."""
        return self._go_unconfigured()

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and clean up as far as needed."""
        if self.phase == "active":
            self._go_inactive(state)
        if self.phase == "inactive":
            self._go_unconfigured()
        self.phase = "finalized"
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a fault in a transition the node lets everything go and can be configured again."""
        if self.phase == "active":
            self._go_inactive(state)
        self._go_unconfigured()
        return SUCCESS

    def _load(self) -> None:
        # A model that is half loaded needs no orderly end: whoever wants the node to end need not wait for the rest.
        try:
            self.loading = True
            self.configure()
        except KeyboardInterrupt as interrupted:
            raise ToldToEndError("told to end while it configured") from interrupted
        finally:
            self.loading = False

    def _begin(self) -> None:
        self.await_subscribers()
        self.activate()

    def _attempt(self, what: str, hook: Callable[[], Any], otherwise: TransitionCallbackReturn) -> Any:
        # rclpy swallows exceptions of transitions (rclpy#1673), so they are caught and told here.
        try:
            hook()
        except ToldToEndError as error:
            self.fault = None
            self.get_logger().info(str(error))
            return otherwise
        except UserError as error:
            self.fault = f"cannot {what}: {error}"
            self.get_logger().error(self.fault)
            return otherwise
        except Exception as error:
            self.fault = f"cannot {what}: {type(error).__name__}: {error}"
            self.get_logger().error(f"{self.fault}\n{traceback.format_exc()}")
            return otherwise
        self.fault = None
        return SUCCESS

    def _go_inactive(self, state: LifecycleState) -> TransitionCallbackReturn:
        fault = self.fault
        result = self._attempt("deactivate", self.deactivate, FAULT)
        self.fault = self.fault or fault
        self.phase = "inactive"
        self._destroy(self._active)
        super().on_deactivate(state)
        return result

    def _go_unconfigured(self) -> TransitionCallbackReturn:
        fault = self.fault
        result = self._attempt("clean up", self.cleanup, FAULT)
        self.fault = self.fault or fault
        self.phase = "unconfigured"
        self._destroy(self._configured)
        return result

    @staticmethod
    def _destroy(scope: dict[Any, Callable[[], Any]]) -> None:
        while scope:
            scope.popitem()[1]()

    def _guard_invalid_transitions(self) -> None:
        # rclpy raises out of the executor when a client asks for a transition that the state does not allow.
        original = self._service_change_state.callback

        def guarded(request: Any, response: Any) -> Any:
            try:
                return original(request, response)
            except Exception as error:
                self.get_logger().error(
                    f"transition {request.transition.label or request.transition.id} refused: {error}"
                )
                response.success = False
                return response

        self._service_change_state.callback = guarded

    def end(self) -> None:
        """Deactivate, clean up and finalize, from whatever state the node is in."""
        if self.phase == "active":
            self.trigger_deactivate()
        if self.phase == "inactive":
            self.trigger_cleanup()
        if self.phase == "unconfigured":
            self.trigger_shutdown()

    # Diagnostics ----------------------------------------------------------------------------------------------------

    def _diagnose(self) -> None:
        level, message = (ERROR, self.fault) if self.fault else (OK, self.phase)
        rows: dict[str, str] = {}
        if self.phase == "active":
            level, message, rows = self.diagnose()
            quiet = self.quiet_inputs()
            if quiet:
                # Silence is a state of the conversation. STALE would be about the report itself, and an aggregator
                # makes an error of it. Where input has come before, that it stopped is worth a look.
                fine = WARN if any(self.statistics.counted(topic) for topic in quiet) else OK
                level, message = max(level, fine), f"waiting for {', '.join(quiet)}"
            if quiet != self._waiting_for:
                self._waiting_for = quiet
                self.get_logger().info(message if quiet else "all inputs are heard")
        rows = {"state": self.phase, **self.statistics.rows(time.monotonic()), **rows}
        status = DiagnosticStatus(level=level, name=f"{self.get_fully_qualified_name()[1:]}: node", message=message)
        status.hardware_id = self.hardware
        status.values = [KeyValue(key=key, value=value) for key, value in rows.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)
