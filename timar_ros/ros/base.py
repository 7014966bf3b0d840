"""Base class of this package's nodes: parameters, transitions with reported errors, guarded callbacks, diagnostics.

A node overrides the hooks `configure`, `activate`, `deactivate`, `cleanup`, `diagnose` and `changed`. Endpoints that
`configure` creates with `publish_on`, `subscribe`, `every` and `serve` live until cleanup; endpoints that `activate`
creates live until deactivation.
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
from timar_ros.ros import qos
from timar_ros.ros.diagnostics import Statistics
from timar_ros.ros.endpoints import COMMON, EndpointNode, StopRequestedError
from timar_ros.ros.parameters import Parameter

__all__ = ["ERROR", "OK", "WARN", "ManagedNode", "Parameter", "another_clock"]

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
Diagnosis = tuple[bytes, str, dict[str, str]]

OTHER_CLOCK = 30.0
"""Input this far in the past [s] is not late: its stamps come from another clock than the node's."""


def another_clock(behind: float) -> str | None:
    """The message for input whose time is ``behind`` the node's clock [s]; None if the input may only be late."""
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
    """A lifecycle node with the common behaviour of this package.

    :param name: the node's default name.
    :param options: further arguments of rclpy's Node (``namespace``, ``parameter_overrides``, ``context`` …).
    :raises UserError: when a parameter override is invalid.
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
        # Steady time, not the node's clock: a simulated clock that stands still must not stop the diagnostics.
        self._diagnostics = Node.create_publisher(self, DiagnosticArray, "/diagnostics", qos.diagnostics())
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self.guard("diagnostics", self._diagnose), clock=steady)

    # Hooks ----------------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Read the parameters, load files, create endpoints; raise UserError with the reason of a failure."""

    def activate(self) -> None:
        """Start the node's work. Publishers are already active."""

    def deactivate(self) -> None:
        """Stop the work of `activate`; publishers are still active. Also called when `activate` fails half-way."""

    def cleanup(self) -> None:
        """Free what `configure` created. Also called when `configure` fails half-way: any attribute may be missing."""

    def diagnose(self) -> Diagnosis:
        """Level, message and extra rows for ``/diagnostics`` while active."""
        return OK, "active", {}

    def now_ns(self) -> int:
        """The node's time (simulated where ``use_sim_time`` is set) [ns]."""
        return int(self.get_clock().now().nanoseconds)

    # Transitions ----------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        """Run `configure`; after a failure the node is unconfigured and can be configured again."""
        self.statistics = Statistics()
        self._logged_faults.clear()
        self._scope = self._configured
        result = self._attempt("configure", self._load, FAILURE)
        if result is SUCCESS:
            self.phase = "inactive"
        else:
            self._go_unconfigured()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate the publishers, wait for expected subscribers, run `activate`."""
        super().on_activate(state)
        self.phase = "active"
        self._scope = self._active
        self.restart_input_watch()
        result = self._attempt("activate", self._begin, FAILURE)
        if result is not SUCCESS:
            self._go_inactive(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `deactivate`, then deactivate the publishers."""
        return self._go_inactive(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        """Run `cleanup` and destroy the endpoints."""
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
        """After a fault in a transition, free everything, so that the node can be configured again."""
        if self.phase == "active":
            self._go_inactive(state)
        self._go_unconfigured()
        return SUCCESS

    def _load(self) -> None:
        # A half loaded model needs no orderly end, so a stop request interrupts the loading.
        try:
            self.loading = True
            self.configure()
        except KeyboardInterrupt as interrupted:
            raise StopRequestedError("asked to stop during configure") from interrupted
        finally:
            self.loading = False

    def _begin(self) -> None:
        self.await_subscribers()
        self.activate()

    def _attempt(self, what: str, hook: Callable[[], Any], otherwise: TransitionCallbackReturn) -> Any:
        # rclpy swallows exceptions of transitions (rclpy#1673), so they are caught and logged here.
        try:
            hook()
        except StopRequestedError as error:
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
        """Deactivate, clean up and finalize, from any state."""
        if self.phase == "active":
            self.trigger_deactivate()
        if self.phase == "inactive":
            self.trigger_cleanup()
        if self.phase == "unconfigured":
            self.trigger_shutdown()

    # Diagnostics ----------------------------------------------------------------------------------------------------

    def destroy_node(self) -> None:
        """Free the node and, as the last node of its context, the DDS participant.

        rclpy leaves the lifecycle's state machine, which holds the node, to the garbage collector. Participants that
        pile up in a process are seen by others, and with discovery on localhost FastDDS finds only the first 32.
        """
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def _diagnosis(self) -> Diagnosis:
        """The result of `diagnose`; callback exceptions and rejected messages since the last report come first."""
        try:
            level, message, rows = self.diagnose()
        except Exception as error:
            self.note_fault("diagnose", error)
            level, message, rows = ERROR, "", {}
        rejected = self.statistics.grown("messages rejected")
        if self.statistics.grown("callback faults"):
            return ERROR, self.last_fault, rows
        if rejected and level == OK:
            return WARN, self.last_rejection, rows
        return level, message, rows

    def _diagnose(self) -> None:
        level, message = (ERROR, self.fault) if self.fault else (OK, self.phase)
        rows: dict[str, str] = {}
        if self.phase == "active":
            level, message, rows = self._diagnosis()
            quiet = self.quiet_inputs()
            if quiet:
                # Silence is a normal state of a conversation. Not STALE: that level describes the report itself, and
                # aggregators treat it as an error. WARN when an input has come before and then stopped.
                quiet_level = WARN if any(self.statistics.counted(topic) for topic in quiet) else OK
                level, message = max(level, quiet_level), f"waiting for {', '.join(quiet)}"
            if quiet != self._waiting_for:
                self._waiting_for = quiet
                self.get_logger().info(message if quiet else "all inputs arrive")
        rows = {"state": self.phase, **self.statistics.rows(time.monotonic()), **rows}
        status = DiagnosticStatus(level=level, name=f"{self.get_fully_qualified_name()[1:]}: node", message=message)
        status.hardware_id = self.hardware
        status.values = [KeyValue(key=key, value=value) for key, value in rows.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)
