"""Node `head_bridge`: converts the partner's head pose from a PoseStamped topic or a TF frame to FlameMotion."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from scipy.spatial.transform import Rotation

from timar_ros.errors import UserError
from timar_ros.foreign.foreign_frames import FrameTree
from timar_ros.foreign.foreign_head import OPTICAL_AXES, head_frame
from timar_ros.msg import FlameMotion
from timar_ros.ros import messages, qos
from timar_ros.ros.base import ERROR, OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.foreign_topics import ForeignTopic
from timar_ros.ros.node_process import run
from timar_ros.streaming.clock_steps import BACKWARD_STEP


def _quaternion_fault(value: list[float]) -> str | None:
    return None if len(value) == 4 and np.linalg.norm(value) > 1e-6 else "must be a quaternion: x, y, z, w"


class HeadBridge(ManagedNode):
    """Publishes the head's pose; the arrays of expression and jaw stay empty, which marks them as not tracked."""

    PARAMETERS = (
        Parameter("input", "pose", "source of the head's pose", choices=("pose", "tf")),
        Parameter("pose_topic", "user/head_pose", "PoseStamped of the head (input: pose)"),
        Parameter("frame", "", "TF frame of the head, such as face_<id> (input: tf)"),
        Parameter("face_id", "", "a ROS4HRI face: read TF frame face_<face_id>"),
        Parameter("reference_frame", "base_link", "reference TF frame of the head's pose (input: tf)"),
        Parameter("optical", False, "the head's frame is optical (z out of the face), not REP-103 (x out of the face)"),
        Parameter(
            "neutral",
            [0.0, 0.0, 1.0, 0.0],
            "orientation (x, y, z, w) of a head that looks straight at the robot, in the reference frame; "
            "the default looks along the reference frame's -x",
            check=_quaternion_fault,
        ),
        Parameter("rate", 25.0, "rate of TF lookups [Hz]", 1.0, 200.0),
        Parameter("max_age", 0.5, "largest age of a usable pose [s]", 0.01, 10.0),
        Parameter("output_topic", "user/motion", "topic to publish FlameMotion on"),
    )

    def __init__(self, **options: Any) -> None:
        super().__init__("head_bridge", **options)
        self._inputs: list[ForeignTopic] = []

    def configure(self) -> None:
        """Check the parameters and create the publisher."""
        self._frame = f"face_{self.value('face_id')}" if self.value("face_id") else self.value("frame")
        if self.value("input") == "tf" and not self._frame:
            raise UserError("input 'tf' needs 'frame' or 'face_id'")
        self._neutral = self.value("neutral")
        self._axes = OPTICAL_AXES.inv() if self.value("optical") else Rotation.identity()
        self._last, self._published_at = 0, 0.0
        self._output = self.publish_on(FlameMotion, self.value("output_topic"), qos.motion())

    def activate(self) -> None:
        """Create the subscriptions."""
        if self.value("input") == "pose":
            self.subscribe(PoseStamped, self.value("pose_topic"), self._on_pose, qos.motion())
            return
        self._tree = FrameTree()
        self._inputs = [
            ForeignTopic(self, "/tf_static", lambda m: self._tree.add(m, static=True), optional=True),
            ForeignTopic(self, "/tf", lambda m: self._tree.add(m, static=False)),
        ]
        self.every(1.0 / self.value("rate"), self._look_up)

    def diagnose(self) -> Diagnosis:
        """Report whether the head is tracked."""
        faults = [topic.fault for topic in self._inputs if topic.fault]
        if faults:
            return ERROR, faults[0], {}
        silent = time.monotonic() - self._published_at
        rows = {"last pose [s ago]": f"{silent:.2f}" if self._last else "never"}
        if not self._last:
            return OK, "waiting for the head", rows
        return (OK, "tracking", rows) if silent < self.value("max_age") else (WARN, "the head is not tracked", rows)

    def _on_pose(self, message: PoseStamped) -> None:
        q = message.pose.orientation
        self._publish(messages.to_ns(message.header.stamp) or self.now_ns(), Rotation.from_quat(_checked(q)))

    def _look_up(self) -> None:
        found = self._tree.lookup(self.value("reference_frame"), self._frame)
        if found is None:
            return
        stamp, rotation = found
        now = self.now_ns()
        if stamp == 0:  # all transforms of the chain are static
            stamp = now
        if self._last - BACKWARD_STEP <= stamp <= self._last or now - stamp > self.value("max_age") * 1e9:
            return
        self._publish(stamp, rotation)

    def _publish(self, stamp: int, rotation: Rotation) -> None:
        frame = head_frame((rotation * self._axes).as_quat(), neutral=self._neutral)
        self._last, self._published_at = stamp, time.monotonic()
        self._output.publish(messages.motion_message(stamp, self.value("rate"), frame[None]))


def _checked(q: Any) -> list[float]:
    values = [q.x, q.y, q.z, q.w]
    if not np.isfinite(values).all() or np.linalg.norm(values) < 1e-6:
        raise messages.MessageError(f"orientation {values} is no quaternion")
    return values


def main() -> int:
    """Executable `head_bridge`."""
    return run(HeadBridge)


if __name__ == "__main__":
    raise SystemExit(main())
