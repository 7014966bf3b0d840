"""Drives a robot's head from chunks of motion: computes commands ahead of time and sends them when they are due.

The part of node `retarget` without subscriptions; two threads may call it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timar_ros.retarget import JointMotion, Retargeter, RetargetOptions, RobotProfile
from timar_ros.ros.joint_outputs import JointOutputs
from timar_ros.ros.messages import MessageError, Motion
from timar_ros.streaming.clock_steps import FORWARD_STEP, near, spoken

LEAST_BATCH_NS, LARGEST_BATCH_NS = 60_000_000, 400_000_000
"""Smallest and largest length of a batch of commands: one call for many commands is far cheaper than many calls. A
batch is longer than the smallest only where the motion is known so far ahead that nothing can change it."""

HORIZON_NS = 1_500_000_000
"""Length of a trajectory that is sent without new motion (idling, easing)."""

RENEW_NS = 400_000_000
"""The driver renews a trajectory that still moves when less than this is left."""

MAX_BACKLOG_NS = 2_000_000_000
"""The driver drops commands that are overdue by more than this after a clock step."""

COMMITTED_NS = 40_000_000
"""With a trajectory controller, the commands of this time from now are fixed: the controller reads a new trajectory a
little later, and its next command is for the cycle after that. Until then the old and the new trajectory must agree."""

OVERLAP_NS = 100_000_000
"""A new trajectory repeats this much of the old one, up to now. joint_trajectory_controller then continues between two
points of it. If the first point were in the future, the controller would begin at its own state: at the measured
positions, which lag behind the commands, or at the last command, with a time one cycle too old."""

START_REST_NS = 100_000_000
"""The first trajectory begins at rest this long after it is sent: in the meantime a controller moves from its held
position to the measured one, which differs where a joint sags."""

UNSTAMPED_LEAD_NS = 20_000_000
"""A trajectory without a stamp has its first point this long after its arrival, and repeats nothing: until then the
controller moves by its own rules, and limits are not guaranteed."""

HELD_UP_NS = 100_000_000
"""Commands that come later than this [ns] after the last ones do not continue the old motion: the robot has stopped,
and so large a step would exceed its limits. They begin again at rest at the robot's position."""

HELD_UP_REST_NS = 300_000_000
"""The first trajectory after a hold-up begins this long [ns] later: a machine that was held up sends it slowly."""

SIMULATED_HELD_UP_NS = FORWARD_STEP
"""The same with simulated time, which jumps for the robot and this node alike: only a clock step counts."""

EARLY = 100
"""Chunks kept while the start waits for the robot's position."""


@dataclass(frozen=True)
class DriverOptions:
    """How a head is driven.

    :ivar rate: commands per second [Hz].
    :ivar point_step: commands per point of a trajectory.
    :ivar stamped: whether trajectories are stamped.
    :ivar held_up_ns: commands that come later than this after the last ones begin again at rest.
    """

    rate: float
    point_step: int
    stamped: bool
    held_up_ns: int = SIMULATED_HELD_UP_NS


class HeadDriver:
    """One robot's head, from its start until its end; times are the caller's, in ns."""

    def __init__(
        self, profile: RobotProfile, options: RetargetOptions, outputs: JointOutputs, driving: DriverOptions
    ) -> None:
        self._profile, self._options = profile, options
        self._outputs, self._driving = outputs, driving
        self._lock = threading.RLock()
        self._early: deque[Motion] = deque(maxlen=EARLY)
        self.enabled, self.gaze = True, False
        self.trajectories = 0
        self.frames_cancelled = 0
        self.hold_ups = 0
        self.retargeter: Retargeter | None = None
        self.seen_ns = 0
        self.halt()

    def halt(self) -> None:
        """Return to the state before the start; the robot stays at the end of its last trajectory."""
        with self._lock:
            self.retargeter = None
            self._due: JointMotion | None = None
            self._next = 0  # the row of `_due` that is due next
            self._computed_until_ns = self._sent_until_ns = self._cancelled_until_ns = 0
            self._trajectory: JointMotion | None = None  # the last trajectory sent
            self._certain_ns = 0  # end of the commands in the last trajectory; after it the trajectory only stops
            self._fresh = True  # whether the controller has no trajectory of this driver to continue

    def start(self, now: int, measured: Mapping[str, float]) -> None:
        """Begin at rest at the robot's position (neutral for joints that are not measured)."""
        with self._lock:
            self.retargeter = Retargeter(self._profile, self._driving.rate, self._options)
            rest = START_REST_NS if self._outputs.kind == "trajectory" else 0
            self.retargeter.start(now + rest, measured)
            self.retargeter.enable(self.enabled)
            self.retargeter.set_gaze(self.gaze)
            self._push(now)

    def push(self, now: int, chunk: Motion) -> None:
        """Add motion; before the start the driver keeps it.

        :raises MessageError: when the motion's time is so far from now that one of the two clocks must be wrong.
        """
        end_ns = chunk.stamp_ns + round(len(chunk.frames) / chunk.rate * 1e9)
        if not (near(chunk.stamp_ns, now) and near(end_ns, now)):
            raise MessageError(f"header.stamp lies {spoken(chunk.stamp_ns - now)} of this node's clock: not followed")
        with self._lock:
            kept = self._kept(chunk)
            if not len(kept.frames):
                return
            self._early.append(kept)
            if self.retargeter is not None:
                self._catch_up(self.retargeter, now)
                self._push(now)

    @property
    def resting(self) -> Mapping[str, float]:
        """The robot's resting position after the last command sent; empty before the first command."""
        with self._lock:
            positions = self._last_positions()
            if positions is None or self.retargeter is None:
                return {}
            return dict(zip(self.retargeter.names, positions.tolist(), strict=True))

    def _last_positions(self) -> NDArray[np.float64] | None:
        """Joint positions [J] at the end of the last trajectory, or of the last command."""
        motion, row = self._trajectory, -1
        if motion is None:
            motion, row = self._due, self._next - 1
        if motion is None or not len(motion) or (motion is self._due and row < 0):
            return None
        return motion.position[row]

    def _handle_hold_up(self, retargeter: Retargeter, now: int) -> None:
        """After a pause of this process, or a forward clock step: begin again at rest at the robot's position."""
        if not self.seen_ns or now - self.seen_ns <= self._driving.held_up_ns:
            return
        if self._trajectory is not None and now + COMMITTED_NS < self._certain_ns:
            return  # the robot still follows a trajectory with the same commands: it missed none
        positions = self._last_positions()
        if positions is None:
            return
        begin = now if self._trajectory is None else max(now, int(self._trajectory.time_ns[-1]))
        if self._outputs.kind == "trajectory":
            begin += HELD_UP_REST_NS
        self.seen_ns = now
        self.hold_ups += 1
        retargeter.resume(begin, positions)
        self._due, self._next, self._computed_until_ns, self._sent_until_ns = None, 0, 0, 0
        self._trajectory, self._fresh = None, True

    def _push(self, now: int) -> None:
        assert self.retargeter is not None
        if not self._early:
            return
        while self._early:
            chunk = self._early.popleft()
            # Parts that the sender does not know are NaN; the head and face rest in them.
            self.retargeter.push(chunk.stamp_ns, chunk.rate, np.nan_to_num(chunk.frames, nan=0.0), chunk.speaking)
        self._send_trajectory(now, (self.retargeter.end_ns or now) + round(self.retargeter.lookahead * 1e9))

    def _kept(self, chunk: Motion) -> Motion:
        """The part of a chunk that is left after an interruption."""
        kept = chunk.since(self._cancelled_until_ns)
        self.frames_cancelled += len(chunk.frames) - len(kept.frames)
        return kept

    def cancel(self, now: int, until: int) -> None:
        """The agent was interrupted: drop its motion before ``until``, ease to neutral at once."""
        with self._lock:
            self._cancelled_until_ns = max(until, self._cancelled_until_ns)
            self._early = deque((self._kept(chunk) for chunk in self._early), maxlen=EARLY)
            if self.retargeter is None:
                return
            self._handle_hold_up(self.retargeter, now)
            held_ns = (self.retargeter.end_ns or now) - now
            self.frames_cancelled += max(0, round(held_ns * self._options.knot_rate * 1e-9))
            # The robot already has the commands that were due at the last tick.
            cancelled_at = max(now, self.seen_ns)
            unchanged_until = self.retargeter.cancel(cancelled_at + self._committed_ns, cancelled_at)
            if self._due is not None:
                self._due = self._due[: int(np.searchsorted(self._due.time_ns, unchanged_until, side="right"))]
                self._next = min(self._next, len(self._due))
            self._compute(self.retargeter, unchanged_until)
            self._send_trajectory(now, now + HORIZON_NS)

    def change(self, options: RetargetOptions) -> None:
        """Set new gains and speeds."""
        with self._lock:
            self._options = options
            if self.retargeter is not None:
                self.retargeter.change(options)

    def enable(self, now: int, enabled: bool) -> None:
        """Soft stop (False), or return from it (True)."""
        with self._lock:
            self.enabled = enabled
            if self.retargeter is not None:
                self._catch_up(self.retargeter, now)
                self.retargeter.enable(enabled)
                self._send_trajectory(now, now + HORIZON_NS)

    def set_gaze(self, now: int, active: bool, pose: Mapping[str, float] | None = None) -> None:
        """Another controller takes over the head, moves the head to ``pose``, or returns the head."""
        with self._lock:
            changed, self.gaze = active != self.gaze, active
            if self.retargeter is not None:
                if changed:
                    self._catch_up(self.retargeter, now)
                self.retargeter.set_gaze(active, pose)
                if changed:
                    self._send_trajectory(now, now + HORIZON_NS)

    def look(self, now: int, stamp_ns: int, point: Sequence[float] | None) -> None:
        """Turn the head to a point [m] in the frame of the options (None: back).

        :raises MessageError: when the point's time is so far from now that one of the two clocks must be wrong.
        """
        if not near(stamp_ns, now):
            raise MessageError(f"header.stamp lies {spoken(stamp_ns - now)} of this node's clock: not followed")
        with self._lock:
            if self.retargeter is None:
                return
            self._catch_up(self.retargeter, now)
            changed_ns = self.retargeter.look(stamp_ns, point)
            if changed_ns is not None and changed_ns <= max(self._sent_until_ns, now + HORIZON_NS):
                self._send_trajectory(now, now + HORIZON_NS)

    def measured(self, positions: Mapping[str, float]) -> None:
        """Set the robot's position while another controller moves it."""
        with self._lock:
            if self.retargeter is not None and self.gaze:
                self.retargeter.measured(positions)

    def ease_out(self, now: int) -> None:
        """Ease to neutral from now on; with a trajectory controller, send one last trajectory."""
        with self._lock:
            if self.retargeter is not None:
                self._catch_up(self.retargeter, now)
                self.retargeter.ease_out()
                self._send_trajectory(now, now + round((self._options.ease + 0.5) * 1e9))

    @property
    def eased_out(self) -> bool:
        """Whether all commands were sent after :meth:`ease_out`."""
        with self._lock:
            if self.retargeter is None or self._due is None or self._outputs.kind == "trajectory":
                return True
            left = self._due.position[max(self._next - 1, 0) :]  # from the last command sent
            return self.retargeter.ease_out_done() and bool(np.ptp(left, axis=0).max() < 1e-9)

    def tick(self, now: int) -> None:
        """Send due commands."""
        with self._lock:
            if self.retargeter is not None:
                self._send_due(self.retargeter, now)
            self.seen_ns = now
            if self.retargeter is None:
                return
            if self._outputs.kind == "trajectory" and self._sent_until_ns - now < RENEW_NS:
                self._renew(self.retargeter, now)

    def _send_due(self, retargeter: Retargeter, now: int) -> None:
        """Send due commands, and compute commands ahead."""
        self._handle_hold_up(retargeter, now)
        if self._computed_until_ns <= now:
            certain = (retargeter.end_ns or 0) - round(retargeter.lookahead * 1e9)
            if retargeter.looking:  # the next point may come at any time
                certain = 0
            self._compute(retargeter, max(now + LEAST_BATCH_NS, min(now + LARGEST_BATCH_NS, certain)))
        self._send(now)

    def _catch_up(self, retargeter: Retargeter, now: int) -> None:
        """Send due commands before a change: a tick may be overdue, and new input must change neither the past, where
        no trajectory could follow it, nor the commands that a trajectory controller has begun.
        """
        self._handle_hold_up(retargeter, now)
        if self._computed_until_ns < now + self._committed_ns:
            self._compute(retargeter, now + self._committed_ns)
        self._send(now)

    @property
    def _committed_ns(self) -> int:
        return COMMITTED_NS if self._outputs.kind == "trajectory" else 0

    def _compute(self, retargeter: Retargeter, until: int) -> None:
        self._computed_until_ns = until
        commands = retargeter.advance(until)
        if self._due is None:
            self._due = commands
            return
        # The driver keeps sent commands as long as a trajectory may repeat them.
        begin = int(np.searchsorted(self._due.time_ns, self.seen_ns - OVERLAP_NS - LARGEST_BATCH_NS))
        begin = min(begin, self._next)
        self._due = JointMotion.join([self._due[begin:], commands])
        self._next -= begin

    def _send(self, now: int) -> None:
        if self._due is None:
            return
        times = self._due.time_ns
        end = int(np.searchsorted(times, now, side="right"))
        begin = max(self._next, int(np.searchsorted(times, now - MAX_BACKLOG_NS)))
        if end > begin:
            self._outputs.send(self._due, begin, end)
        self._next = max(end, self._next)

    def _renew(self, retargeter: Retargeter, now: int) -> None:
        """Send a trajectory without new motion, if the head moves."""
        if retargeter.settled and self._sent_until_ns > now:
            return
        ahead = retargeter.plan(now + HORIZON_NS)
        self._sent_until_ns = now + HORIZON_NS
        if len(ahead) and np.abs(ahead.velocity).max() > 1e-6:
            self._send_trajectory(now, now + HORIZON_NS)

    def _send_trajectory(self, now: int, until: int) -> None:
        assert self.retargeter is not None
        if self._outputs.kind != "trajectory":
            return
        plan = self.retargeter.plan(until)
        motion = plan if self._due is None else JointMotion.join([self._due, plan])
        if not len(motion):
            return  # all of the motion lies before the new start
        driving = self._driving
        begin = self._begin(motion, now)
        end = self._outputs.send_trajectory(motion[begin:], now, driving.stamped, driving.point_step)
        if end is not None:
            self._fresh = False
            self._sent_until_ns = end
            self._trajectory, self._certain_ns = motion, until
            self.trajectories += 1

    def _begin(self, motion: JointMotion, now: int) -> int:
        """The first row of a trajectory."""
        if not self._driving.stamped:
            return int(np.searchsorted(motion.time_ns, now + UNSTAMPED_LEAD_NS, side="right"))
        new = min(
            int(np.searchsorted(motion.time_ns, max(self._computed_until_ns, now), side="right")), len(motion) - 1
        )
        if self._fresh:
            return new
        begin = min(int(np.searchsorted(motion.time_ns, now - OVERLAP_NS)), new)
        # Only rows with the same owned joints: a trajectory moves to a returned neck, and omits one that was taken.
        others = np.flatnonzero(motion.owned[begin:new] != motion.owned[new])
        return begin + int(others[-1]) + 1 if len(others) else begin
