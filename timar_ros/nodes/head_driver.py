"""Drives a robot's head from chunks of motion: works commands out ahead of time and sends them when they are due.

The part of node `retarget` that knows no subscriptions; it may be called from two threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from timar_ros.nodes.joint_outputs import JointOutputs
from timar_ros.nodes.messages import Motion
from timar_ros.retarget import JointMotion, Retargeter, RetargetOptions, RobotProfile

LEAST_BATCH_NS, LARGEST_BATCH_NS = 60_000_000, 400_000_000
"""Commands are worked out for so long at a time: one call for many is far cheaper than many for one. More than the
least only where motion is known so far ahead that nothing can change it any more."""

HORIZON_NS = 1_500_000_000
"""A trajectory that is sent while there is no new motion (idling, easing) reaches so far."""

RENEW_NS = 400_000_000
"""A trajectory that is still moving is renewed when so much of it is left."""

MAX_BACKLOG_NS = 2_000_000_000
"""Commands that are overdue by more than this, after a leap of the clock, are not sent any more."""

COMMITTED_NS = 40_000_000
"""With a trajectory controller, commands of so long from now on stand, whatever is heard: the controller reads a new
trajectory a little later, and its next command is meant for a cycle after that. Until then old and new must agree."""

OVERLAP_NS = 100_000_000
"""A new trajectory repeats the old one of so long ago until now. joint_trajectory_controller then goes on between two
points of it. With a first point still to come it would begin anew from a state of its own: where the joints are
measured, behind what is commanded, or the last command taken for a cycle older than it is."""

START_REST_NS = 100_000_000
"""The first trajectory begins at rest so long after it is sent: meanwhile a controller goes from what it held to where
the joints are measured, which is not the same where a joint sags."""

UNSTAMPED_LEAD_NS = 20_000_000
"""A trajectory without a stamp has its first point so long after it comes, whenever that is, and repeats nothing: what
the controller does until then is its own, and limits are not promised."""

EARLY = 100
"""Chunks kept while the start waits for the robot's position."""


@dataclass(frozen=True)
class DriverOptions:
    """``rate`` of commands [Hz]; every how many commands a trajectory has a point; whether trajectories are stamped."""

    rate: float
    point_step: int
    stamped: bool


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
        self.retargeter: Retargeter | None = None
        self.seen_ns = 0
        self.halt()

    def halt(self) -> None:
        """Be as before the start; the robot stays where its last trajectory ends."""
        with self._lock:
            self.retargeter = None
            self._due: JointMotion | None = None
            self._next = 0  # the row of it that is due next
            self._made_ns = self._sent_until_ns = self._unwanted_until_ns = 0
            self._fresh = True  # whether the controller has nothing of ours to go on from

    def start(self, now: int, measured: Mapping[str, float]) -> None:
        """Begin at rest where the robot is (neutral where it does not say)."""
        with self._lock:
            self.retargeter = Retargeter(self._profile, self._driving.rate, self._options)
            rest = START_REST_NS if self._outputs.kind == "trajectory" else 0
            self.retargeter.start(now + rest, measured)
            self.retargeter.enable(self.enabled)
            self.retargeter.set_gaze(self.gaze)
            self._push(now)

    def push(self, now: int, chunk: Motion) -> None:
        """New motion; kept until the start if that is still to come."""
        with self._lock:
            wanted = self._wanted(chunk)
            if not len(wanted.frames):
                return
            self._early.append(wanted)
            if self.retargeter is not None:
                self._catch_up(self.retargeter, now)
                self._push(now)

    def _push(self, now: int) -> None:
        assert self.retargeter is not None
        if not self._early:
            return
        while self._early:
            chunk = self._early.popleft()
            # Parts that the sender does not know are NaN here: the head and face then rest.
            self.retargeter.push(chunk.stamp_ns, chunk.rate, np.nan_to_num(chunk.frames, nan=0.0), chunk.speaking)
        self._send_trajectory(now, (self.retargeter.end_ns or now) + round(self.retargeter.lookahead * 1e9))

    def _wanted(self, chunk: Motion) -> Motion:
        """What is left of a chunk after an interruption."""
        wanted = chunk.since(self._unwanted_until_ns)
        self.frames_cancelled += len(chunk.frames) - len(wanted.frames)
        return wanted

    def cancel(self, now: int, until: int) -> None:
        """The agent was interrupted: forget its motion, ease to neutral at once; motion for ``until`` on is new."""
        with self._lock:
            self._unwanted_until_ns = max(until, self._unwanted_until_ns)
            self._early = deque((self._wanted(chunk) for chunk in self._early), maxlen=EARLY)
            if self.retargeter is None:
                return
            held_ns = (self.retargeter.end_ns or now) - now
            self.frames_cancelled += max(0, round(held_ns * self._options.knot_rate * 1e-9))
            # What was due at the last tick is already with the robot.
            asked = max(now, self.seen_ns)
            made = self.retargeter.cancel(asked + self._committed_ns, asked)
            if self._due is not None:
                self._due = self._due[: int(np.searchsorted(self._due.time_ns, made, side="right"))]
                self._next = min(self._next, len(self._due))
            self._make(self.retargeter, made)
            self._send_trajectory(now, now + HORIZON_NS)

    def change(self, options: RetargetOptions) -> None:
        """New gains and speeds."""
        with self._lock:
            self._options = options
            if self.retargeter is not None:
                self.retargeter.change(options)

    def enable(self, now: int, enabled: bool) -> None:
        """The soft stop, and the return from it."""
        with self._lock:
            self.enabled = enabled
            if self.retargeter is not None:
                self._catch_up(self.retargeter, now)
                self.retargeter.enable(enabled)
                self._send_trajectory(now, now + HORIZON_NS)

    def set_gaze(self, now: int, active: bool, pose: Mapping[str, float] | None = None) -> None:
        """Another controller takes the head, moves it (``pose``), or gives it back."""
        with self._lock:
            changed, self.gaze = active != self.gaze, active
            if self.retargeter is not None:
                if changed:
                    self._catch_up(self.retargeter, now)
                self.retargeter.set_gaze(active, pose)
                if changed:
                    self._send_trajectory(now, now + HORIZON_NS)

    def measured(self, positions: Mapping[str, float]) -> None:
        """Where the robot is, while another controller moves it."""
        with self._lock:
            if self.retargeter is not None and self.gaze:
                self.retargeter.measured(positions)

    def ease_out(self, now: int) -> None:
        """Ease to neutral from now on; with a trajectory controller that is one last trajectory."""
        with self._lock:
            if self.retargeter is not None:
                self._catch_up(self.retargeter, now)
                self.retargeter.ease_out()
                self._send_trajectory(now, now + round((self._options.ease + 0.5) * 1e9))

    @property
    def eased_out(self) -> bool:
        """Whether nothing is left to be sent after :meth:`ease_out`."""
        with self._lock:
            if self.retargeter is None or self._due is None or self._outputs.kind == "trajectory":
                return True
            left = self._due.position[max(self._next - 1, 0) :]  # from the last one that was sent
            return self.retargeter.ease_out_done() and bool(np.ptp(left, axis=0).max() < 1e-9)

    def tick(self, now: int) -> None:
        """Send what is due."""
        with self._lock:
            self.seen_ns = now
            if self.retargeter is None:
                return
            self._send_due(self.retargeter, now)
            if self._outputs.kind == "trajectory" and self._sent_until_ns - now < RENEW_NS:
                self._renew(self.retargeter, now)

    def _send_due(self, retargeter: Retargeter, now: int) -> None:
        """Send what is due by now, and work commands out ahead."""
        if self._made_ns <= now:
            certain = (retargeter.end_ns or 0) - round(retargeter.lookahead * 1e9)
            self._make(retargeter, max(now + LEAST_BATCH_NS, min(now + LARGEST_BATCH_NS, certain)))
        self._send(now)

    def _catch_up(self, retargeter: Retargeter, now: int) -> None:
        """Send what is due by now, before anything new is heard: a tick may be overdue, and what is new does not reach
        into the past, where no trajectory could follow it, nor into what a trajectory controller has begun.
        """
        if self._made_ns < now + self._committed_ns:
            self._make(retargeter, now + self._committed_ns)
        self._send(now)

    @property
    def _committed_ns(self) -> int:
        return COMMITTED_NS if self._outputs.kind == "trajectory" else 0

    def _make(self, retargeter: Retargeter, until: int) -> None:
        self._made_ns = until
        made = retargeter.advance(until)
        if self._due is None:
            self._due = made
            return
        # Commands that were sent are kept as long as a trajectory may repeat them.
        begin = int(np.searchsorted(self._due.time_ns, self.seen_ns - OVERLAP_NS - LARGEST_BATCH_NS))
        begin = min(begin, self._next)
        self._due = JointMotion.join([self._due[begin:], made])
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
        """Send a trajectory although no new motion has come, if the head is to move."""
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
        driving = self._driving
        begin = self._begin(motion, now)
        end = self._outputs.send_trajectory(motion[begin:], now, driving.stamped, driving.point_step)
        if end is not None:
            self._fresh = False
            self._sent_until_ns = end
            self.trajectories += 1

    def _begin(self, motion: JointMotion, now: int) -> int:
        """The first row that a trajectory is to have."""
        if not self._driving.stamped:
            return int(np.searchsorted(motion.time_ns, now + UNSTAMPED_LEAD_NS, side="right"))
        new = min(int(np.searchsorted(motion.time_ns, max(self._made_ns, now), side="right")), len(motion) - 1)
        if self._fresh:
            return new
        begin = min(int(np.searchsorted(motion.time_ns, now - OVERLAP_NS)), new)
        # Only as long as the same joints were ours: a neck that comes back is approached, one that is gone is left out.
        others = np.flatnonzero(motion.owned[begin:new] != motion.owned[new])
        return begin + int(others[-1]) + 1 if len(others) else begin
