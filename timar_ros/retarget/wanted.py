"""The curve that a head follows: the timeline with fades, smoothing and calming, and its accompanying values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from timar_ros.retarget import spline
from timar_ros.retarget.blinks import eyelid_closure
from timar_ros.retarget.follow import Curve, Limits
from timar_ros.retarget.gaze import Gaze
from timar_ros.retarget.profile import RobotProfile
from timar_ros.retarget.retarget_options import RetargetOptions
from timar_ros.retarget.timeline import Timeline, smooth_step

Float = NDArray[np.float64]
# The jaw moves faster than the head (speech has 3 to 6 syllables a second).
JAW_BANDWIDTH = 6.0
# Time from a cancel until the head is back at neutral and the mouth closed.
CANCEL_SECONDS = 0.2


class WantedCurve:
    """A function of the tick alone, except for changes by the stream and the behaviour (fades, gaze, easing out).

    Rows are those of ``timeline``: joints, the neck's nods, mouth, lost angle.

    :param period_ns: length of a tick [ns].
    :param inside: clips joint positions [N, J] into the limits.
    """

    def __init__(
        self, profile: RobotProfile, options: RetargetOptions, period_ns: int, inside: Callable[[Float], Float]
    ) -> None:
        self._profile, self._options, self._period_ns, self._inside = profile, options, period_ns, inside
        self._joints, self._necks = len(profile.joints), len(profile.neck)
        limits, knot_rate = profile.limits(), options.knot_rate
        self._neutral = limits["neutral"]
        self._nods = slice(self._joints, self._joints + self._necks)
        self._mouth, self._lost = self._joints + self._necks, self._joints + self._necks + 1
        leads = np.zeros(self._joints)
        taps = spline.smoothing_filter(profile.bandwidth, knot_rate)
        self._taps = np.repeat(taps[:, None], self._joints, axis=1)
        if profile.jaw.joint is not None:
            leads[self._necks] = profile.jaw.lead
            self._taps[:, self._necks] = spline.smoothing_filter(max(profile.bandwidth, JAW_BANDWIDTH), knot_rate)
        self._lids = np.zeros(self._joints)
        face = len(profile.face)
        self._lids[self._joints - face :] = [joint.blink for joint in profile.face]
        for lid in np.flatnonzero(self._lids):
            self._taps[:, lid] = spline.smoothing_filter(max(profile.bandwidth, JAW_BANDWIDTH), knot_rate)
        self._lead_groups = [(lead, np.flatnonzero(leads == lead)) for lead in np.unique(leads)]
        room = np.minimum(0.002 * (limits["upper"] - limits["lower"]), 0.004)
        # A jaw rests at the end of its range, which must stay reachable and be the follower's start.
        held = Limits(profile)
        rest = np.clip(self._neutral, held.lower, held.upper)
        self._low = np.minimum(limits["lower"] + room, rest)
        self._high = np.maximum(limits["upper"] - room, rest)
        self._largest = (
            limits["velocity"] / knot_rate, limits["acceleration"] / knot_rate**2, limits["jerk"] / knot_rate**3
        )  # fmt: skip
        slowest = float(limits["acceleration"][: self._necks].min())
        self._calm_width = spline.calm_width(slowest, knot_rate)
        self._calm_margin = spline.calm_margin(self._calm_width)
        self._rest = np.zeros(self._joints + self._necks + 2)
        self._rest[: self._joints] = self._neutral
        self._idle = np.zeros_like(self._rest)
        self._idle[: self._necks] = options.idle_amplitude
        self.timeline = Timeline(self._rest, self._idle, options)
        self.lookahead = spline.LOOKAHEAD / self.timeline.knot_rate + float(leads.max(initial=0.0))
        self.gaze = Gaze(
            limits["velocity"][: self._necks],
            limits["acceleration"][: self._necks],
            options.gaze_seconds,
            options.gaze_timeout,
            options.ease,
        )
        self.nods_on: Float | None = None  # another controller's neck pose, to which nods are added
        self._fade: tuple[int, Float] | None = None  # start time [ns] and positions [J] of the fade-in
        self._retired: tuple[int, Float] | None = None  # the same for easing out
        self._closing: tuple[int, float] | None = None  # the same for the mouth after a cancel

    def wait(self, stamp_ns: int) -> None:
        """Stay at neutral until the first frame, which is expected from a time on."""
        self.timeline.start_from(self._rest, stamp_ns)

    def fade_in(self, stamp_ns: int, positions: Float) -> None:
        """Begin at joint positions [J] at a time."""
        self._fade = stamp_ns, positions.copy()

    def retire(self, stamp_ns: int, positions: Float) -> None:
        """Ease from joint positions [J] to neutral from a time on, with any input."""
        self._retired = stamp_ns, positions.copy()

    @property
    def retired_ns(self) -> int | None:
        """Time at which easing out began; None before."""
        return None if self._retired is None else self._retired[0]

    def cancel(self, stamp_ns: int) -> None:
        """Drop all frames: neutral from a time on, the mouth closing."""
        self._closing = stamp_ns, float(self.reported(np.array([stamp_ns]))[2][0])
        late, self._fade = self.timeline.late, None
        self.timeline = Timeline(self._rest, self._idle, self._options)
        self.timeline.late = late
        self.wait(stamp_ns)

    def knot(self, time_ns: int) -> int:
        """The timeline's knot at or before a time."""
        return (time_ns - (self.timeline.base_ns or 0)) // self.timeline.period_ns

    def curve(self, first: int, count: int) -> Curve:
        """The wanted curve at ticks ``first`` to ``first + count - 1``."""
        timeline = self.timeline
        base, period = timeline.base_ns or 0, timeline.period_ns
        relative = first * self._period_ns - base + self._period_ns * np.arange(count)
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
            # A knot may lie between two ticks: the larger jerk of both sides counts.
            size = np.abs(values[3])
            jerk[:, columns] = size
            jerk[:-1, columns] = np.maximum(size[:-1], size[1:])
            bend[:, columns] = 0.0
            bend[:-1, columns] = np.abs(np.diff(values[3], axis=0))
        return Curve(position, velocity, acceleration, jerk, bend)

    def _coefficients(self, rows: Float) -> Float:
        """B-spline coefficients [N - 2 * margins, J] of shaped rows [N, J], within the position limits."""
        count = len(rows) - 2 * spline.HALF_WIDTH
        result: Float = self._taps[0] * rows[:count]
        for offset in range(1, len(self._taps)):
            result += self._taps[offset] * rows[offset : offset + count]
        result = np.clip(spline.calm(result, self._largest, self._calm_width), self._low, self._high)
        return self._inside(result) if self._profile.couplings else result

    def _shaped(self, origin: int, count: int) -> Float:
        """Wanted joint positions [count, J] at knots from ``origin`` on, with gaze, fades and easing out applied."""
        timeline = self.timeline
        rows = timeline.rows(origin, count)
        joints = rows[:, : self._joints]
        if self.nods_on is not None:
            joints[:, : self._necks] = self.nods_on + rows[:, self._nods]
            joints = self._inside(joints)
        time_ns = np.arange(origin, origin + count, dtype=np.int64) * timeline.period_ns + (timeline.base_ns or 0)
        joints = self._turned(joints, time_ns)
        if self._fade is not None and self._options.resume > 0:
            since, begin = self._fade
            share = smooth_step((time_ns - since) / (self._options.resume * 1e9))[:, None]
            joints = begin + share * (joints - begin)
        if self._retired is not None:
            since, begin = self._retired
            share = smooth_step((time_ns - since) / (self._options.ease * 1e9))[:, None]
            joints = begin + share * (self._neutral - begin)
        if self._lids.any():  # lids also blink while the head rests
            joints = joints + self._lids * eyelid_closure(time_ns)[:, None]
        return joints

    def _turned(self, joints: Float, time_ns: NDArray[np.int64]) -> Float:
        """Joint positions [N, J] at times [N], turned to the gaze's target, within the limits."""
        if not self.gaze.used or self.nods_on is not None:
            return joints
        turned = joints.copy()
        turned[:, : self._necks] += self.gaze.at(time_ns)
        return self._inside(turned)

    def reported(self, time_ns: NDArray[np.int64]) -> tuple[Float, Float, Float]:
        """Values that are reported but not followed, at ascending times [N], linear between the frames.

        :returns: wanted joint positions before smoothing and limits [N, J]; lost angle [N] rad; mouth opening [N].
        """
        timeline = self.timeline
        knots = (time_ns - (timeline.base_ns or 0)) / timeline.period_ns
        origin = int(knots[0]) - 1
        lead = self._profile.jaw.lead * timeline.knot_rate
        rows = timeline.rows(origin, int(knots[-1] + lead) + 3 - origin)
        at = knots - origin
        mouth = _linear(rows[:, self._mouth], at + lead)
        if self._closing is not None:
            since, opening = self._closing
            mouth = mouth + opening * (1.0 - smooth_step((time_ns - since) / (CANCEL_SECONDS * 1e9)))
        wanted = self._turned(_linear(rows[:, : self._joints], at), time_ns)
        return wanted, _linear(rows[:, self._lost], at), np.clip(mouth, 0.0, 1.0)


def _linear(values: Float, where: Float) -> Float:
    """Values [N, ...] at fractional indices."""
    index = where.astype(np.int64)
    share = (where - index).reshape(-1, *([1] * (values.ndim - 1)))
    return np.asarray(values[index] + share * (values[index + 1] - values[index]))
