"""Commands and trajectories of one head say the same, however late the driver is called."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("rclpy")

from timar_ros.node_parts.head_driver import HELD_UP_NS, DriverOptions, HeadDriver
from timar_ros.retarget import JointMotion, RetargetOptions, load_profile
from timar_ros.ros.messages import MessageError, Motion

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

    def send_trajectory(self, motion: JointMotion, now: int, stamped: bool, step: int) -> int | None:
        if not len(motion):
            return None
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


def held_up(robot, kind: str, pause_ms: int, seed: int) -> tuple[np.ndarray, np.ndarray, HeadDriver]:
    """A head that is driven in wall time with one pause of the process; times [ns] and positions as they were sent."""
    robot.kind = kind
    driving = DriverOptions(100.0, 1, True, held_up_ns=HELD_UP_NS)
    driver = HeadDriver(load_profile("timar_head"), RetargetOptions(), robot, driving)
    driver.start(START, {})
    pause_at = START + int(np.random.default_rng(seed).integers(1500, 2500)) * MS
    now, sent, pushed = START, [], START
    while now < START + (6000 + pause_ms) * MS:
        if pause_at <= now:
            now, pause_at = now + pause_ms * MS, START + 60_000 * MS
        while pushed <= now:  # motion of a second, known 0.3 s ahead
            driver.push(now, nodding(pushed + 300 * MS))
            pushed += 1000 * MS
        count = len(robot.rows)
        driver.tick(now)
        sent += [(now, rows.position[-1]) for rows in robot.rows[count:]]
        now += 10 * MS
    return np.array([at for at, _ in sent]), np.array([position for _, position in sent]), driver


@pytest.mark.parametrize("pause_ms", [300, 1000, 5000])
@pytest.mark.parametrize("seed", range(3))
def test_after_a_pause_of_the_process_commands_go_on_where_they_stopped(robot, pause_ms, seed):
    times, positions, driver = held_up(robot, "forward", pause_ms, seed)
    assert driver.hold_ups == 1
    limits = load_profile("timar_head").limits()
    assert (np.abs(np.diff(positions, axis=0)) <= limits["velocity"] * 0.01 + 1e-6).all(), "a step beyond a cycle's"
    after = times > START + 2500 * MS + pause_ms * MS + 2000 * MS
    assert np.ptp(positions[after, 1]) > 0.2, "it does not nod again within two turns"


@pytest.mark.parametrize("pause_ms", [300, 1000, 5000])
@pytest.mark.parametrize("seed", range(3))
def test_after_a_pause_no_trajectory_begins_away_from_where_the_last_one_has_led(robot, pause_ms, seed):
    held_up(robot, "trajectory", pause_ms, seed)
    sent = robot.trajectories
    for (_, before), (now, after) in itertools.pairwise(sent):
        begin = int(after.time_ns[0])
        for joint in range(after.position.shape[1]):
            led = np.interp(begin, before.time_ns, before.position[:, joint])
            assert after.position[0, joint] == pytest.approx(led, abs=1e-6), f"{(now - START) / 1e9:.2f} s"


@pytest.mark.parametrize("hours", [-50 * 365 * 24, -1, 1, 24, 50 * 365 * 24])
def test_a_stamp_of_another_clock_is_refused_and_the_next_motion_followed(driver, robot, hours):
    stray = START + hours * 3600 * 1000 * MS
    for now in range(START, START + 3000 * MS, 10 * MS):
        driver.tick(now)
        if (now - START) % (1000 * MS) == 0:
            with pytest.raises(MessageError, match="lies"):
                driver.push(now, nodding(stray))
            driver.push(now, nodding(now + 300 * MS))
    times, positions = robot.commanded()
    assert np.ptp(positions[times > START + 2000 * MS, 1]) > 0.2


@pytest.mark.parametrize("hours", [1, 24, 50 * 365 * 24])
def test_a_clock_set_ahead_costs_no_more_than_a_moment(driver, robot, hours):
    shift = hours * 3600 * 1000 * MS
    for moment in range(START, START + 5000 * MS, 10 * MS):
        now = moment + (shift if moment >= START + 2000 * MS else 0)
        if (moment - START) % (1000 * MS) == 0:
            driver.push(now, nodding(now + 300 * MS))
        driver.tick(now)
    times, positions = robot.commanded()
    assert len(times) < 1000, "commands were worked out for time that never was"
    assert np.ptp(positions[times > START + shift + 4000 * MS, 1]) > 0.2, "it does not nod within two turns"
    leap = int(np.argmax(np.diff(times)))  # there the controller is at its trajectory's end at once
    steps = np.delete(np.abs(np.diff(positions, axis=0)), leap, axis=0)
    assert steps.max() < 0.06
    led = [motion for sent, motion in robot.trajectories if sent < START + shift][-1].position[-1]
    np.testing.assert_allclose(positions[leap + 1], led, atol=1e-9)


def test_motion_of_the_time_before_a_new_beginning_sends_nothing_and_fails_nowhere(robot):
    _times, _positions, driver = held_up(robot, "trajectory", 2000, 0)
    now = START + 20_000 * MS
    driver.tick(now)  # a pause of 12 s: the head begins again a little later
    for ago in (3000, 2000, 1500):
        driver.push(now, nodding(now - ago * MS))
    assert len(robot.trajectories[-1][1])
