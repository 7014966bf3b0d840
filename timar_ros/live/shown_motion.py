"""The current frame of a head, from motion messages that arrive before or after their display time."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from timar_ros.motion import MOTION_SIZE
from timar_ros.streaming.codec import Motion

Frame = NDArray[np.float32]

REMEMBERED_NS = 30_000_000_000
"""Past frames are kept this long: the stylised face scales its expression by their spread."""

HELD_NS, EASED_NS = 500_000_000, 1_200_000_000
"""How long the last frame is held after its time, and how long it then takes to come to rest."""

LONGEST_STEP_NS = 300_000_000
"""Largest time between two frames that are interpolated."""


class ShownMotion:
    """Frames by their presentation time."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, Frame, int]] = deque()

    def push(self, chunk: Motion) -> None:
        """Add frames; they replace all stored frames from their first display time on."""
        if not len(chunk.frames):
            return
        while self._frames and self._frames[-1][0] >= chunk.stamp_ns:
            self._frames.pop()
        for index, frame in enumerate(chunk.frames):
            talks = 255 if chunk.speaking is None else int(chunk.speaking[index])
            self._frames.append((chunk.stamp_ns + round(index * 1e9 / chunk.rate), frame, talks))

    def cut(self, stamp_ns: int) -> None:
        """Remove the frames from a time on."""
        while self._frames and self._frames[-1][0] >= stamp_ns:
            self._frames.pop()

    def clear(self) -> None:
        """Remove all frames."""
        self._frames.clear()

    def at(self, now_ns: int) -> tuple[Frame, bool, bool] | None:
        """The frame [56] at a time (NaN where unknown), whether it is recent, and whether the head's owner speaks.

        None before the first frame.
        """
        while self._frames and self._frames[0][0] < now_ns - REMEMBERED_NS:
            self._frames.popleft()
        before = after = None
        for entry in reversed(self._frames):
            if entry[0] <= now_ns:
                before = entry
                break
            after = entry
        if before is None:
            return None
        stamp, frame, talks = before
        fresh = now_ns - stamp <= HELD_NS
        if after is not None and after[0] - stamp <= LONGEST_STEP_NS:
            part = (now_ns - stamp) / (after[0] - stamp)
            mixed = frame + np.float32(part) * (after[1] - frame)
            frame = np.where(np.isfinite(mixed), mixed, frame)
        rest = np.float32(np.clip(1.0 - (now_ns - stamp - HELD_NS) / EASED_NS, 0.0, 1.0))
        return frame * rest, fresh, fresh and talks == 1

    def recent(self, now_ns: int) -> Frame:
        """The frames of the last half minute up to a time, [T, 56]."""
        past = [frame for stamp, frame, _ in self._frames if stamp <= now_ns]
        return np.stack(past) if past else np.zeros((0, MOTION_SIZE), np.float32)
