"""Node `retarget`: the agent's FLAME motion becomes a robot's joint commands, within its limits.

Motion comes ahead of the time at which it is to be shown. Commands are worked out in batches a little ahead of time and
sent when they are due; a robot with a trajectory controller gets each chunk at once, ending at rest.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from timar_ros.msg import FlameMotion, StreamInfo
from timar_ros.nodes import qos
from timar_ros.nodes.base import OK, WARN, Diagnosis, ManagedNode, run
from timar_ros.nodes.joint_outputs import JointOutputs
from timar_ros.nodes.messages import Motion, motion
from timar_ros.nodes.retarget_parameters import DYNAMIC, PARAMETERS, retarget_options
from timar_ros.retarget import JointMotion, Retargeter, load_profile

EARLY = 100
"""Messages kept while the start waits for joint_states."""

BATCH_NS = 80_000_000
"""Commands are worked out for so long at a time: one call for many is far cheaper than many for one."""

HORIZON_NS = 1_500_000_000
"""A trajectory that is sent while there is no new motion (idling, easing) reaches so far."""

RENEW_NS = 400_000_000
"""A trajectory that is still moving is renewed when so much of it is left."""

MAX_BACKLOG_NS = 2_000_000_000
"""Commands that are overdue by more than this, after a leap of the clock, are not sent any more."""


class Retarget(ManagedNode):
    """Moves one robot's head."""

    PARAMETERS = PARAMETERS

    _retargeter: Retargeter | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__("retarget", **options)
        self._enabled = True

    def configure(self) -> None:
        """Read the robot's profile, open the ways in and out."""
        self._profile = load_profile(self.value("robot"))
        self._options = retarget_options(self.value)
        kind = self.value("output")
        kind = self._profile.output if kind == "profile" else kind
        self._outputs_of_robot = JointOutputs(self, self._profile, kind, self.value("joint_states"))
        self._info: StreamInfo | None = None
        self._fresh()
        self.subscribe(FlameMotion, "agent/motion", self._take, qos.motion())
        self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)
        self.subscribe(JointState, "joint_states", self._take_state, qos.commands(), inactive=True, optional=True)
        self.subscribe(Bool, "gaze/active", self._take_gaze, qos.commands(), optional=True)
        self.subscribe(JointState, "gaze/joint_states", self._take_gaze_pose, qos.commands(), optional=True)
        self.serve(SetBool, "~/enable", self._enable)
        self.every(1.0 / self.value("rate"), self._tick)
        for what in ("frames rejected", "frames late", "trajectories"):
            self.statistics.count(what, 0)

    def activate(self) -> None:
        """Begin anew; the first tick starts from where the robot is."""
        self._fresh()
        self._activated_ns = self.now_ns()

    def _fresh(self) -> None:
        self._retargeter = None
        self._measured: dict[str, float] = {}
        self._early: deque[Motion] = deque(maxlen=EARLY)
        self._due: list[JointMotion] = []
        self._made_ns = self._seen_ns = self._sent_until_ns = 0
        self._gaze = False

    def deactivate(self) -> None:
        """Ease to neutral within the limits, then be silent."""
        if self._retargeter is None or not self._enabled:
            return
        self._retargeter.ease_out()
        now = self.now_ns()
        if self._outputs_of_robot.kind == "trajectory":
            self._send_trajectory(now, now + round((self._options.ease + 0.5) * 1e9))
            return
        begun, deadline = time.monotonic(), self._options.ease + 3.0
        while not self._retargeter.ease_out_done() and (passed := time.monotonic() - begun) < deadline:
            self._send_due(now + round(passed * 1e9))
            time.sleep(1.0 / self.value("rate"))

    def cleanup(self) -> None:
        """Forget the robot."""
        self._retargeter = None

    def changed(self, name: str, value: Any) -> None:  # noqa: ARG002
        """A gain or a speed has changed."""
        if any(parameter.name == name for parameter in DYNAMIC):
            self._options = retarget_options(self.value)
            if self._retargeter is not None:
                self._retargeter.change(self._options)

    def diagnose(self) -> Diagnosis:
        """What is commanded, what was refused, and whether motion comes early enough."""
        r = self._retargeter
        rows = {"robot": self._profile.name, "output": self._outputs_of_robot.kind, "enabled": str(self._enabled)}
        if self._info is not None:
            rows["playback_delay [s]"] = f"{self._info.playback_delay:.3f}"
        if r is None:
            return WARN, "waiting for joint_states", rows
        self.statistics.count("frames rejected", r.rejected - self.statistics.counted("frames rejected"))
        self.statistics.count("frames late", r.late - self.statistics.counted("frames late"))
        rows["gaze"] = self._options.gaze_mode if self._gaze else "none"
        rows["motion known ahead [s]"] = f"{((r.end_ns or self._made_ns) - self.now_ns()) * 1e-9:.3f}"
        if not self._measured:
            return WARN, "no joint_states: started from neutral", rows
        if self.statistics.grown("frames late"):
            return WARN, f"motion comes too late: raise playback_delay by at least {r.lookahead:.2f} s", rows
        if self.statistics.grown("frames rejected"):
            return WARN, "frames are not finite or out of range", rows
        return OK, "stopped" if not self._enabled else "following", rows

    # Inputs ---------------------------------------------------------------------------------------------------------

    def _take(self, message: FlameMotion) -> None:
        chunk = motion(message)
        now = self.now_ns()
        self.statistics.latency("motion ahead", (chunk.stamp_ns - now) * 1e-9)
        self._early.append(chunk)
        if self._retargeter is not None or self._start(now):
            self._push(now)

    def _push(self, now: int) -> None:
        assert self._retargeter is not None
        for chunk in self._early:
            # Parts that the sender does not know are NaN here: the head and face then rest.
            self._retargeter.push(chunk.stamp_ns, chunk.rate, np.nan_to_num(chunk.frames, nan=0.0), chunk.speaking)
        if self._early:
            self._early.clear()
            self._send_trajectory(now, (self._retargeter.end_ns or now) + round(self._retargeter.lookahead * 1e9))

    def _take_info(self, message: StreamInfo) -> None:
        self._info = message

    def _take_state(self, message: JointState) -> None:
        self._measured = dict(zip(message.name, message.position, strict=False))
        if self._retargeter is not None and self._gaze:
            self._retargeter.measured(self._measured)

    def _take_gaze(self, message: Bool) -> None:
        self._set_gaze(bool(message.data), None)

    def _take_gaze_pose(self, message: JointState) -> None:
        if self._gaze:
            self._set_gaze(True, dict(zip(message.name, message.position, strict=False)))

    def _set_gaze(self, active: bool, pose: dict[str, float] | None) -> None:
        changed, self._gaze = active != self._gaze, active
        if self._retargeter is not None:
            self._retargeter.set_gaze(active, pose)
            if changed:
                self._send_trajectory(self.now_ns(), self.now_ns() + HORIZON_NS)

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = bool(request.data)
        if self._retargeter is not None:
            self._retargeter.enable(self._enabled)
            self._send_trajectory(self.now_ns(), self.now_ns() + HORIZON_NS)
        response.success, response.message = True, "following" if self._enabled else "stopped and holding"
        return response

    # Outputs --------------------------------------------------------------------------------------------------------

    def _start(self, now: int) -> bool:
        """Begin at the measured position, or at neutral when nobody tells it; False while still waiting."""
        known = any(name in self._measured for name in self._profile.names)
        if self._activated_ns <= 0:  # simulated time had not begun yet
            self._activated_ns = now
        if now <= 0 or (not known and now - self._activated_ns < self.value("wait_for_state") * 1e9):
            return False
        self._retargeter = Retargeter(self._profile, self.value("rate"), self._options)
        self._retargeter.start(now, self._measured)
        self._retargeter.enable(self._enabled)
        self._retargeter.set_gaze(self._gaze)
        self._push(now)
        return True

    def _tick(self) -> None:
        now = self.now_ns()
        if now < self._seen_ns - MAX_BACKLOG_NS:
            self.get_logger().warning("time went backwards: starting anew from where the robot is")
            self._retargeter, self._due, self._made_ns, self._sent_until_ns = None, [], 0, 0
            self._activated_ns = now
        self._seen_ns = now
        if self._retargeter is None and not self._start(now):
            return
        self._send_due(now)
        assert self._retargeter is not None
        if self._outputs_of_robot.kind != "trajectory":
            return
        if self._sent_until_ns - now < RENEW_NS and not (self._retargeter.settled and self._sent_until_ns > now):
            self._renew(now)

    def _send_due(self, now: int) -> None:
        assert self._retargeter is not None
        if self._made_ns <= now:
            self._due.append(self._retargeter.advance(now + BATCH_NS))
            self._made_ns = now + BATCH_NS
        kept = []
        for part in self._due:
            count = int(np.searchsorted(part.time_ns, now, side="right"))
            late = int(np.searchsorted(part.time_ns, now - MAX_BACKLOG_NS))
            if count > late:
                self._outputs_of_robot.send(part[late:count])
            if count < len(part):
                kept.append(part[count:] if count else part)
        self._due = kept

    def _renew(self, now: int) -> None:
        """Send a trajectory although no new motion has come, if the head is to move."""
        assert self._retargeter is not None
        ahead = self._retargeter.plan(now + HORIZON_NS)
        if len(ahead) and np.abs(ahead.velocity).max() > 1e-6:
            self._send_trajectory(now, now + HORIZON_NS)
        else:
            self._sent_until_ns = now + HORIZON_NS

    def _send_trajectory(self, now: int, until: int) -> None:
        assert self._retargeter is not None
        parts = [part for part in (*self._due, self._retargeter.plan(until)) if len(part)]
        if not parts:
            return
        step = max(1, round(self.value("rate") / self.value("point_rate")))
        stamped = self.value("stamp") == "presentation"
        end = self._outputs_of_robot.send_trajectory(JointMotion.join(parts), now, stamped, step)
        if end is not None:
            self._sent_until_ns = end
            self.statistics.count("trajectories")


def main() -> int:
    """Executable `retarget`."""
    return run(Retarget)


if __name__ == "__main__":
    raise SystemExit(main())
