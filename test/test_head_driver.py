"""Commands and trajectories of one head say the same, however late the driver is called."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from timar_ros.nodes.head_driver import DriverOptions, HeadDriver
from timar_ros.nodes.messages import Motion
from timar_ros.retarget import JointMotion, RetargetOptions, load_profile

MS = 1_000_000
START = 1_000_000 * MS


class Robot:
    """Takes what a driver sends, as a robot's controller does."""

    kind = "trajectory"

    def __init__(self) -> None:
        self.rows: list[JointMotion] = []
        self.trajectories: list[tuple[int, JointMotion]] = []

    def send(self, motion: JointMotion, begin: int, end: int) -> None:
        self.rows.append(motion[begin:end])

    def send_trajectory(self, motion: JointMotion, now: int, stamped: bool, step: int) -> int:
        self.trajectories.append((now, motion[int(np.searchsorted(motion.time_ns, now, side="right")) :]))
        return int(motion.time_ns[-1])

    def commanded(self) -> tuple[np.ndarray, np.ndarray]:
        rows = JointMotion.join(self.rows)
        return rows.time_ns, rows.position

    def followed(self, times: np.ndarray) -> np.ndarray:
        """Where trajectories put the head: of each the newest that has come, before the first one at rest."""
        made = np.zeros((len(times), self.rows[0].position.shape[1]))
        for sent, motion in self.trajectories:
            after = times > sent
            for joint in range(made.shape[1]):
                made[after, joint] = np.interp(times[after], motion.time_ns, motion.position[:, joint])
        return made


@pytest.fixture
def robot():
    return Robot()


@pytest.fixture
def driver(robot):
    driver = HeadDriver(load_profile("timar_head"), RetargetOptions(), robot, DriverOptions(100.0, 1, True))
    driver.start(START, {})
    return driver


def nodding(stamp: int) -> Motion:
    frames = np.zeros((25, 56), np.float32)
    frames[:, 53] = 0.2 * np.sin(np.arange(25) / 4)
    return Motion(stamp, 25.0, 0, frames, np.zeros(25, np.uint8))


@pytest.mark.parametrize("overdue", [0, 50, 200, 700])
@pytest.mark.parametrize("event", ["motion", "stop", "gaze", "end"])
def test_what_is_new_does_not_reach_into_the_past(driver, robot, overdue, event):
    now = START
    for now in range(START, START + 1000 * MS, 10 * MS):
        driver.tick(now)
        if now == START + 500 * MS and event != "motion":
            driver.push(now, nodding(now))
    now += overdue * MS
    if event == "motion":
        driver.push(now, nodding(now - 100 * MS))
    elif event == "stop":
        driver.enable(now, False)
    elif event == "gaze":
        driver.set_gaze(now, True)
    else:
        driver.ease_out(now)
    for later in range(now, now + 2000 * MS, 10 * MS):
        driver.tick(later)
    times, commanded = robot.commanded()
    assert (np.diff(times) == 10 * MS).all()
    assert np.ptp(commanded, axis=0).max() > 0.05, "nothing moved"
    if event == "gaze":  # the neck is another's from then on
        times, commanded = times[times <= now], commanded[times <= now]
    np.testing.assert_allclose(robot.followed(times), commanded, atol=1e-3)
