"""Transforms: the newest counts, and a clock that was set back begins anew."""

from __future__ import annotations

from types import SimpleNamespace as Message

import pytest

from timar_ros.foreign.foreign_frames import FrameTree


def transform(seconds: float, yaw_half_sine: float) -> Message:
    sec, rest = divmod(round(seconds * 1e9), 10**9)
    rotation = Message(x=0.0, y=0.0, z=yaw_half_sine, w=(1 - yaw_half_sine**2) ** 0.5)
    header = Message(frame_id="base", stamp=Message(sec=sec, nanosec=rest))
    return Message(transforms=[Message(header=header, child_frame_id="head", transform=Message(rotation=rotation))])


@pytest.mark.parametrize(("later", "heard"), [(99.95, False), (100.05, True), (3.0, True)])
def test_a_simulator_that_begins_anew_is_heard_and_a_late_transform_is_not(later, heard):
    tree = FrameTree()
    tree.add(transform(100.0, 0.1), static=False)
    tree.add(transform(later, 0.3), static=False)
    found = tree.lookup("base", "head")
    assert found is not None
    assert (found[0] == round(later * 1e9)) is heard
