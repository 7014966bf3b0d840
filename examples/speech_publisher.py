"""A plain ROS 2 client: publishes a text-to-speech's audio ahead of its time, and reads the head's motion.

python examples/speech_publisher.py SPEECH.wav    (beside a running `timar up --mode rolling`)

`timar_ros.ros.Head` does all of this for a program that knows nothing of ROS; this file shows the messages.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np
import rclpy
import soundfile
from rclpy.node import Node

from timar_ros.motion import JAW_OPENING
from timar_ros.msg import AudioChunk, FlameMotion
from timar_ros.ros import qos
from timar_ros.ros.messages import audio_message, motion

LEAD = 0.5  # s; rolling mode needs speech 0.4 s ahead of its time, and the message needs time to travel


class SpeechPublisher(Node):
    """Says a file once somebody listens."""

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__("speech_publisher", **options)
        self.speech, self.rate = soundfile.read(path, dtype="float32", always_2d=True)
        self.said = False
        self.widest = 0.0
        self.output = self.create_publisher(AudioChunk, "agent/audio", qos.audio())
        self.create_subscription(FlameMotion, "agent/motion", self.take_motion, qos.motion())
        self.timer = self.create_timer(0.1, self.say)

    def say(self) -> None:
        """Publish the file in chunks of 20 ms, faster than real time."""
        if self.said or not self.output.get_subscription_count():
            return
        self.said = True
        begin_ns = self.get_clock().now().nanoseconds + round(LEAD * 1e9)
        step = self.rate // 50
        for index in range(0, len(self.speech), step):
            chunk = self.speech[index : index + step].mean(axis=1)
            stamp_ns = begin_ns + round(index * 1e9 / self.rate)  # when the chunk's first sample is to be heard
            last = index + step >= len(self.speech)
            # Another utterance would need another stream_id, since it counts its samples from 0 again.
            self.output.publish(audio_message(stamp_ns, index, self.rate, chunk, stream_id=1, end=last))

    def take_motion(self, message: FlameMotion) -> None:
        """Note how wide the mouth opens."""
        frames = motion(message).frames  # [n, 56], the first is to be shown at the message's stamp
        self.widest = max(self.widest, float(np.degrees(frames[:, JAW_OPENING].max())))
        self.get_logger().info(f"{len(frames)} frames; the jaw opened {self.widest:.1f} degrees so far")


def main() -> None:
    """Run until Ctrl-C."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt):
        rclpy.spin(SpeechPublisher(sys.argv[1]))


if __name__ == "__main__":
    main()
