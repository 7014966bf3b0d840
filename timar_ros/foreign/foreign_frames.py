"""Orientations and places of TF frames in each other, from TFMessages.

tf2's Python buffer needs a compiled library that is not on PyPI; this package needs only the newest pose of one frame
in another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Vector = NDArray[np.float64]

MAX_DEPTH = 100
"""Most frames between a frame and the root; more frames mean a cycle."""


STEP_BACK = 1_000_000_000
"""A transform that is older than the known one by more than this [ns] shows a clock that was set back."""


class FrameTree:
    """The newest transform of every frame to its parent."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, int, Rotation, Vector]] = {}
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
                t = transform.transform.translation
                parent = transform.header.frame_id.lstrip("/")
                self._parents[child] = (parent, time, Rotation.from_quat(quaternion), np.array([t.x, t.y, t.z]))

    def lookup(self, reference: str, frame: str) -> tuple[int, Rotation] | None:
        """Time [ns] and orientation of ``frame`` in ``reference``; None while they are not connected.

        The time is that of the oldest moving transform between the two frames, 0 when all are static.
        """
        found = self._pose(reference, frame)
        return None if found is None else found[:2]

    def place(self, reference: str, frame: str) -> tuple[int, Vector] | None:
        """Time [ns], as of :meth:`lookup`, and origin [3] m of ``frame`` in ``reference``; None if it is not known."""
        found = self._pose(reference, frame)
        return None if found is None or not np.isfinite(found[2]).all() else (found[0], found[2])

    def _pose(self, reference: str, frame: str) -> tuple[int, Rotation, Vector] | None:
        up = self._chain(frame.lstrip("/"))
        down = self._chain(reference.lstrip("/"))
        common = next((name for name in up if name in down), None)
        if common is None:
            return None
        times = []
        result = []
        for chain in (down, up):
            rotation, origin = Rotation.identity(), np.zeros(3)
            for name, (time, step, shift) in chain.items():
                if name == common:
                    break
                rotation, origin = step * rotation, step.apply(origin) + shift
                times.append(time)
            result.append((rotation, origin))
        moving = [time for time in times if time]
        back = result[0][0].inv()
        return (min(moving) if moving else 0), back * result[1][0], back.apply(result[1][1] - result[0][1])

    def _chain(self, frame: str) -> dict[str, tuple[int, Rotation, Vector]]:
        """The frames from ``frame`` to its root, each with the time and the pose of its own transform."""
        chain: dict[str, tuple[int, Rotation, Vector]] = {}
        while frame in self._parents and frame not in chain and len(chain) < MAX_DEPTH:
            parent, time, rotation, shift = self._parents[frame]
            chain[frame] = (time, rotation, shift)
            frame = parent
        chain.setdefault(frame, (0, Rotation.identity(), np.zeros(3)))
        return chain
