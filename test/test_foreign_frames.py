"""Transforms: the newest counts, and a clock that was set back begins anew."""

from __future__ import annotations

from types import SimpleNamespace as Message

import pytest

from timar_ros.foreign.foreign_frames import FrameTree


def transform(seconds: float, yaw_half_sine: float, child: str = "head") -> Message:
    sec, rest = divmod(round(seconds * 1e9), 10**9)
    rotation = Message(x=0.0, y=0.0, z=yaw_half_sine, w=(1 - yaw_half_sine**2) ** 0.5)
    header = Message(frame_id="base", stamp=Message(sec=sec, nanosec=rest))
    pose = Message(rotation=rotation, translation=Message(x=1.0, y=0.0, z=0.5))
    return Message(transforms=[Message(header=header, child_frame_id=child, transform=pose)])


@pytest.mark.parametrize(("later", "heard"), [(99.95, False), (100.05, True), (3.0, True)])
def test_a_simulator_that_begins_anew_is_heard_and_a_late_transform_is_not(later, heard):
    tree = FrameTree()
    tree.add(transform(100.0, 0.1), static=False)
    tree.add(transform(later, 0.3), static=False)
    found = tree.lookup("base", "head")
    assert found is not None
    assert (found[0] == round(later * 1e9)) is heard


def test_the_place_of_a_frame_in_another_branch():
    tree = FrameTree()
    tree.add(transform(1.0, 0.5**0.5), static=False)  # the head looks left
    tree.add(transform(2.0, 0.0, "voice_anna"), static=False)
    assert tree.place("base", "voice_anna")[1] == pytest.approx([1.0, 0.0, 0.5])
    tree.add(transform(3.0, 0.5**0.5, "table"), static=False)
    message = transform(3.0, 0.0, "voice_bert")
    message.transforms[0].header.frame_id = "table"
    tree.add(message, static=False)
    # One metre ahead of the table, which looks left: one metre to its left, and half a metre up.
    assert tree.place("base", "voice_bert")[1] == pytest.approx([1.0, 1.0, 1.0])
    assert tree.place("head", "base") == (10**9, pytest.approx([0.0, 1.0, -0.5]))
    assert tree.place("base", "nobody") is None
