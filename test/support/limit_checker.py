"""Checks streamed joint commands against a robot's limits."""

from __future__ import annotations

import numpy as np

from timar_ros.retarget import JointMotion, Retargeter, RobotProfile
from timar_ros.retarget.robot_check import violations


class LimitChecker:
    """Counts commands and keeps the largest excess over each limit; it is not positive while the limit holds."""

    def __init__(self, profile: RobotProfile) -> None:
        self.profile = profile
        self.commands = 0
        self.worst: dict[str, float] = {}
        self.last: JointMotion | None = None

    def note(self, what: str, excess: float) -> None:
        """Store an excess; NaN counts as infinite."""
        self.worst[what] = max(self.worst.get(what, -np.inf), excess if np.isfinite(excess) else np.inf)

    def take(self, part: JointMotion, retargeter: Retargeter) -> None:
        """Check commands that continue from the last ones."""
        if len(part):
            self._check(part, retargeter)
            self.commands += len(part)
            self.last = part[-1:]

    def take_plan(self, plan: JointMotion, retargeter: Retargeter) -> None:
        """Check a trajectory that continues from the last command and ends at rest."""
        if len(plan):
            self._check(plan, retargeter)
            self.note("velocity at a plan's end", float(np.abs(plan.velocity[-1]).max()))
            self.note("acceleration at a plan's end", float(np.abs(plan.acceleration[-1]).max()))

    def _check(self, part: JointMotion, retargeter: Retargeter) -> None:
        if self.last is None:
            self.note("first velocity", float(np.abs(part.velocity[0]).max()))
        whole = part if self.last is None else JointMotion.join([self.last, part])
        for what, excess in violations(self.profile, whole).items():
            self.note(what, excess)
        if len(whole) > 1:
            self.note("time", float(np.abs(np.diff(whole.time_ns) - retargeter.period_ns).max()))
