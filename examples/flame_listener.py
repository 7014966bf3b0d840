"""A node that consumes FLAME frames, each one when it is to be shown: for an avatar or a face of your own.

python examples/flame_listener.py    (beside a running graph)
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import Header

from timar_ros.motion import EXPRESSION, JAW_OPENING, PITCH, YAW
from timar_ros.msg import FlameMotion
from timar_ros.ros import qos
from timar_ros.ros.messages import motion


class FlameListener(Node):
    """Shows frames at their time; at rest without any."""

    def __init__(self, **options: Any) -> None:
        super().__init__("flame_listener", **options)
        self.waiting: deque[tuple[int, NDArray[np.float32]]] = deque()
        self.shown = 0
        self.create_subscription(FlameMotion, "agent/motion", self.take, qos.motion())
        self.create_subscription(Header, "cancel", self.cancel, qos.commands())
        self.create_timer(0.01, self.show)

    def take(self, message: FlameMotion) -> None:
        """Keep the frames until their time. Motion comes in pieces: a turn of 1 s, or a hop of 0.2 s."""
        given = motion(message)
        for number, frame in enumerate(given.frames):
            self.waiting.append((given.stamp_ns + round(number * 1e9 / given.rate), frame))

    def cancel(self, _: Header) -> None:
        """The agent was interrupted: it does not make the movements of what it will not say."""
        self.waiting.clear()

    def show(self) -> None:
        """Hand the newest frame that is due to your renderer."""
        frame = None
        while self.waiting and self.waiting[0][0] <= self.get_clock().now().nanoseconds:
            frame = self.waiting.popleft()[1]
            self.shown += 1
        if frame is not None:
            self.render(frame[EXPRESSION], frame)

    def render(self, expression: NDArray[np.float32], frame: NDArray[np.float32]) -> None:
        """Yours: 50 expression coefficients, and angles in rad."""
        pitch, yaw, jaw = np.degrees(frame[[PITCH, YAW, JAW_OPENING]])
        self.get_logger().info(
            f"pitch {pitch:+.1f}, yaw {yaw:+.1f}, jaw {jaw:.1f} degrees, expression {np.linalg.norm(expression):.1f}",
            throttle_duration_sec=1.0,
        )


def main() -> None:
    """Run until Ctrl-C."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt):
        rclpy.spin(FlameListener())


if __name__ == "__main__":
    main()
