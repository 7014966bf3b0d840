"""Node `head_bridge`: the partner's head from a PoseStamped topic or a TF frame as FlameMotion."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from scipy.spatial.transform import Rotation

from timar_ros.data.foreign_frames import FrameTree
from timar_ros.data.foreign_head import OPTICAL_AXES, head_frame
from timar_ros.errors import UserError
from timar_ros.msg import FlameMotion
from timar_ros.nodes import messages, qos
from timar_ros.nodes.base import ERROR, OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.nodes.foreign import ForeignTopic
from timar_ros.nodes.process import run


def _quaternion_fault(value: list[float]) -> str | None:
    return None if len(value) == 4 and np.linalg.norm(value) > 1e-6 else "must be a quaternion: x, y, z, w"


class HeadBridge(ManagedNode):
    """The head's pose is known, expression and jaw are not: their arrays stay empty, and the model is told so."""

    PARAMETERS = (
        Parameter("input", "pose", "where the head's pose comes from", choices=("pose", "tf")),
        Parameter("pose_topic", "user/head_pose", "PoseStamped of the head (input: pose)"),
        Parameter("frame", "", "TF frame of the head, such as face_<id> (input: tf)"),
        Parameter("face_id", "", "a ROS4HRI face: takes TF frame face_<face_id>"),
        Parameter("reference_frame", "base_link", "TF frame that the head's pose is measured in (input: tf)"),
        Parameter("optical", False, "the head's frame is optical (z out of the face) instead of REP-103 (x out of it)"),
        Parameter(
            "neutral",
            [0.0, 0.0, 1.0, 0.0],
            "orientation (x, y, z, w) of a head that looks straight at its partner, in the reference frame; "
            "the default faces against the reference's x",
            check=_quaternion_fault,
        ),
        Parameter("rate", 25.0, "rate at which TF is asked [Hz]", 1.0, 200.0),
        Parameter("max_age", 0.5, "a pose older than this is no longer the head's [s]", 0.01, 10.0),
        Parameter("output_topic", "user/motion", "topic to publish FlameMotion on"),
    )

    def __init__(self, **options: Any) -> None:
        super().__init__("head_bridge", **options)
        self._inputs: list[ForeignTopic] = []

    def configure(self) -> None:
        """Check what belongs together."""
        self._frame = f"face_{self.value('face_id')}" if self.value("face_id") else self.value("frame")
        if self.value("input") == "tf" and not self._frame:
            raise UserError("input 'tf' needs 'frame' or 'face_id'")
        self._neutral = self.value("neutral")
        self._axes = OPTICAL_AXES.inv() if self.value("optical") else Rotation.identity()
        self._last, self._seen = 0, 0.0
        self._output = self.publish_on(FlameMotion, self.value("output_topic"), qos.motion())

    def activate(self) -> None:
        """Subscribe."""
        if self.value("input") == "pose":
            self.subscribe(PoseStamped, self.value("pose_topic"), self._on_pose, qos.motion())
            return
        self._tree = FrameTree()
        self._inputs = [
            ForeignTopic(self, "/tf_static", lambda m: self._tree.add(m, static=True), optional=True),
            ForeignTopic(self, "/tf", lambda m: self._tree.add(m, static=False)),
        ]
        self.every(1.0 / self.value("rate"), self._ask)

    def diagnose(self) -> Diagnosis:
        """Whether the head is seen."""
        faults = [topic.fault for topic in self._inputs if topic.fault]
        if faults:
            return ERROR, faults[0], {}
        silent = time.monotonic() - self._seen
        rows = {"last pose [s ago]": f"{silent:.2f}" if self._last else "never"}
        if not self._last:
            return OK, "waiting for the head", rows
        return (OK, "tracking", rows) if silent < self.value("max_age") else (WARN, "the head is not seen", rows)

    def _on_pose(self, message: PoseStamped) -> None:
        q = message.pose.orientation
        self._publish(messages.to_ns(message.header.stamp) or self.now_ns(), Rotation.from_quat(_checked(q)))

    def _ask(self) -> None:
        found = self._tree.lookup(self.value("reference_frame"), self._frame)
        if found is None:
            return
        stamp, rotation = found
        now = self.now_ns()
        if stamp == 0:  # static all the way
            stamp = now
        if stamp <= self._last or now - stamp > self.value("max_age") * 1e9:
            return
        self._publish(stamp, rotation)

    def _publish(self, stamp: int, rotation: Rotation) -> None:
        frame = head_frame((rotation * self._axes).as_quat(), neutral=self._neutral)
        self._last, self._seen = stamp, time.monotonic()
        self._output.publish(messages.motion_message(stamp, self.value("rate"), frame[None]))


def _checked(q: Any) -> list[float]:
    values = [q.x, q.y, q.z, q.w]
    if not np.isfinite(values).all() or np.linalg.norm(values) < 1e-6:
        raise messages.MessageError(f"its orientation {values} is none")
    return values


def main() -> int:
    """Executable `head_bridge`."""
    return run(HeadBridge)


if __name__ == "__main__":
    raise SystemExit(main())
