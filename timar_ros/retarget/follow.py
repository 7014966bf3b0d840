"""Following a wanted curve within position, velocity, acceleration and jerk limits.

The follower knows the curve for a limited look-ahead. Where the curve keeps the limits, joints follow it exactly,
without any lag. Where it does not (a step, a turn that is too fast), each joint leaves it on a time-optimal path of
Ruckig (Berscheid and Kroeger, 2021), which meets the curve's position, velocity and acceleration at the first possible
tick. Every piece of a path must end in a safe state (:mod:`timar_ros.retarget.stopping`); otherwise the joint does its
fastest stop, which from a safe state is always within the limits.

Time runs in ticks of the output. The follower decides at the borders of segments of a few ticks on the absolute grid of
ticks, from the curve known then; so the result does not depend on how a caller divides time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import ruckig
from numpy.typing import NDArray

from timar_ros.retarget.profile import Coupling, RobotProfile
from timar_ros.retarget.stopping import stop_range, stop_reach, stop_samples

Float = NDArray[np.float64]
SEGMENT = 0.04
HORIZON = 0.6
GENTLE = 0.12
# Inner limits leave room for rounding: differences of output numbers must keep the outer limits to 1e-6.
INNER = 1 - 1e-4
TINY = 1e-9


@dataclass
class Curve:
    """A wanted curve at consecutive ticks: arrays [N, J].

    ``jerk`` is the largest magnitude of the jerk up to the next tick, and ``bend`` its change at a knot in between.
    """

    position: Float
    velocity: Float
    acceleration: Float
    jerk: Float
    bend: Float

    def __getitem__(self, part: slice) -> Curve:
        """The curve at some of the ticks."""
        return Curve(
            self.position[part], self.velocity[part], self.acceleration[part], self.jerk[part], self.bend[part]
        )


class Limits:
    """A profile's limits as arrays [J], and the check that states are safe."""

    def __init__(self, profile: RobotProfile) -> None:
        values = profile.limits()
        room = np.minimum(1e-6, 1e-6 * (values["upper"] - values["lower"]))
        self.lower, self.upper = values["lower"] + room, values["upper"] - room
        self.velocity, self.acceleration = values["velocity"] * INNER, values["acceleration"] * INNER
        self.jerk = values["jerk"] * INNER
        names = profile.names
        self.couplings = [(names.index(c.joint), names.index(c.by), c) for c in profile.couplings]

    def reach(self, p: Float, v: Float, a: Float) -> tuple[Float, Float]:
        """Lowest and highest position of the fastest stops from states [..., J]."""
        below, above = stop_reach(v, a, self.acceleration, self.jerk)
        return p - below, p + above

    def safe(self, p: Float, v: Float, a: Float) -> NDArray[np.bool_]:
        """For states [N, J]: whether each keeps the limits and can stop within them, couplings included."""
        low, high = self.reach(p, v, a)
        settled = np.abs(v + a * np.abs(a) / (2 * self.jerk))
        good = (low >= self.lower - TINY) & (high <= self.upper + TINY) & (np.abs(a) <= self.acceleration + TINY)
        good &= np.maximum(np.abs(v), settled) <= self.velocity + TINY
        for joint, by, coupling in self.couplings:
            coupled = coupling.box_inside(low[:, by], high[:, by], low[:, joint], high[:, joint])
            good[:, joint] &= coupled
            good[:, by] &= coupled
        return np.asarray(good)


class _Planner:
    """Time-optimal paths of one joint."""

    def __init__(self, velocity: float, acceleration: float, jerk: float) -> None:
        self._solver = ruckig.Ruckig(1)
        self._input = ruckig.InputParameter(1)
        self._input.max_velocity = [velocity]
        self._input.max_acceleration = [acceleration]
        self._input.max_jerk = [jerk]
        self._velocity, self._acceleration, self._jerk = velocity, acceleration, jerk
        self.path = ruckig.Trajectory(1)

    def plan(self, state: Float, target: Float, duration: float | None = None) -> float | None:
        """The path's duration from state to target (position, velocity, acceleration); None if there is none.

        :param duration: stretch the path to this time [s].
        """
        solver_input = self._input
        solver_input.current_position, solver_input.current_velocity, solver_input.current_acceleration = (
            [x] for x in state.tolist()
        )
        # Rounding noise in place of an exact 0 makes Ruckig's case distinctions fail.
        velocity, acceleration = (0.0 if abs(x) < 1e-9 else x for x in (target[1], target[2]))
        solver_input.target_position, solver_input.target_velocity, solver_input.target_acceleration = (
            [target[0]],
            [velocity],
            [acceleration],
        )
        solver_input.minimum_duration = duration
        try:
            result = self._solver.calculate(solver_input, self.path)
        except ruckig.RuckigError:  # no numerical solution; the caller tries another target or stops
            return None
        return float(self.path.duration) if result >= 0 else None

    def samples(self, times: list[float]) -> Float:
        """Position, velocity, acceleration of the last plan at times [N]: shape [N, 3]."""
        at = self.path.at_time
        return np.array([[x[0] for x in at(t)] for t in times])


class Follower:
    """Follows a curve tick by tick; holds the state of all joints.

    :param rate: ticks per second [Hz].
    """

    def __init__(self, profile: RobotProfile, rate: float) -> None:
        self.limits = Limits(profile)
        self.rate = rate
        self.segment = max(1, round(SEGMENT * rate))
        self.horizon = max(2 * self.segment, round(HORIZON * rate))
        self._gentle = max(self.segment, round(GENTLE * rate))
        self._planners = [
            _Planner(v, a, j)
            for v, a, j in zip(self.limits.velocity, self.limits.acceleration, self.limits.jerk, strict=True)
        ]
        joints = len(profile.joints)
        self.state = np.zeros((joints, 3))
        self._locked = np.zeros(joints, dtype=bool)
        self._meet = np.zeros(joints, dtype=np.int64)  # tick at which each joint must be on the curve again
        self._earliest = 0  # tick before which a joint off the curve need not return to it
        self._times = (np.arange(1, self.segment + 1) / self.rate).tolist()

    def copy_state(self) -> tuple[Float, NDArray[np.bool_], NDArray[np.int64]]:
        """The state for :meth:`restore`."""
        return self.state.copy(), self._locked.copy(), self._meet.copy()

    def restore(self, saved: tuple[Float, NDArray[np.bool_], NDArray[np.int64]]) -> None:
        """Go back to a copied state."""
        self.state, self._locked, self._meet = saved[0].copy(), saved[1].copy(), saved[2].copy()

    def place(self, positions: Float, joints: NDArray[np.bool_] | None = None) -> None:
        """Start at rest at measured positions [J], clipped into the limits; ``joints`` [J] selects some of them."""
        chosen = np.ones(len(self.state), dtype=bool) if joints is None else joints
        clipped = np.clip(positions, self.limits.lower, self.limits.upper)
        for joint, by, coupling in self.limits.couplings:
            lower, upper = coupling.bounds(clipped[by])
            clipped[joint] = np.clip(clipped[joint], lower, upper)
        self.state[chosen] = 0.0
        self.state[chosen, 0] = clipped[chosen]
        self._locked &= ~chosen

    def leave(self, state: Float, earliest: int) -> None:
        """Return to an earlier state [J, 3]; joints meet the new curve at the given tick or later."""
        self.state = state.copy()
        self._locked[:], self._meet[:], self._earliest = False, 0, earliest

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves."""
        return bool(np.all(np.abs(self.state[:, 1:]) < 1e-9))

    def run(self, tick: int, segments: int, curve: Callable[[int, int], Curve], stop: NDArray[np.bool_]) -> Float:
        """Move over a number of whole segments.

        :param tick: the state's own tick; the result's first tick is the next one.
        :param curve: ``curve(first, count)`` gives the wanted curve at ticks ``first``, ``first + 1`` ...
        :param stop: joints [J] that must stop and hold, with any curve.
        :returns: states at the ticks, shape [segments * segment, J, 3].
        """
        size = self.segment
        count = segments * size
        result = np.empty((count, len(self.state), 3))
        wanted = curve(tick, count + 2)
        fit = self._fit(wanted)
        far = False  # whether the known curve covers the look-ahead of paths back to it
        done = 0
        while done < segments:
            at = done * size
            locked = 0 if stop.any() else self._lockable(wanted[at : count + 2], fit[at : count + 2])
            if locked:
                run = slice(at, at + locked * size)
                ahead = slice(at + 1, at + 1 + locked * size)
                result[run, :, 0] = wanted.position[ahead]
                result[run, :, 1] = wanted.velocity[ahead]
                result[run, :, 2] = wanted.acceleration[ahead]
                done += locked
            else:
                if not far:
                    # One extra tick: it shows whether the last tick can be followed.
                    wanted = curve(tick, count + self.horizon + 3)
                    fit, far = self._fit(wanted), True
                near = slice(at, at + self.horizon + 2)
                result[at : at + size] = self._segment(tick + at, wanted[near], fit[near], stop)
                done += 1
            self.state = result[done * size - 1].copy()
        return result

    def _fit(self, curve: Curve) -> NDArray[np.bool_]:
        """For each tick and joint: whether the curve is safe there and can be followed up to the next tick."""
        limits = self.limits
        fit = limits.safe(curve.position, curve.velocity, curve.acceleration) & (curve.jerk <= limits.jerk)
        # Between two ticks, velocity and acceleration may exceed the chord by at most this.
        step = 1.0 / self.rate
        over_velocity, over_acceleration = curve.jerk * step**2 / 8, curve.bend * step / 4
        for value, over, limit in (
            (np.abs(curve.velocity), over_velocity, limits.velocity),
            (np.abs(curve.acceleration), over_acceleration, limits.acceleration),
        ):
            fit &= value + over <= limit
            fit[:-1] &= value[1:] + over[:-1] <= limit
        return np.asarray(fit)

    def _on(self, curve: Curve) -> NDArray[np.bool_]:
        """Whether each joint's state equals the curve's first tick."""
        state = self.state
        return np.asarray(
            self._locked
            & (np.abs(state[:, 0] - curve.position[0]) < 1e-9)
            & (np.abs(state[:, 1] - curve.velocity[0]) < 1e-7)
            & (np.abs(state[:, 2] - curve.acceleration[0]) < 1e-5)
        )

    def _lockable(self, curve: Curve, fit: NDArray[np.bool_]) -> int:
        """The number of segments from here for which all joints can stay on the curve."""
        if not self._on(curve).all():
            return 0
        good = np.asarray(fit.all(axis=1))
        first_bad = len(good) - 1 if good.all() else int(np.argmin(good))
        return max(first_bad - 1, 0) // self.segment

    def _segment(self, tick: int, curve: Curve, fit: NDArray[np.bool_], stop: NDArray[np.bool_]) -> Float:
        """One segment, joint by joint; shape [segment, J, 3]."""
        size = self.segment
        on = self._on(curve)
        joints = len(self.state)
        result = np.empty((size, joints, 3))
        locked = np.zeros(joints, dtype=bool)
        for j in range(joints):
            if stop[j]:
                result[:, j] = self._stop(j)
            elif on[j] and fit[: size + 1, j].all():
                result[:, j, 0] = curve.position[1 : size + 1, j]
                result[:, j, 1] = curve.velocity[1 : size + 1, j]
                result[:, j, 2] = curve.acceleration[1 : size + 1, j]
                locked[j] = True
            else:
                chased = self._chase(j, tick, curve, fit[:, j])
                if chased is not None and self._keeps(j, chased[0]):
                    result[:, j], locked[j] = chased
                else:
                    result[:, j] = self._stop(j)
        for joint, by, coupling in self.limits.couplings:
            locked = self._respect(coupling, joint, by, result, locked)
        self._locked = locked
        return result

    def _stop(self, j: int) -> Float:
        """The next segment of the fastest stop of a joint, shape [segment, 3]."""
        p, v, a = self.state[j].tolist()
        if v == a == 0.0:
            return np.tile(self.state[j], (self.segment, 1))
        return stop_samples((p, v, a), float(self.limits.acceleration[j]), float(self.limits.jerk[j]), self._times)

    def _keeps(self, j: int, samples: Float) -> bool:
        """Whether a piece of a path of one joint stays within its limits and ends in a safe state.

        For a path stretched to a duration, Ruckig checks the velocity limit only at the ends of phases, not where the
        acceleration passes 0 within one of the first two phases; and it does not check positions.
        """
        limits = self.limits
        lower, upper, a_max, j_max = limits.lower[j], limits.upper[j], limits.acceleration[j], limits.jerk[j]
        v_max = limits.velocity[j] + TINY
        p0, v0, a0 = self.state[j].tolist()
        for p, v, a in samples.tolist():
            if not (lower <= p <= upper and abs(v) <= v_max and abs(a) <= a_max + TINY):
                return False
            # Between two ticks: the mean velocity, and the extremes of a motion of constant jerk.
            if abs(p - p0) * self.rate > v_max:
                return False
            if a0 * a < 0 and abs(v0 + a0 * a0 / (2 * (a0 - a) * self.rate)) > v_max:
                return False
            if v0 * v < 0 and not lower <= p0 + v0 * v0 / (2 * (v0 - v) * self.rate) <= upper:
                return False
            p0, v0, a0 = p, v, a
        low, high = stop_range(p0, v0, a0, a_max, j_max)
        return bool(low >= lower and high <= upper and abs(v0 + a0 * abs(a0) / (2 * j_max)) <= v_max)

    def _respect(
        self, coupling: Coupling, joint: int, by: int, result: Float, locked: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Stop one or both of two coupled joints if their paths together would leave the coupling's region."""
        if coupling.box_inside(*self._passed(by, result[:, by]), *self._passed(joint, result[:, joint])):
            return locked
        kept, stops = locked.copy(), {j: self._stop(j) for j in (joint, by)}
        for stopped in ((by,), (joint,), (joint, by)):
            paths = {j: stops[j] if j in stopped else result[:, j] for j in (joint, by)}
            if coupling.box_inside(*self._passed(by, paths[by]), *self._passed(joint, paths[joint])):
                break
        for j in stopped:
            result[:, j], kept[j] = stops[j], False
        return kept

    def _passed(self, j: int, samples: Float) -> tuple[float, float]:
        """Lowest and highest position of a joint on the next segment [segment, 3] and a stop after it."""
        p, v, a = samples[-1].tolist()
        low, high = stop_range(p, v, a, float(self.limits.acceleration[j]), float(self.limits.jerk[j]))
        passed = [float(self.state[j, 0]), *samples[:, 0].tolist()]
        return min(low, *passed), max(high, *passed)

    def _chase(self, j: int, tick: int, curve: Curve, fit: NDArray[np.bool_]) -> tuple[Float, bool] | None:
        """The next segment of a path back to the curve, and whether it ends on it."""
        planner, state = self._planners[j], self.state[j]
        wanted = np.stack([curve.position[:, j], curve.velocity[:, j], curve.acceleration[:, j]], axis=1)
        can_meet = fit[:-1] & fit[1:]
        meet = self._meet[j] - tick
        if self.segment <= meet < len(can_meet) and can_meet[meet] and self._reaches(planner, state, wanted, int(meet)):
            return self._taken(planner, int(meet) == self.segment, wanted)
        limits = self.limits
        index = np.arange(len(can_meet))
        gap = np.abs(wanted[:-1] - state)
        soonest = np.maximum(gap[:, 0] / limits.velocity[j], gap[:, 1] / limits.acceleration[j])
        soonest = np.maximum(soonest, gap[:, 2] / limits.jerk[j]) * self.rate
        least = min(max(self._gentle, self._earliest - tick), len(can_meet) - 1)
        candidates = np.flatnonzero(can_meet & (index >= least) & (soonest <= index + 1e-9))
        at = 0
        while at < len(candidates):
            meet = int(candidates[at])
            needed = planner.plan(state, wanted[meet])
            if needed is None:
                at += 1
            elif needed * self.rate <= meet + 1e-6:
                if self._reaches(planner, state, wanted, meet):
                    self._meet[j] = tick + meet
                    return self._taken(planner, meet == self.segment, wanted)
                at += 1
            else:
                # Not possible yet: meet the curve later, by about the missing time.
                at = max(at + 1, int(np.searchsorted(candidates, meet + 0.5 * (needed * self.rate - meet))))
        self._meet[j] = 0
        last = len(can_meet) - 1
        aims = [wanted[last]] if can_meet[last] else []
        rest = float(np.clip(wanted[last, 0], limits.lower[j], limits.upper[j]))
        aims.append(np.array([rest, 0.0, 0.0]))
        for aim in aims:
            if planner.plan(state, aim) is not None:
                samples = planner.samples(self._times)
                if self._keeps(j, samples):
                    return samples, False
        return None

    def _reaches(self, planner: _Planner, state: Float, wanted: Float, meet: int) -> bool:
        """Plan to be on the curve at exactly a tick; False if that is not possible."""
        duration = planner.plan(state, wanted[meet], meet / self.rate)
        return duration is not None and abs(duration * self.rate - meet) < 1e-6

    def _taken(self, planner: _Planner, arrived: bool, wanted: Float) -> tuple[Float, bool]:
        samples = planner.samples(self._times)
        if arrived:
            samples[-1] = wanted[self.segment]
        return samples, arrived
