"""The agent's true motion for an evaluation: from a file, or from a topic of the bag."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_files import BagReader
from timar_ros.bags.recording import Motion, Recording
from timar_ros.data.motion_files import read_motion
from timar_ros.errors import UserError
from timar_ros.motion import MOTION_RATE


def read_truth(what: str | Path, recording: Recording) -> NDArray[np.float32]:
    """True motion at 25 Hz from the conversation's start, [T, 56].

    :param what: a motion file (.npz in DualTalk's layout, .npy [T, 56]), or the name of a FlameMotion topic in the
        recording's own bag.
    :raises UserError: when it is neither, or has frames that are not finite.
    """
    if Path(what).suffix in (".npz", ".npy"):
        return read_motion(what)
    with BagReader(recording.path) as bag:
        topic = bag.find(str(what), "timar_ros/msg/FlameMotion")
        if topic is None:
            raise UserError(f"--truth {what}: neither a motion file (.npz, .npy) nor a FlameMotion topic of the bag")
        times, parts = [], []
        for _, _, message in bag.messages({topic}):
            frames = bag_messages.frames_of(message)
            start = (bag_messages.stamp_ns(message.header.stamp) - recording.origin_ns) * 1e-9
            times.append(start + np.arange(len(frames)) / max(float(message.rate), 1e-3))
            parts.append(frames)
    motion = Motion(np.concatenate(times), np.concatenate(parts), np.zeros(0, np.uint8))
    frames = motion.at_rate(recording.seconds, MOTION_RATE)
    if not np.isfinite(frames).all():
        raise UserError(f"--truth {topic}: {int((~np.isfinite(frames)).any(axis=1).sum())} frames are not tracked")
    return frames
