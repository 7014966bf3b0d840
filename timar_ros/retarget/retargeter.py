"""The streaming retargeter: FLAME frames in, joint motion within limits out, the same live and offline."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timar_ros.errors import UserError
from timar_ros.motion import MOTION_SIZE
from timar_ros.retarget.follow import Follower
from timar_ros.retarget.frames import FrameConverter
from timar_ros.retarget.gaze import REACTION, direction, toward
from timar_ros.retarget.joint_motion import JointMotion
from timar_ros.retarget.profile import RobotProfile
from timar_ros.retarget.retarget_options import RetargetOptions
from timar_ros.retarget.stopping import stop_samples
from timar_ros.retarget.wanted import CANCEL_SECONDS, WantedCurve

Float = NDArray[np.float64]
# How far back frames are kept, in knots.
HISTORY = 250
# Segments computed at a time: a bound on memory for long files, without influence on the result.
BLOCK = 256
# Longer than any supported robot needs to stop from full speed.
STOP_SECONDS = 5.0
# Segments that can be taken back: more than any caller computes ahead.
TAKEN_BACK = 50


class Retargeter:
    """One robot's head following a stream of FLAME frames.

    Push frames with the time at which to show them, usually ahead of time; :meth:`advance` returns the commands up to a
    time. Motion known :attr:`lookahead` seconds ahead is followed without lag. The result depends only on the frames
    pushed before each time was reached, not on how time advanced.

    :param profile: the robot.
    :param rate: commands per second [Hz].
    :param options: behaviour.
    """

    def __init__(self, profile: RobotProfile, rate: float = 100.0, options: RetargetOptions | None = None) -> None:
        if not math.isfinite(rate) or not 10.0 <= rate <= 2000.0:
            raise UserError(f"output rate {rate} Hz: must lie within 10 and 2000")
        self.profile, self.options = profile, options or RetargetOptions()
        self.period_ns = round(1e9 / rate)
        self.rate = 1e9 / self.period_ns
        self.names = tuple(profile.names)
        self._converter = FrameConverter(profile, self.options)
        self._follower = Follower(profile, self.rate)
        self._joints, self._necks = len(profile.joints), len(profile.neck)
        self._neutral = profile.limits()["neutral"]
        self._is_neck = np.arange(self._joints) < self._necks
        self._wanted = WantedCurve(profile, self.options, self.period_ns, self._converter.inside)
        self._follower.place(self._neutral)
        self._tick: int | None = None  # tick of the follower's state
        self._enabled, self._gaze, self._owned = True, False, True
        self._gaze_pose = self._neutral[: self._necks].copy()
        self._borders: deque[tuple[int, Float]] = deque(maxlen=TAKEN_BACK)  # ticks and states between segments

    @property
    def lookahead(self) -> float:
        """Look-ahead [s] of frames with which motion within the limits is followed as if all frames were known."""
        return self._wanted.lookahead

    @property
    def rejected(self) -> int:
        """Frames rejected so far: not finite, or beyond what a head can do."""
        return self._converter.rejected

    @property
    def late(self) -> int:
        """Number of frames that arrived after their time of showing."""
        return self._wanted.timeline.late

    @property
    def time_ns(self) -> int | None:
        """Time of the last returned command; None before the first."""
        return None if self._tick is None else (self._tick - self._pending_count()) * self.period_ns

    @property
    def end_ns(self) -> int | None:
        """Time at which the pushed frames end; None before the first."""
        return self._wanted.timeline.end_ns

    @property
    def settled(self) -> bool:
        """Whether all joints are at rest."""
        return self._follower.at_rest

    def start(self, stamp_ns: int, measured: Mapping[str, float] | None = None) -> None:
        """Begin at rest at the measured joint positions (neutral if not given), at the first tick from a time on.

        Without a call, motion begins at the first pushed frame's time and the neutral pose.
        """
        pose = self._neutral.copy()
        for index, name in enumerate(self.names):
            if measured is not None and name in measured and math.isfinite(measured[name]):
                pose[index] = measured[name]
        self._follower.place(pose)
        size = self._follower.segment
        self._tick = -(-stamp_ns // (self.period_ns * size)) * size
        self._pending: list[JointMotion] = []
        self._emit_start = True
        self._borders.clear()
        self._borders.append((self._tick, self._follower.state.copy()))
        self._fade_in()
        self._wanted.wait(self._tick * self.period_ns)

    def resume(self, stamp_ns: int, positions: Float) -> None:
        """Continue at rest at joint positions [J], at the first tick from a time on, with all pushed frames.

        For a caller that was delayed: the robot's motion meanwhile differs from the commands of that time.
        """
        self.start(stamp_ns, dict(zip(self.names, positions.tolist(), strict=True)))

    def push(self, stamp_ns: int, rate: float, frames: ArrayLike, speaking: ArrayLike | None = None) -> None:
        """Add FLAME frames.

        :param stamp_ns: time at which to show the first frame [ns].
        :param rate: frames per second [Hz].
        :param frames: shape [N, 56], order 50 expression, 3 jaw, 3 head pose; frames that are not finite or out of
            range are rejected: counted, and the last good one is held.
        :param speaking: shape [N], 1 while the agent speaks; None if not known.
        :raises UserError: wrong shape or rate.
        """
        array = np.asarray(frames, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != MOTION_SIZE:
            raise UserError(f"motion frames must have shape [N, 56], not {list(array.shape)}")
        if not math.isfinite(rate) or not 1.0 <= rate <= 1000.0:
            raise UserError(f"frame rate {rate} Hz: must lie within 1 and 1000")
        if not len(array):
            return
        if self._tick is None:
            self.start(stamp_ns)
        flags = None if speaking is None else np.asarray(speaking, dtype=np.uint8)
        wanted = self._converter.convert(array, rate, flags)
        rows = np.concatenate([wanted.joints, wanted.nods, wanted.mouth[:, None], wanted.lost[:, None]], axis=1)
        assert self._tick is not None
        emitted_ns = None if self._emit_start else self._tick * self.period_ns
        timeline = self._wanted.timeline
        timeline.push(stamp_ns, rate, rows, emitted_ns)
        timeline.forget(self._wanted.knot(self._tick * self.period_ns) - HISTORY)

    def change(self, options: RetargetOptions) -> None:
        """Change gains and speeds for frames pushed from now on; the other options stay unchanged."""
        names = ("speaking_gain", "listening_gain", "jaw_gain", "nod_gain", "speaking_speed", "listening_speed")
        changed = {name: getattr(options, name) for name in names}
        self.options = replace(self.options, **changed)
        self._converter.options = self.options

    def enable(self, enabled: bool) -> None:
        """The soft stop: False decelerates within the limits and holds; True returns to the stream."""
        if enabled and not self._enabled:
            self._fade_in()
        self._enabled = enabled

    def set_gaze(self, active: bool, pose: Mapping[str, float] | None = None) -> None:
        """Set whether another controller owns the head, and (for ``nods``) that controller's neck joint positions.

        In mode ``yield`` the neck stops and is then not owned until the gaze ends (``JointMotion.owned``); the jaw and
        face continue. In mode ``nods`` the fast part of the motion is added to ``pose``, or to the neck's last
        position.
        """
        if active and not self._gaze:
            self._gaze_pose = self._follower.state[: self._necks, 0].copy()
        if active and pose is not None:
            for index, name in enumerate(self.names[: self._necks]):
                if name in pose and math.isfinite(pose[name]):
                    self._gaze_pose[index] = pose[name]
        if not active and self._gaze:
            self._fade_in()
            self._owned = True
        self._gaze = active
        self._wanted.nods_on = self._gaze_pose if active and self.options.gaze_mode == "nods" else None

    def look(self, stamp_ns: int, point: Sequence[float] | None) -> int | None:
        """Turn the head to a point, with the motion of the frames on top of it, joint by joint.

        The turn begins :data:`REACTION` after the stamp (or with the next command, if that is later), is a movement of
        least jerk, and ends at the point or at the joints' limits. A point that is not renewed within
        ``gaze_timeout`` is lost: the head goes back. While another controller owns the head there is no turn.

        :param stamp_ns: time of the point [ns]; times of several calls must not decrease by more than a segment.
        :param point: x, y, z [m] in ``gaze_frame``; None: back now.
        :returns: time [ns] from which the motion changes; None if it does not.
        :raises UserError: the point is no direction.
        """
        begin_ns = stamp_ns + round(REACTION * 1e9)
        if self._tick is not None:
            begin_ns = max(begin_ns, self._tick * self.period_ns)
        target = None
        if point is not None:
            yaw, pitch = (self.options.gaze_share * angle for angle in direction(point, self.options.gaze_origin))
            neutral = self._neutral[: self._necks]
            target = self._converter.neck.solve(toward(yaw, pitch))[0][0] - neutral
        return self._wanted.gaze.look(begin_ns, target)

    @property
    def looking(self) -> bool:
        """Whether there was a point to look at so far."""
        return self._wanted.gaze.used

    def measured(self, positions: Mapping[str, float]) -> None:
        """Set the robot's measured position. Used only while another controller owns the neck, to resume from it."""
        if not self._owned:
            pose = self._follower.state[:, 0].copy()
            for index, name in enumerate(self.names[: self._necks]):
                if name in positions and math.isfinite(positions[name]):
                    pose[index] = positions[name]
            self._follower.place(pose, self._is_neck)

    def cancel(self, stamp_ns: int, requested_ns: int | None = None) -> int:
        """Drop all frames and be back at neutral :data:`CANCEL_SECONDS` after a time, or as soon as the limits allow.

        Later commands become void, including those that :meth:`advance` has returned, up to :data:`TAKEN_BACK` segments
        ago. Frames pushed after this call are faded in.

        :param stamp_ns: time from which the motion changes: that of the first command not yet sent, or later.
        :param requested_ns: time of the request, from which the time to neutral counts, if that is earlier.
        :returns: time of the last valid command [ns], at most a segment (40 ms) after ``stamp_ns``; the caller must
            drop later commands, :meth:`advance` continues from there.
        """
        if self._tick is not None:
            segment_ns = self._follower.segment * self.period_ns
            border = -(-stamp_ns // segment_ns) * self._follower.segment
            self._produce(border * self.period_ns)
            tick, state = next((at for at in self._borders if at[0] >= border), self._borders[-1])
            if not self._owned:  # where another controller has moved the neck
                state = np.where(self._is_neck[:, None], self._follower.state, state)
            cancelled_ns = stamp_ns if requested_ns is None else requested_ns
            self._follower.leave(state, (cancelled_ns + round(CANCEL_SECONDS * 1e9)) // self.period_ns)
            self._borders = deque((at for at in self._borders if at[0] <= tick), TAKEN_BACK)
            self._tick, stamp_ns = tick, tick * self.period_ns
            kept = [part[: int(np.searchsorted(part.time_ns, stamp_ns, side="right"))] for part in self._pending]
            self._pending = [part for part in kept if len(part)]
        self._wanted.cancel(stamp_ns)
        self._converter.cut()
        return stamp_ns

    def ease_out(self) -> None:
        """Ease to neutral from now on, with any input; :attr:`settled` and :attr:`end_ns` show the end."""
        if self._tick is not None and self._wanted.retired_ns is None:
            self._wanted.retire(self._tick * self.period_ns, self._follower.state[:, 0])

    def ease_out_done(self) -> bool:
        """Whether the head has come to rest at neutral after :meth:`ease_out` (or never began to move)."""
        if self._tick is None:
            return True
        retired_ns = self._wanted.retired_ns
        if retired_ns is None or not self.settled:
            return False
        return self._tick * self.period_ns >= retired_ns + (self.options.ease + self.lookahead) * 1e9

    def _fade_in(self) -> None:
        if self._tick is not None:
            self._wanted.fade_in(self._tick * self.period_ns, self._follower.state[:, 0])

    def advance(self, until_ns: int) -> JointMotion:
        """Commands at all ticks after the last returned ones, up to and including ``until_ns``; may be empty."""
        if self._tick is None:
            return self._empty()
        self._produce(until_ns)
        last = until_ns // self.period_ns
        ready, kept = [], []
        for part in self._pending:
            ticks = part.time_ns // self.period_ns
            count = int(np.searchsorted(ticks, last, side="right"))
            if count:
                ready.append(part[:count])
            if count < len(part):
                kept.append(part[count:])
        self._pending = kept
        return JointMotion.join(ready) if ready else self._empty()

    def preview(self, until_ns: int) -> JointMotion:
        """The result of :meth:`advance` without further frames; the retargeter's state does not change."""
        saved = (self._follower.copy_state(), self._tick, list(self._pending) if self._tick is not None else [])
        flags = (self._owned, self._emit_start if self._tick is not None else True)
        borders = self._borders.copy()
        motion = self.advance(until_ns)
        self._borders = borders
        self._follower.restore(saved[0])
        self._tick = saved[1]
        if self._tick is not None:
            self._pending = saved[2]
            self._emit_start = flags[1]
        self._owned = flags[0]
        return motion

    def plan(self, until_ns: int) -> JointMotion:
        """:meth:`preview`, followed by the fastest stop: a motion that ends at rest, for the robot to hold in advance.

        If no other plan follows, the robot stops safely, even if this program has died.
        """
        size = self._follower.segment * self.period_ns
        motion = self.preview(-(-until_ns // size) * size)
        if not len(motion) or np.abs(motion.velocity[-1]).max() + np.abs(motion.acceleration[-1]).max() < 1e-9:
            return motion
        limits = self._follower.limits
        times = (np.arange(1, 1 + math.ceil(STOP_SECONDS * self.rate)) / self.rate).tolist()
        last = np.stack([motion.position[-1], motion.velocity[-1], motion.acceleration[-1]], axis=1)
        stops = np.stack(
            [
                stop_samples(state, float(a), float(j), times)
                for state, a, j in zip(last.tolist(), limits.acceleration, limits.jerk, strict=True)
            ],
            axis=1,
        )
        moving = np.flatnonzero(np.abs(stops[:, :, 1:]).max(axis=(1, 2)) > 0.0)
        count = int(moving[-1]) + 2 if len(moving) else 1
        tail = self._motion(int(motion.time_ns[-1]) // self.period_ns + 1, stops[:count])
        return JointMotion.join([motion, tail])

    def _pending_count(self) -> int:
        return sum(len(part) for part in self._pending) + (1 if self._emit_start else 0)

    def _produce(self, until_ns: int) -> None:
        """Extend the pending commands to cover a time, by whole segments."""
        assert self._tick is not None
        size = self._follower.segment
        last = until_ns // self.period_ns
        if self._emit_start and last >= self._tick:
            self._pending.append(self._motion(self._tick, self._follower.state[None]))
            self._emit_start = False
        while self._tick < last:
            segments = min(int(-(-(last - self._tick) // size)), BLOCK)
            if self._gaze and self.options.gaze_mode == "yield" and self._owned:
                segments = 1  # check after each segment whether the neck is at rest
            stop = np.full(self._joints, not self._enabled)
            if self._gaze and self.options.gaze_mode == "yield":
                stop |= self._is_neck
                if np.all(np.abs(self._follower.state[: self._necks, 1:]) < 1e-9):
                    self._owned = False
            states = self._follower.run(self._tick, segments, self._wanted.curve, stop)
            self._pending.append(self._motion(self._tick + 1, states))
            for done in range(max(0, segments - TAKEN_BACK), segments):
                self._borders.append((self._tick + (done + 1) * size, states[(done + 1) * size - 1]))
            self._tick += segments * size

    def _motion(self, first: int, states: Float) -> JointMotion:
        """Pack states [N, J, 3] at ticks from ``first`` on, with the other fields of a motion."""
        time_ns = ((first + np.arange(len(states))) * self.period_ns).astype(np.int64)
        wanted, lost, mouth = self._wanted.reported(time_ns)
        return JointMotion(
            neck=self.profile.neck,
            names=self.names,
            time_ns=time_ns,
            position=states[:, :, 0].copy(),
            # Rounding noise is no motion: a controller needs a last velocity of exactly 0.
            velocity=np.where(np.abs(states[:, :, 1]) < 1e-12, 0.0, states[:, :, 1]),
            acceleration=np.where(np.abs(states[:, :, 2]) < 1e-10, 0.0, states[:, :, 2]),
            wanted=wanted,
            lost_angle=lost,
            mouth=mouth,
            owned=np.full(len(states), self._owned),
        )

    def _empty(self) -> JointMotion:
        none, zero = np.zeros((0, self._joints)), np.zeros(0)
        times, flags = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        return JointMotion(self.profile.neck, self.names, times, none, none, none, none, zero, zero, flags)
