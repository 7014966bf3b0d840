#!/usr/bin/env python3
"""Measure a joint_trajectory_controller's commands for node `retarget`'s trajectories, in the controller's own cycles.

    . .venv/setup.bash && python scripts/measure_controllers.py [--robot timar_head] [--motion FILE.npz] [--rate 200]

The node's driver and its messages are the real ones; the controller is the package's model of version 4.42
(`timar_ros/simulation/controller.py`), with and without `interpolate_from_desired_state`. Joints follow their commands
with a first-order lag or a dead time. Messages take 3 to 9 ms. Half of the turns have an interruption or a soft stop.
The figures are the largest differences of the controller's commands from cycle to cycle, as shares of the profile's
limits.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectory

from timar_ros.data.motion_files import read_motion
from timar_ros.node_parts.head_driver import DriverOptions, HeadDriver
from timar_ros.resources import share
from timar_ros.retarget import RetargetOptions, RobotProfile, load_profile
from timar_ros.ros.joint_outputs import JointOutputs
from timar_ros.ros.messages import Motion, to_ns
from timar_ros.simulation.controller import TrajectoryController
from timar_ros.simulation.head import KinematicHead

MS = 1_000_000
START = 1_000_000 * MS
AHEAD_NS = 400 * MS
"""How long before its presentation time a turn's motion comes."""


@dataclass
class Setting:
    """One controller: ``rate`` of its cycles [Hz], ``lag`` (time constant) and ``dead`` time of its joints [s]."""

    from_desired: bool = True
    lag: float = 0.0
    dead: float = 0.0
    rate: float = 200.0
    stamped: bool = True
    point_rate: float = 50.0


class _Publisher:
    def __init__(self, take: Callable[[Any], None] | None) -> None:
        self._take = take

    def get_subscription_count(self) -> int:
        return int(self._take is not None)

    def publish(self, message: Any) -> None:
        if self._take is not None:
            self._take(message)


@dataclass
class _Node:
    """The part of a node that the driver's outputs use: publishers; only that of trajectories stores its messages."""

    trajectories: list[JointTrajectory] = field(default_factory=list)

    def publish_on(self, _kind: type, topic: str, _profile: Any) -> _Publisher:
        return _Publisher(self.trajectories.append if topic == "joint_trajectory" else None)


@dataclass
class Run:
    """A controller's commands [N, J] at ``rate``, the joints' positions [N, J], and the profile."""

    profile: RobotProfile
    rate: float
    commands: NDArray[np.float64]
    joints: NDArray[np.float64]
    trajectories: int

    def shares(self, of: NDArray[np.float64] | None = None) -> tuple[float, float]:
        """Largest velocity and acceleration, by differences from cycle to cycle, as shares of the limits."""
        values, limits = self.commands if of is None else of, self.profile.limits()
        velocity = np.abs(np.diff(values, axis=0)) * self.rate
        acceleration = np.abs(np.diff(values, 2, axis=0)) * self.rate**2
        return float((velocity / limits["velocity"]).max()), float((acceleration / limits["acceleration"]).max())

    def peaks(self) -> tuple[float, float]:
        """Largest velocity [rad/s] and acceleration [rad/s^2] of a neck's joint."""
        neck = self.commands[:, : len(self.profile.neck)]
        velocity, acceleration = np.diff(neck, axis=0) * self.rate, np.diff(neck, 2, axis=0) * self.rate**2
        return float(np.abs(velocity).max()), float(np.abs(acceleration).max())

    def cycles_beyond(self, tolerance: float = 0.01) -> int:
        """Number of cycles with a joint's acceleration beyond its limit."""
        acceleration = np.abs(np.diff(self.commands, 2, axis=0)) * self.rate**2
        return int((acceleration > (1 + tolerance) * self.profile.limits()["acceleration"]).any(axis=1).sum())


def follow(
    profile: RobotProfile,
    frames: NDArray[np.float64],
    setting: Setting,
    *,
    events: bool = True,
    start: float = 0.0,
    seed: int = 0,
) -> Run:
    """Drive a controller with motion [N, 56] at 25 Hz, turn by turn.

    :param events: interrupt or softly stop every second turn.
    :param start: every joint's initial position, held by its controller [rad].
    """
    rng = np.random.default_rng(seed)
    node = _Node()
    outputs = JointOutputs(node, profile, "trajectory", False)  # type: ignore[arg-type]
    driving = DriverOptions(100.0, max(1, round(100.0 / setting.point_rate)), setting.stamped)
    driver = HeadDriver(profile, RetargetOptions(), outputs, driving)
    head = KinematicHead(profile, setting.lag)
    controller = TrajectoryController(profile.names, from_desired=setting.from_desired)
    limits = profile.limits()
    pose = np.clip(limits["neutral"] + start, limits["lower"], limits["upper"])
    head.command(pose)
    head.step(1e6)
    controller.reset(pose)
    period = round(1e9 / setting.rate)
    dead: deque[NDArray[np.float64]] = deque([pose] * (round(setting.dead * setting.rate) + 1))
    commands, joints = [], []
    in_transit: deque[tuple[int, JointTrajectory]] = deque()
    turns = {START + round(0.5e9) + turn * 1000 * MS: turn for turn in range(len(frames) // 25)}
    requests: dict[int, bool | None] = {}
    for moment, turn in turns.items() if events else ():
        at = moment + 10 * MS * int(rng.integers(10, 80))
        if turn % 4 == 1:
            requests[at] = None  # interrupted
        elif turn % 4 == 3:
            requests.update({at: False, at + 300 * MS: True})
    driver.start(START, dict(zip(profile.names, pose.tolist(), strict=True)))
    cycle = START + 1_300_000
    for now in range(START, START + round(0.5e9) + len(frames) * 40 * MS + 2000 * MS, 10 * MS):
        if now in turns:
            turn = turns[now]
            rows = np.asarray(frames[25 * turn : 25 * turn + 25], dtype=np.float32)
            driver.push(now, Motion(now + AHEAD_NS, 25.0, turn, rows, np.zeros(25, np.uint8)))
        if now in requests:
            request = requests[now]
            if request is None:
                driver.cancel(now, now + AHEAD_NS)
            else:
                driver.enable(now, request)
        driver.tick(now)
        for message in node.trajectories:
            in_transit.append((now + round(rng.uniform(3e6, 9e6)), message))
        node.trajectories.clear()
        while cycle < now + 10 * MS:
            while in_transit and in_transit[0][0] <= cycle:
                _take(controller, in_transit[0][0], in_transit.popleft()[1])
            reading = head.read()
            command = controller.update(cycle, period, reading.position, reading.velocity)[0]
            dead.append(command)
            head.command(dead.popleft())
            head.step(period * 1e-9)
            commands.append(command)
            joints.append(head.read().position)
            cycle += period
    return Run(profile, setting.rate, np.array(commands), np.array(joints), driver.trajectories)


def _take(controller: TrajectoryController, now: int, message: JointTrajectory) -> None:
    times = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points]
    parts = [
        np.array([getattr(point, name) for point in message.points])
        for name in ("positions", "velocities", "accelerations")
    ]
    controller.take(now, to_ns(message.header.stamp), message.joint_names, times, parts[0], parts[1], parts[2])


JOINTS = {
    "none": {},
    "50 ms lag": {"lag": 0.05},
    "50 ms dead time": {"dead": 0.05},
    "100 ms lag": {"lag": 0.1},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", nargs="+", default=["timar_head", "tiago"])
    parser.add_argument("--motion", default=str(share("samples", "conversation_agent.npz")))
    parser.add_argument("--gain", type=float, default=1.0, help="factor of the motion")
    parser.add_argument("--rate", type=float, nargs="+", default=[200.0], help="the controller's cycles [Hz]")
    parser.add_argument("--point-rate", type=float, default=50.0)
    parser.add_argument("--stamp-zero", action="store_true", help="trajectories begin at once, without a start time")
    arguments = parser.parse_args()
    frames = arguments.gain * np.asarray(read_motion(arguments.motion), dtype=np.float64)
    print("| robot | cycles | interpolate_from_desired_state | joints stay behind | neck's peaks |", end="")
    print(" share of vel. / acc. limits | cycles beyond |")
    print("|---|---|---|---|---|---|---|")
    for robot in arguments.robot:
        profile = load_profile(robot)
        for rate in arguments.rate:
            for from_desired in (True, False):
                for behind, values in JOINTS.items():
                    setting = Setting(
                        from_desired=from_desired,
                        rate=rate,
                        stamped=not arguments.stamp_zero,
                        point_rate=arguments.point_rate,
                        **values,
                    )
                    run = follow(profile, frames, setting)
                    speed, acceleration = run.peaks()
                    shares = " / ".join(f"{100 * part:.0f}" for part in run.shares())
                    print(
                        f"| {robot} | {rate:g} Hz | {str(from_desired).lower()} | {behind} "
                        f"| {speed:.1f} rad/s, {acceleration:.0f} rad/s² | {shares} % | {run.cycles_beyond()} |",
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
