"""The streaming retargeter: FLAME frames in, joint motion within limits out, the same live and offline."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timar_ros.errors import UserError
from timar_ros.retarget import spline
from timar_ros.retarget.follow import Curve, Follower
from timar_ros.retarget.frames import FrameConverter
from timar_ros.retarget.motion import JointMotion
from timar_ros.retarget.options import RetargetOptions
from timar_ros.retarget.profile import RobotProfile
from timar_ros.retarget.stopping import stop_samples
from timar_ros.retarget.timeline import Timeline, smooth_step

Float = NDArray[np.float64]
# The jaw moves faster than the head (speech has 3 to 6 syllables a second).
JAW_BANDWIDTH = 6.0
# How far back frames are kept, in knots.
HISTORY = 250
# Segments worked out at a time: a bound on memory for long files, without influence on the result.
BLOCK = 256
# Longer than any robot here needs to stop from full speed.
STOP_SECONDS = 5.0
# A cancelled motion is to be back at neutral after this time, and the mouth closed.
CANCEL_SECONDS = 0.2
# Segments that can be taken back: more than anybody works out ahead.
TAKEN_BACK = 50


class Retargeter:
    """One robot's head following a stream of FLAME frames.

    Frames are pushed with the time at which they are to be shown, usually ahead of time; :meth:`advance` gives the
    commands up to a time. What is known :attr:`lookahead` seconds ahead is followed without lag; the result depends
    only on what was pushed before each time was reached, not on how time was advanced.

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
        limits = profile.limits()
        self._neutral = limits["neutral"]
        self._is_neck = np.arange(self._joints) < self._necks
        self._leads = np.zeros(self._joints)
        taps = spline.smoothing_filter(profile.bandwidth, self.options.knot_rate)
        self._taps = np.repeat(taps[:, None], self._joints, axis=1)
        # Columns of the timeline: joints, the neck's nods, mouth, lost angle.
        self._nods = slice(self._joints, self._joints + self._necks)
        self._mouth, self._lost = self._joints + self._necks, self._joints + self._necks + 1
        if profile.jaw.joint is not None:
            self._leads[self._necks] = profile.jaw.lead
            self._taps[:, self._necks] = spline.smoothing_filter(
                max(profile.bandwidth, JAW_BANDWIDTH), self.options.knot_rate
            )
        self._lead_groups = [(lead, np.flatnonzero(self._leads == lead)) for lead in np.unique(self._leads)]
        self._low, self._high = self._coefficient_bounds()
        knot_rate = self.options.knot_rate
        self._largest = (
            limits["velocity"] / knot_rate, limits["acceleration"] / knot_rate**2, limits["jerk"] / knot_rate**3
        )  # fmt: skip
        slowest = float(limits["acceleration"][: self._necks].min())
        self._calm_width = spline.calm_width(slowest, knot_rate)
        self._calm_margin = spline.calm_margin(self._calm_width)
        self._reset_stream()
        self._follower.place(self._neutral)
        self._tick: int | None = None  # tick of the follower's state
        self._enabled, self._gaze, self._owned = True, False, True
        self._gaze_pose = self._neutral[: self._necks].copy()
        self._retired_ns: int | None = None
        self._retired_from = self._neutral.copy()
        self._blend_ns: int | None = None
        self._blend_from = self._neutral.copy()
        self._closing_ns: int | None = None  # since when the mouth closes after a cancel, and from what opening
        self._closing_from = 0.0
        self._borders: deque[tuple[int, Float]] = deque(maxlen=TAKEN_BACK)  # ticks and states between segments

    def _coefficient_bounds(self) -> tuple[Float, Float]:
        limits = self.profile.limits()
        room = np.minimum(0.002 * (limits["upper"] - limits["lower"]), 0.004)
        # A jaw's rest lies at the end of its range; it must stay reachable, and be where the follower starts.
        rest = np.clip(self._neutral, self._follower.limits.lower, self._follower.limits.upper)
        return np.minimum(limits["lower"] + room, rest), np.maximum(limits["upper"] - room, rest)

    def _reset_stream(self) -> None:
        self._rest = np.zeros(self._joints + self._necks + 2)
        self._rest[: self._joints] = self._neutral
        idle = np.zeros_like(self._rest)
        idle[: self._necks] = self.options.idle_amplitude
        self._timeline = Timeline(self._rest, idle, self.options)

    @property
    def lookahead(self) -> float:
        """How far ahead [s] frames must be known so that motion within the limits is followed as if all were known."""
        return spline.LOOKAHEAD / self._timeline.knot_rate + float(self._leads.max(initial=0.0))

    @property
    def rejected(self) -> int:
        """Frames rejected so far: not finite, or beyond what a head can do."""
        return self._converter.rejected

    @property
    def late(self) -> int:
        """Frames that came after the time at which they were to be shown."""
        return self._timeline.late

    @property
    def time_ns(self) -> int | None:
        """Time of the last command that was given out; None before the first."""
        return None if self._tick is None else (self._tick - self._pending_count()) * self.period_ns

    @property
    def end_ns(self) -> int | None:
        """Time at which the pushed frames end; None before the first."""
        return self._timeline.end_ns

    @property
    def settled(self) -> bool:
        """Whether all joints are at rest."""
        return self._follower.at_rest

    def start(self, stamp_ns: int, measured: Mapping[str, float] | None = None) -> None:
        """Begin at rest at the measured joint positions (neutral where not given), at the first tick from a time on.

        Without a call, the first pushed frame's time and the neutral pose are taken.
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
        placed = self._follower.state[:, 0].copy()
        self._blend_ns, self._blend_from = self._tick * self.period_ns, placed
        self._borders.clear()
        self._borders.append((self._tick, self._follower.state.copy()))
        self._timeline.start_from(self._rest, self._blend_ns)

    def push(self, stamp_ns: int, rate: float, frames: ArrayLike, speaking: ArrayLike | None = None) -> None:
        """Add FLAME frames.

        :param stamp_ns: time at which the first frame is to be shown [ns].
        :param rate: frames per second [Hz].
        :param frames: shape [N, 56], order 50 expression, 3 jaw, 3 head pose; frames that are not finite or out of
            range are rejected: counted, and the last good one is held.
        :param speaking: shape [N], 1 while the agent speaks; None if not known.
        :raises UserError: wrong shape or rate.
        """
        array = np.asarray(frames, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != 56:
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
        made = None if self._emit_start else self._tick * self.period_ns
        self._timeline.push(stamp_ns, rate, rows, made)
        if len(array) and self._timeline.base_ns is not None:
            self._timeline.forget(self._knot(self._tick * self.period_ns) - HISTORY)

    def change(self, options: RetargetOptions) -> None:
        """Change gains and speeds for frames pushed from now on; the other options stay as they were."""
        names = ("speaking_gain", "listening_gain", "jaw_gain", "speaking_speed", "listening_speed")
        changed = {name: getattr(options, name) for name in names}
        self.options = replace(self.options, **changed)
        self._converter.options = self.options

    def enable(self, enabled: bool) -> None:
        """The soft stop: False decelerates within the limits and holds; True returns to the stream."""
        if enabled and not self._enabled:
            self._fade_in()
        self._enabled = enabled

    def set_gaze(self, active: bool, pose: Mapping[str, float] | None = None) -> None:
        """Whether another controller owns the head, and (for ``nods``) where it wants the neck's joints.

        In mode ``yield`` the neck stops and is then not owned until the gaze ends (``JointMotion.owned``); the jaw and
        face go on. In mode ``nods`` the fast part of the motion is added to ``pose``, or to where the neck was.
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

    def measured(self, positions: Mapping[str, float]) -> None:
        """Where the robot is. Only heeded while another controller owns the neck: we take over from there."""
        if not self._owned:
            pose = self._follower.state[:, 0].copy()
            for index, name in enumerate(self.names[: self._necks]):
                if name in positions and math.isfinite(positions[name]):
                    pose[index] = positions[name]
            self._follower.place(pose, self._is_neck)

    def cancel(self, stamp_ns: int) -> int:
        """Drop all frames and be back at neutral :data:`CANCEL_SECONDS` after a time, or as soon as the limits allow.

        Commands that were worked out for later are taken back, those that :meth:`advance` has given out included, as
        far as :data:`TAKEN_BACK` segments ago. Frames that are pushed after this call are faded in.

        :param stamp_ns: time from which on the motion is to change: that of the first command not yet sent, or later.
        :returns: the last time [ns] whose command stands, at most a segment (40 ms) after ``stamp_ns``; what a caller
            holds of later ones is to be dropped, :meth:`advance` goes on from there.
        """
        late = self._timeline.late
        if self._tick is not None:
            segment_ns = self._follower.segment * self.period_ns
            border = -(-stamp_ns // segment_ns) * self._follower.segment
            self._produce(border * self.period_ns)
            tick, state = next((at for at in self._borders if at[0] >= border), self._borders[-1])
            if not self._owned:  # where another controller has the neck by now
                state = np.where(self._is_neck[:, None], self._follower.state, state)
            stamp_ns += round(CANCEL_SECONDS * 1e9)
            self._closing_from = float(self._motion(tick, state[None]).mouth[0])
            self._follower.leave(state, stamp_ns // self.period_ns)
            self._tick, self._closing_ns, self._blend_ns = tick, tick * self.period_ns, None
            self._borders = deque((at for at in self._borders if at[0] <= tick), TAKEN_BACK)
            stamp_ns = self._closing_ns
            kept = [part[: int(np.searchsorted(part.time_ns, stamp_ns, side="right"))] for part in self._pending]
            self._pending = [part for part in kept if len(part)]
        self._reset_stream()
        self._converter.cut()
        self._timeline.late = late
        self._timeline.start_from(self._rest, stamp_ns)
        return stamp_ns

    def ease_out(self) -> None:
        """Ease to neutral from now on, whatever comes; :attr:`settled` and :attr:`end_ns` say when that is over."""
        if self._tick is not None and self._retired_ns is None:
            self._retired_ns = self._tick * self.period_ns
            self._retired_from = self._follower.state[:, 0].copy()

    def ease_out_done(self) -> bool:
        """Whether the head has come to rest at neutral after :meth:`ease_out` (or never began to move)."""
        if self._tick is None:
            return True
        if self._retired_ns is None or not self.settled:
            return False
        ease = (self.options.ease + spline.LOOKAHEAD / self._timeline.knot_rate) * 1e9
        return self._tick * self.period_ns >= self._retired_ns + ease

    def _fade_in(self) -> None:
        if self._tick is not None:
            self._blend_ns = self._tick * self.period_ns
            self._blend_from = self._follower.state[:, 0].copy()

    def advance(self, until_ns: int) -> JointMotion:
        """Commands at all ticks after the last given ones, up to and including ``until_ns``; may be empty."""
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
        """What :meth:`advance` would give if nothing more came; the retargeter itself stays where it is."""
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
        """:meth:`preview`, and from there the fastest stop: a motion that ends at rest, for a robot to have in hand.

        If nothing replaces it the robot stops safely, even if this program has died.
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
                segments = 1  # look after each whether the neck has come to rest
            stop = np.full(self._joints, not self._enabled)
            if self._gaze and self.options.gaze_mode == "yield":
                stop |= self._is_neck
                if np.all(np.abs(self._follower.state[: self._necks, 1:]) < 1e-9):
                    self._owned = False
            states = self._follower.run(self._tick, segments, self._curve, stop)
            self._pending.append(self._motion(self._tick + 1, states))
            for done in range(max(0, segments - TAKEN_BACK), segments):
                self._borders.append((self._tick + (done + 1) * size, states[(done + 1) * size - 1]))
            self._tick += segments * size

    def _knot(self, time_ns: int) -> int:
        base = self._timeline.base_ns or 0
        return (time_ns - base) // self._timeline.period_ns

    def _curve(self, first: int, count: int) -> Curve:
        """The wanted curve at ticks ``first`` to ``first + count - 1``."""
        timeline = self._timeline
        base, period = timeline.base_ns or 0, timeline.period_ns
        start = first * self.period_ns - base
        relative = start + self.period_ns * np.arange(count)
        position, velocity, acceleration, jerk, bend = (np.empty((count, self._joints)) for _ in range(5))
        for lead, columns in self._lead_groups:
            shifted = relative + round(lead * 1e9)
            knots = shifted // period
            phase = (shifted - knots * period) / period
            origin = int(knots[0]) - spline.LOOKBACK - self._calm_margin
            last = int(knots[-1]) + spline.LOOKAHEAD + self._calm_margin
            coefs = self._coefficients(self._shaped(origin, last - origin + 1))[:, columns]
            interval = knots - origin - spline.HALF_WIDTH - self._calm_margin
            values = spline.evaluate(coefs, interval, phase, timeline.knot_rate)
            for target, value in zip((position, velocity, acceleration), values[:3], strict=True):
                target[:, columns] = value
            # Between two ticks a knot may lie: the larger jerk of both sides counts.
            size = np.abs(values[3])
            jerk[:, columns] = size
            jerk[:-1, columns] = np.maximum(size[:-1], size[1:])
            bend[:, columns] = 0.0
            bend[:-1, columns] = np.abs(np.diff(values[3], axis=0))
        return Curve(position, velocity, acceleration, jerk, bend)

    def _coefficients(self, rows: Float) -> Float:
        count = len(rows) - 2 * spline.HALF_WIDTH
        result: Float = self._taps[0] * rows[:count]
        for offset in range(1, len(self._taps)):
            result += self._taps[offset] * rows[offset : offset + count]
        result = np.clip(spline.calm(result, self._largest, self._calm_width), self._low, self._high)
        if self.profile.couplings:
            result = self._converter.inside(result)
        return result

    def _shaped(self, origin: int, count: int) -> Float:
        """Wanted joint positions [count, J] at knots from ``origin`` on, with gaze, fades and easing out applied."""
        timeline = self._timeline
        rows = timeline.rows(origin, count)
        joints = rows[:, : self._joints]
        if self._gaze and self.options.gaze_mode == "nods":
            joints[:, : self._necks] = self._gaze_pose + rows[:, self._nods]
            joints = self._converter.inside(joints)
        knots = np.arange(origin, origin + count, dtype=np.int64)
        time_ns = knots * timeline.period_ns + (timeline.base_ns or 0)
        if self._blend_ns is not None and self.options.resume > 0:
            share = smooth_step((time_ns - self._blend_ns) / (self.options.resume * 1e9))[:, None]
            joints = self._blend_from + share * (joints - self._blend_from)
        if self._retired_ns is not None:
            share = smooth_step((time_ns - self._retired_ns) / (self.options.ease * 1e9))[:, None]
            joints = self._retired_from + share * (self._neutral - self._retired_from)
        return joints

    def _motion(self, first: int, states: Float) -> JointMotion:
        """Pack states [N, J, 3] at ticks from ``first`` on, with what belongs to them."""
        count = len(states)
        time_ns = (first + np.arange(count)) * self.period_ns
        base, period = self._timeline.base_ns or 0, self._timeline.period_ns
        knots = (time_ns - base) / period
        origin = int(knots[0]) - 1
        lead = self.profile.jaw.lead * self._timeline.knot_rate
        rows = self._timeline.rows(origin, int(knots[-1] + lead) + 3 - origin)
        at = knots - origin
        closing = np.zeros(count)
        if self._closing_ns is not None:
            passed = (time_ns - self._closing_ns) / (CANCEL_SECONDS * 1e9)
            closing = self._closing_from * (1.0 - smooth_step(passed))

        def linear(values: Float, where: Float) -> Float:
            index = where.astype(np.int64)
            share = (where - index).reshape(-1, *([1] * (values.ndim - 1)))
            return values[index] + share * (values[index + 1] - values[index])

        return JointMotion(
            neck=self.profile.neck,
            names=self.names,
            time_ns=time_ns.astype(np.int64),
            position=states[:, :, 0].copy(),
            # Rounding noise is no motion: a controller asks for a last velocity of exactly 0.
            velocity=np.where(np.abs(states[:, :, 1]) < 1e-12, 0.0, states[:, :, 1]),
            acceleration=np.where(np.abs(states[:, :, 2]) < 1e-10, 0.0, states[:, :, 2]),
            wanted=linear(rows[:, : self._joints], at),
            lost_angle=linear(rows[:, self._lost], at),
            mouth=np.clip(linear(rows[:, self._mouth], at + lead) + closing, 0.0, 1.0),
            owned=np.full(count, self._owned),
        )

    def _empty(self) -> JointMotion:
        none, zero = np.zeros((0, self._joints)), np.zeros(0)
        times, flags = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        return JointMotion(self.profile.neck, self.names, times, none, none, none, none, zero, zero, flags)
