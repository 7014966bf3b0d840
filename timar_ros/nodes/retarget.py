"""Node `retarget`: converts the agent's FLAME motion to a robot's joint commands, within the robot's limits.

Motion arrives ahead of its presentation time. The node computes commands in batches a little ahead of time and sends
them when they are due; for a trajectory controller it sends each chunk at once, as a trajectory that ends at rest.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

from geometry_msgs.msg import PointStamped
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Header
from std_srvs.srv import SetBool

from timar_ros.errors import UserError
from timar_ros.msg import FlameMotion, RetargetInfo, StreamInfo
from timar_ros.node_parts import style
from timar_ros.node_parts.controller_parameter import FLAG, ControllerFlag
from timar_ros.node_parts.head_driver import (
    HELD_UP_NS,
    MAX_BACKLOG_NS,
    SIMULATED_HELD_UP_NS,
    DriverOptions,
    HeadDriver,
)
from timar_ros.node_parts.pacing import Pacer
from timar_ros.node_parts.retarget_parameters import DYNAMIC, PARAMETERS, retarget_options
from timar_ros.retarget import load_profile
from timar_ros.ros import qos
from timar_ros.ros.base import OK, WARN, Diagnosis, ManagedNode, another_clock
from timar_ros.ros.joint_outputs import JointOutputs
from timar_ros.ros.messages import MessageError, motion, shown_ns, to_ns, to_stamp
from timar_ros.ros.node_process import run
from timar_ros.srv import SetStyle
from timar_ros.streaming.clock_steps import spoken
from timar_ros.streaming.stream_info import allowance


class Retarget(ManagedNode):
    """Moves one robot's head."""

    PARAMETERS = PARAMETERS

    driver: HeadDriver
    _pacer: Pacer | None = None
    _states: Any = None
    _flag: ControllerFlag | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__("retarget", **options)
        self._enabled = True

    def configure(self) -> None:
        """Read the robot's profile, create publishers, subscriptions and services."""
        self._profile = load_profile(self.value("robot"))
        self._kind = self._profile.output if self.value("output") == "profile" else self.value("output")
        stamped = self.value("stamp") == "presentation"
        if self._kind == "trajectory" and not stamped and not self.value("exceed_limits"):
            raise UserError(
                "stamp 'zero' lets the controller exceed the limits of velocity and acceleration: use "
                "'presentation' with clocks set by NTP or PTP, or output 'forward'; exceed_limits: true allows it"
            )
        self._outputs_of_robot = JointOutputs(self, self._profile, self._kind, self.value("joint_states"))
        self._driving = DriverOptions(
            rate=self.value("rate"),
            point_step=max(1, round(self.value("rate") / self.value("point_rate"))),
            stamped=stamped,
            held_up_ns=SIMULATED_HELD_UP_NS if self._simulated_time() else HELD_UP_NS,
        )
        if self._kind == "trajectory":
            self._flag = ControllerFlag(self, self._outputs_of_robot.trajectory_topic)
        self._info: StreamInfo | None = None
        self._new_driver()
        self._info_publisher = self.publish_on(RetargetInfo, "retarget_info", qos.latched())
        self.subscribe(FlameMotion, "agent/motion", self._take, qos.motion())
        self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)
        self.subscribe(Header, "cancel", self._cancel, qos.commands(), optional=True)
        self._subscribe_to_states(True)
        self.subscribe(Bool, "gaze/active", self._take_gaze, qos.commands(), optional=True)
        self.subscribe(JointState, "gaze/joint_states", self._take_gaze_pose, qos.commands(), optional=True)
        self.subscribe(PointStamped, "gaze/target", self._take_target, qos.commands(), optional=True)
        self.serve(SetBool, "~/enable", self._enable)
        self.serve(SetStyle, "~/set_style", self._set_style)
        if self._simulated_time():
            self.every(1.0 / self._driving.rate, self._tick)
        for what in ("frames rejected", "frames late", "frames cancelled", "interruptions", "trajectories"):
            self.statistics.count(what, 0)

    def activate(self) -> None:
        """Start again; the first tick begins at the robot's position."""
        self._new_driver()
        self._subscribe_to_states(True)
        self._publish_info()
        self._activated_ns = self.now_ns()
        if not self._simulated_time():
            self._pacer = Pacer(1.0 / self._driving.rate, self.guard("commands", self._tick), "commands")

    def _new_driver(self) -> None:
        self.driver = HeadDriver(self._profile, retarget_options(self.value), self._outputs_of_robot, self._driving)
        self.driver.enabled = self._enabled
        self._other_clock: str | None = None  # why the newest motion's stamps must come from another clock
        self._forget_states()

    def _forget_states(self) -> None:
        self._measured: dict[str, float] = {}  # the latest finite position of each joint
        self._not_finite: set[str] = set()  # joints in joint_states without any finite position so far
        self._assumed: list[str] = []  # joints with an unknown position at the start
        self._resting: dict[str, float] = {}  # positions at the end of the last commands, before a new start

    def _simulated_time(self) -> bool:
        return bool(self.get_parameter("use_sim_time").value)

    def deactivate(self) -> None:
        """Ease to neutral within the limits, then stop sending commands."""
        if self._pacer is not None:
            self._pacer.stop()
            self._pacer = None
        if not self._enabled:
            return
        now, started = self.now_ns(), time.monotonic()
        self.driver.ease_out(now)
        deadline = retarget_options(self.value).ease + 3.0
        while not self.driver.eased_out and (passed := time.monotonic() - started) < deadline:
            self.driver.tick(now + round(passed * 1e9))
            time.sleep(1.0 / self._driving.rate)

    def cleanup(self) -> None:
        """Destroy the subscriptions and clients of `configure`."""
        self._states = None
        if self._flag is not None:
            self._flag.close()
            self._flag = None

    def changed(self, name: str, value: Any) -> None:  # noqa: ARG002
        """Apply a changed gain or speed."""
        if any(parameter.name == name for parameter in DYNAMIC):
            self.driver.change(retarget_options(self.value))
            self._publish_info()

    def _publish_info(self) -> None:
        """Publish the retargeting options in use."""
        options = asdict(retarget_options(self.value))
        info = RetargetInfo(robot=self.value("robot"), rate=float(self.value("rate")), **options)
        info.header.stamp = to_stamp(self.now_ns())
        self._info_publisher.publish(info)

    def diagnose(self) -> Diagnosis:
        """Report commands, rejected input, and whether motion comes early enough."""
        r, count = self.driver.retargeter, self.statistics.count
        rows = {"robot": self._profile.name, "output": self._kind, "enabled": str(self._enabled)}
        if self._info is not None:
            rows["playback_delay [s]"] = f"{self._info.playback_delay:.3f}"
        if r is None:
            if self._not_finite:
                return WARN, f"joint_states: positions are not finite: {', '.join(sorted(self._not_finite))}", rows
            return WARN, f"waiting for joint_states of {', '.join(self._unknown())}", rows
        totals = {
            "frames rejected": r.rejected,
            "frames late": r.late,
            "frames cancelled": self.driver.frames_cancelled,
            "trajectories": self.driver.trajectories,
        }
        if self.driver.hold_ups:
            totals["hold-ups"] = self.driver.hold_ups
        for what, total in totals.items():
            count(what, max(total - self.statistics.counted(what), 0))
        from_desired = None if self._flag is None else self._flag.poll()
        if self._flag is not None:
            rows[FLAG] = "not known" if from_desired is None else str(from_desired).lower()
        rows["gaze"] = self.value("gaze_mode") if self.driver.gaze else "none"
        rows["motion known ahead [s]"] = f"{((r.end_ns or self.driver.seen_ns) - self.now_ns()) * 1e-9:.3f}"
        if self._other_clock:
            return WARN, self._other_clock, rows
        if not self._measured:
            return WARN, "no joint_states: started from neutral", rows
        if self._flag is not None and not self._driving.stamped:
            broken = "accelerations" if from_desired else "velocities and accelerations"
            return WARN, f"stamp 'zero': {broken} may exceed limits; use 'presentation' or output 'forward'", rows
        if self.statistics.grown("frames late"):
            what = allowance("" if self._info is None else self._info.mode)
            return WARN, f"motion comes too late: raise {what} by at least {r.lookahead:.2f} s", rows
        if self.statistics.grown("clock steps"):
            return WARN, "the clock stepped: started again at the robot's position", rows
        if self.statistics.grown("hold-ups"):
            return WARN, "this process was held up, or its clock stepped ahead: commands began again at rest", rows
        if self.statistics.grown("frames rejected"):
            return WARN, "frames are not finite or out of range", rows
        if self._assumed:
            return WARN, f"started without joint_states of {', '.join(self._assumed)}: assumed neutral for them", rows
        return OK, "following" if self._enabled else "stopped", rows

    # Inputs ---------------------------------------------------------------------------------------------------------

    def _subscribe_to_states(self, wanted: bool) -> None:
        """Subscribe to joint_states when needed: at the start and while another controller moves the head."""
        if wanted and self._states is None:
            self._states = self.subscribe(
                JointState, "joint_states", self._take_state, qos.commands(), inactive=True, optional=True
            )
        elif not wanted and self._states is not None:
            self.drop(self._states)
            self._states = None

    def _take(self, message: FlameMotion) -> None:
        chunk = motion(message)
        now = self.now_ns()
        self.statistics.latency("motion ahead", (chunk.stamp_ns - now) * 1e-9)
        self._other_clock = another_clock((now - chunk.stamp_ns) * 1e-9 - len(chunk.frames) / chunk.rate)
        try:
            self.driver.push(now, chunk)
        except MessageError as error:
            self._other_clock = self._other_clock or str(error)
            raise
        if self.driver.retargeter is not None and self._measured and not self.driver.gaze:
            self._subscribe_to_states(False)

    def _take_info(self, message: StreamInfo) -> None:
        self._info = message

    def _cancel(self, message: Header) -> None:
        """The agent was interrupted: stop its motion until motion from after the interruption is due."""
        self.driver.cancel(self.now_ns(), shown_ns(message.stamp, self._info))
        self.statistics.count("interruptions")

    def _take_state(self, message: JointState) -> None:
        positions = dict(zip(message.name, message.position, strict=False))
        finite = {name: position for name, position in positions.items() if math.isfinite(position)}
        self._measured.update(finite)
        self._not_finite |= positions.keys() & set(self._profile.names)
        self._not_finite -= self._measured.keys()
        self.driver.measured(finite)

    def _take_gaze(self, message: Bool) -> None:
        if message.data:
            self._subscribe_to_states(True)
        self.driver.set_gaze(self.now_ns(), bool(message.data))

    def _take_gaze_pose(self, message: JointState) -> None:
        if self.driver.gaze:
            self.driver.set_gaze(self.now_ns(), True, dict(zip(message.name, message.position, strict=False)))

    def _take_target(self, message: PointStamped) -> None:
        wanted = self.value("gaze_frame") or self._profile.pose_frame
        frame = message.header.frame_id.lstrip("/")
        if frame and frame != wanted:
            raise MessageError(f"is in frame '{frame}', not '{wanted}' (gaze_frame)")
        now, point = self.now_ns(), message.point
        self.driver.look(now, to_ns(message.header.stamp) or now, (point.x, point.y, point.z))

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = bool(request.data)
        self.driver.enable(self.now_ns(), self._enabled)
        response.success, response.message = True, "following" if self._enabled else "stopped and holding"
        return response

    def _set_style(self, request: SetStyle.Request, response: SetStyle.Response) -> SetStyle.Response:
        try:
            wanted = style.values_of(request, gains=True)
        except UserError as error:
            response.success, response.message = False, str(error)
            return response
        done = self.set_parameters_atomically([Parameter(name, value=value) for name, value in wanted.items()])
        response.success = bool(done.successful)
        response.message = (style.in_words(wanted) or "nothing to change") if done.successful else done.reason
        return response

    # Outputs --------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.now_ns()
        if now <= 0:  # simulated time has not begun yet
            return
        if now < self.driver.seen_ns - MAX_BACKLOG_NS:
            self.get_logger().warning(
                f"the clock stepped {spoken(now - self.driver.seen_ns)}: starting again at the robot's position"
            )
            self.statistics.count("clock steps")
            resting = dict(self.driver.resting)
            self.driver.halt()
            self.driver.seen_ns = 0
            self._forget_states()
            self._resting = resting
            self._subscribe_to_states(True)
            self._activated_ns = now
        if self._activated_ns <= 0:
            self._activated_ns = now
        if self.driver.retargeter is None and self._may_start(now):
            self._assumed = [name for name in self._unknown() if name not in self._resting]
            if self._assumed:
                self.get_logger().warning(
                    f"no joint_states of {', '.join(self._assumed)}: assuming neutral; raise wait_for_state if the "
                    "robot publishes them later"
                )
            self.driver.start(now, {**self._resting, **self._measured})
        self.driver.tick(now)

    def _unknown(self) -> list[str]:
        """Commanded joints without a measured position."""
        return [name for name in self._profile.names if name not in self._measured]

    def _may_start(self, now: int) -> bool:
        """Whether all commanded joints' positions are known, or the waiting time for them is over."""
        if not self._unknown():
            return True
        wait_ns = round(self.value("wait_for_state") * 1e9)
        if wait_ns and self._not_finite:
            return False  # a robot that publishes NaN runs, and will publish its positions
        return now - self._activated_ns >= wait_ns


def main() -> int:
    """Executable `retarget`."""
    return run(Retarget)


if __name__ == "__main__":
    raise SystemExit(main())
