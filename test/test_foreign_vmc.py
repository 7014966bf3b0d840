"""VMC messages at a real UDP receiver (python-osc's server on 127.0.0.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

pytest.importorskip("pythonosc", reason="python-osc is not installed: pip install 'timar_ros[avatar]'")
from support.osc_receiver import Receiver

from timar_ros.errors import UserError
from timar_ros.foreign.face_landmarks import Face, FaceFrames, matrix_of
from timar_ros.foreign.vmc import ENOUGH, VmcSender, head_pose_of, unity_quaternion
from timar_ros.retarget.avatar import ARKIT, AvatarMap


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def shapes(messages: list[tuple[Any, ...]]) -> dict[str, float]:
    return {m[1]: m[2] for m in messages if m[0] == "/VMC/Ext/Blend/Val"}


# Unity counts left-handed: a positive angle about x turns y to z, about y z to x, about z x to y, with x to the
# avatar's right. Where the nose (z) and the crown (y) go says the sign.
@pytest.mark.parametrize(
    ("pose", "point", "goes"),
    [
        ([0.3, 0, 0], [0, 0, 1], [0, -np.sin(0.3), np.cos(0.3)]),  # down
        ([0, 0.3, 0], [0, 0, 1], [-np.sin(0.3), 0, np.cos(0.3)]),  # to its left
        ([0, 0, 0.3], [0, 1, 0], [np.sin(0.3), np.cos(0.3), 0]),  # crown to its right
    ],
)
def test_axes_are_unitys(pose: list[float], point: list[float], goes: list[float]) -> None:
    # A quaternion rotates by the same formula in either handedness; only what its axes are called differs.
    moved = Rotation.from_quat(unity_quaternion(pose)).apply(point)
    np.testing.assert_allclose(moved, goes, atol=1e-9)


@given(st.lists(st.floats(-1.7, 1.7), min_size=3, max_size=3))
def test_a_head_goes_from_tracker_to_flame_to_vmc_and_back(pose: list[float]) -> None:
    frame = FaceFrames().push(0, Face(matrix_of(pose), {}))
    back = Rotation.from_rotvec(head_pose_of(unity_quaternion(frame[53:])))
    assert (back.inv() * Rotation.from_rotvec(pose)).magnitude() < 1e-5


def test_a_frame_arrives_whole(receiver: Receiver) -> None:
    sender = VmcSender("127.0.0.1", receiver.port, head_position=(0.0, 0.08, 0.01))
    avatar = AvatarMap()
    frame = np.zeros((1, 56), np.float32)
    frame[0, 50:56] = [0.2, 0.05, 0.0, 0.1, -0.4, 0.2]
    weights = dict(zip(avatar.names, avatar.arkit(frame)[0].tolist(), strict=True))
    sender.send(12.5, frame[0, 53:], weights, 0.44)
    got = receiver.frame()
    addresses = [m[0] for m in got["messages"]]
    assert addresses == [
        *("/VMC/Ext/OK", "/VMC/Ext/T", "/VMC/Ext/Bone/Pos"),
        *["/VMC/Ext/Blend/Val"] * 3,
        "/VMC/Ext/Blend/Apply",
    ]
    assert got["messages"][:2] == [("/VMC/Ext/OK", 1), ("/VMC/Ext/T", 0.0)]
    assert got["head"][1] == "Head"
    np.testing.assert_allclose(got["head"][2:5], [0.0, 0.08, 0.01], atol=1e-6)
    np.testing.assert_allclose(head_pose_of(got["head"][5:]), frame[0, 53:], atol=1e-6)
    assert shapes(got["messages"]) == pytest.approx({"jawOpen": 0.44, "jawLeft": 0.4, "jawRight": 0.0}, abs=1e-6)
    sender.close()


def test_many_shapes_go_in_datagrams_that_fit(receiver: Receiver) -> None:
    sender = VmcSender("127.0.0.1", receiver.port, "capital")
    sizes: list[int] = []
    send = sender._socket.send
    sender._socket = type("Counting", (), {"send": lambda _, data: sizes.append(len(data)) or send(data)})()
    sender.send(0.0, [0, 0, 0], {name: index / 52 for index, name in enumerate(ARKIT)}, 0.0)
    got = shapes(receiver.frame()["messages"])
    assert got["JawOpen"] == pytest.approx(ARKIT.index("jawOpen") / 52)
    assert len(got) >= 50  # the datagrams of one frame may overtake each other in the server's threads
    assert len(sizes) == 3
    assert max(sizes) < 1472


def test_vrm_gets_its_mouth_alone(receiver: Receiver) -> None:
    sender = VmcSender("127.0.0.1", receiver.port, "vrm")
    sender.send(0.0, [0, 0, 0], {"jawOpen": 0.3}, 0.3)
    assert shapes(receiver.frame()["messages"]) == pytest.approx({"A": 0.3})
    sender.close()


def test_nobody_who_listens_is_told_and_forgotten(receiver: Receiver) -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    sender = VmcSender("127.0.0.1", port)
    for _ in range(2 * ENOUGH):
        sender.send(0.0, [0, 0, 0], {}, 0.0)
    assert "refused" in sender.refused
    sender.close()
    with pytest.raises(UserError, match="cannot be reached"):
        VmcSender("no such host", 39539)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pythonosc.osc_bundle_builder", None)
    with pytest.raises(UserError, match=r"timar_ros\[avatar\]"):
        VmcSender("127.0.0.1", 39539)
