"""Blinks: their rate, their course, and that they depend on the time alone."""

from __future__ import annotations

import numpy as np
import yaml

from timar_ros.resources import share
from timar_ros.retarget import retarget_motion
from timar_ros.retarget.blinks import CLOSING, LONGEST, RATE, eyelid_closure
from timar_ros.retarget.profile import profile_from_dict
from timar_ros.retarget.robot_check import violations

SECOND = 1_000_000_000
TODAY = 1_795_848_000 * SECOND


def course(seconds: float, rate: float = 100.0, start: int = TODAY, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Times [N] in ns and the closure at them."""
    time_ns = start + np.round(np.arange(round(seconds * rate)) * 1e9 / rate).astype(np.int64)
    return time_ns, eyelid_closure(time_ns, seed)


def begins(closure: np.ndarray) -> np.ndarray:
    """Indices at which the lids begin to close."""
    return np.flatnonzero((closure[1:] > 0) & (closure[:-1] == 0))


def test_people_blink_eighteen_times_a_minute_at_irregular_intervals():
    _, closure = course(3600.0)
    found = begins(closure)
    assert abs(len(found) / 60.0 - RATE) < 1.5
    intervals = np.diff(found) / 100.0
    assert intervals.min() >= LONGEST - 0.02
    assert 0.6 < intervals.std() / intervals.mean() < 1.2


def test_a_blink_closes_the_eye_for_a_moment():
    _, closure = course(600.0, rate=1000.0)
    assert closure.min() == 0.0 and closure.max() > 0.999
    assert 0.02 < (closure > 0.5).mean() < 0.08
    assert np.abs(np.diff(closure)).max() < 1.7 / (CLOSING * 1000.0)
    for first in begins(closure)[:-1]:
        blink = closure[first : first + round(1000 * LONGEST) + 3]
        assert blink.max() > 0.999 and blink[-1] == 0.0


def test_it_is_a_function_of_time_and_seed():
    time_ns, closure = course(120.0)
    parts = [eyelid_closure(part) for part in np.array_split(time_ns, 171)]
    np.testing.assert_array_equal(np.concatenate(parts), closure)
    np.testing.assert_array_equal(course(120.0, rate=25.0)[1], closure[::4])
    assert (course(120.0, seed=1)[1] != closure).any()
    assert eyelid_closure(np.zeros(0, np.int64)).shape == (0,)
    np.testing.assert_array_equal(eyelid_closure(np.array([-5 * SECOND])), eyelid_closure(np.array([-5 * SECOND])))


def test_a_lid_joint_blinks_within_its_limits():
    content = yaml.safe_load(share("config", "robots", "timar_head.yaml").read_text())
    lid = {"joint": "lid", "blink": 0.8, "position": [0.0, 1.0], "velocity": 20.0, "acceleration": 500.0, "jerk": 2e4}
    profile = profile_from_dict(content | {"face": [*content.get("face", []), lid]})
    motion = retarget_motion(profile, np.zeros((25 * 60, 56)))
    assert max(violations(profile, motion).values()) <= 1e-6
    position, closure = motion.position[:, -1], eyelid_closure(motion.time_ns)
    assert np.corrcoef(position, closure)[0, 1] > 0.9
    assert position.max() > 0.5 * 0.8
    assert (np.abs(motion.position[:, :-1] - motion.position[0, :-1]) < 1e-6).all(), "only the lid moves"
