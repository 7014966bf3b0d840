"""Orientations between TF frames, from TFMessages.

tf2's Python buffer needs a compiled library that is not on PyPI; this package needs only the newest orientation of one
frame in another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

MAX_DEPTH = 100
"""Most frames between a frame and the root; more frames mean a cycle."""


STEP_BACK = 1_000_000_000
"""A transform that is older than the known one by more than this [ns] shows a clock that was set back."""


class FrameTree:
    """The newest transform of every frame to its parent."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, int, Rotation]] = {}
        self.rejected = 0

    def add(self, message: Any, *, static: bool) -> None:
        """Take the transforms of a TFMessage.

        A transform older than the known one is ignored, unless it is so much older that the clock was set back, as by a
        restarted simulator.
        """
        for transform in message.transforms:
            r = transform.transform.rotation
            quaternion = np.array([r.x, r.y, r.z, r.w])
            if not np.isfinite(quaternion).all() or np.linalg.norm(quaternion) < 1e-6:
                self.rejected += 1
                continue
            stamp = transform.header.stamp
            time = 0 if static else int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
            child = transform.child_frame_id.lstrip("/")
            known = self._parents.get(child)
            if known is None or static or not 0 < known[1] - time <= STEP_BACK:
                self._parents[child] = (transform.header.frame_id.lstrip("/"), time, Rotation.from_quat(quaternion))

    def lookup(self, reference: str, frame: str) -> tuple[int, Rotation] | None:
        """Time [ns] and orientation of ``frame`` in ``reference``; None while they are not connected.

        The time is that of the oldest moving transform between the two frames, 0 when all are static.
        """
        up = self._chain(frame.lstrip("/"))
        down = self._chain(reference.lstrip("/"))
        common = next((name for name in up if name in down), None)
        if common is None:
            return None
        times = []
        result = []
        for chain in (down, up):
            rotation = Rotation.identity()
            for name, (time, step) in chain.items():
                if name == common:
                    break
                rotation = step * rotation
                times.append(time)
            result.append(rotation)
        moving = [time for time in times if time]
        return (min(moving) if moving else 0), result[0].inv() * result[1]

    def _chain(self, frame: str) -> dict[str, tuple[int, Rotation]]:
        """The frames from ``frame`` to its root, each with the time and orientation of its own transform."""
        chain: dict[str, tuple[int, Rotation]] = {}
        while frame in self._parents and frame not in chain and len(chain) < MAX_DEPTH:
            parent, time, rotation = self._parents[frame]
            chain[frame] = (time, rotation)
            frame = parent
        chain.setdefault(frame, (0, Rotation.identity()))
        return chain
