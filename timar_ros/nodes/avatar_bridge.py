"""Node `avatar_bridge`: the agent's motion for avatars and others: ARKit weights, FACS, a mouth."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32, Header

from timar_ros.motion import MOTION_RATE, MOTION_SIZE
from timar_ros.msg import FlameMotion, StreamInfo
from timar_ros.nodes import messages, qos
from timar_ros.nodes.base import OK, Diagnosis, ManagedNode, Parameter
from timar_ros.nodes.foreign import message_class
from timar_ros.nodes.process import run
from timar_ros.retarget.avatar import HEAD_NOD, HEAD_SHAKE, AvatarMap, HeadGestures

Frame = NDArray[np.float32]

MAX_HELD = 1000
"""Frames that may wait for their time: 40 s."""

CLOSING = (1.0, 0.9, 0.5, 0.1, 0.0)
"""How an interrupted face comes to rest, frame by frame: within 200 ms at 25 Hz."""


class AvatarBridge(ManagedNode):
    """Publishes every frame when it is to be shown."""

    PARAMETERS = (
        Parameter("map", "", "file with the weights; empty takes config/avatar.yaml"),
        Parameter("blendshapes", True, "publish ARKit weights on agent/blendshapes (JointState: name, position)"),
        Parameter("mouth", True, "publish agent/mouth (Float32, 0 closed to 1 open)"),
        Parameter("facs", False, "publish agent/facs (hri_msgs/FacialActionUnits, which must be installed)"),
    )

    def __init__(self, **options: Any) -> None:
        super().__init__("avatar_bridge", **options)

    def configure(self) -> None:
        """Read the map and create the outputs."""
        self._map = AvatarMap(self.value("map") or None)
        self._waiting: deque[tuple[int, Frame, dict[str, Any]]] = deque()
        self._info: StreamInfo | None = None
        self._gestures: tuple[float, HeadGestures] | None = None
        self._outputs_by_name: dict[str, Any] = {}
        if self.value("blendshapes"):
            self._outputs_by_name["blendshapes"] = self.publish_on(JointState, "agent/blendshapes", qos.motion())
        if self.value("mouth"):
            self._outputs_by_name["mouth"] = self.publish_on(Float32, "agent/mouth", qos.motion())
        if self.value("facs"):
            self._units = message_class("hri_msgs/msg/FacialActionUnits")
            self._outputs_by_name["facs"] = self.publish_on(self._units, "agent/facs", qos.motion())
        self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)

    def activate(self) -> None:
        """Subscribe and start to show."""
        self._waiting.clear()
        self._shown: Frame = np.zeros(MOTION_SIZE, np.float32)
        self._unwanted_until_ns = 0
        self.subscribe(Header, "cancel", self._cancel, qos.commands(), optional=True)
        self.subscribe(FlameMotion, "agent/motion", self._on_motion, qos.motion())
        self.every(0.005, self._show)

    def diagnose(self) -> Diagnosis:
        """How many frames wait."""
        return OK, "showing", {"frames waiting": str(len(self._waiting))}

    def _take_info(self, message: StreamInfo) -> None:
        self._info = message

    def _on_motion(self, message: FlameMotion) -> None:
        got = messages.motion(message)
        if not np.isfinite(got.frames).all():
            raise messages.MessageError("the agent's motion must be known in all its parts")
        wanted = got.since(self._unwanted_until_ns)
        self.statistics.count("frames cancelled", len(got.frames) - len(wanted.frames))
        self._hold(wanted)

    def _cancel(self, message: Header) -> None:
        """The agent was interrupted: come to rest at once, until what is said after it is shown."""
        self._unwanted_until_ns = messages.shown_ns(message.stamp, self._info)
        self.statistics.count("frames cancelled", len(self._waiting))
        self._waiting.clear()
        closing = np.outer(CLOSING, self._shown).astype(np.float32)
        self._hold(messages.Motion(self.now_ns(), MOTION_RATE, 0, closing, None))

    def _hold(self, got: messages.Motion) -> None:
        """Keep frames until they are due."""
        if not len(got.frames):
            return
        rows: dict[str, Any] = {}
        if "blendshapes" in self._outputs_by_name:
            rows["blendshapes"] = self._map.arkit(got.frames)
        if "mouth" in self._outputs_by_name:
            rows["mouth"] = self._map.mouth(got.frames)
        if "facs" in self._outputs_by_name:
            rows["facs"] = self._facs(got)
        while self._waiting and self._waiting[-1][0] >= got.stamp_ns:
            self._waiting.pop()  # a newer message replaces what overlaps it
        for index, frame in enumerate(got.frames):
            stamp = got.stamp_ns + round(index * 1e9 / got.rate)
            self._waiting.append((stamp, frame, {name: values[index] for name, values in rows.items()}))
        while len(self._waiting) > MAX_HELD:
            self._waiting.popleft()
            self.statistics.count("frames dropped")

    def _facs(self, got: messages.Motion) -> Any:
        if self._gestures is None or self._gestures[0] != got.rate:
            self._gestures = (got.rate, HeadGestures(got.rate))
        units = self._map.facs(got.frames)
        units[:, [HEAD_NOD, HEAD_SHAKE]] = self._gestures[1].push(got.frames)
        return units

    def _show(self) -> None:
        now = self.now_ns()
        while self._waiting and self._waiting[0][0] <= now:
            stamp, self._shown, values = self._waiting.popleft()
            for name, value in values.items():
                self._outputs_by_name[name].publish(self._message(name, stamp, value))

    def _message(self, name: str, stamp: int, value: Any) -> Any:
        if name == "mouth":
            return Float32(data=float(value))
        if name == "blendshapes":
            made = JointState(name=list(self._map.names), position=value.astype(float).tolist())
        else:
            made = self._units()
            made.intensity = np.ascontiguousarray(value, np.float32)
            made.confidence = (made.intensity > 0).astype(np.float32)
        made.header.stamp = messages.to_stamp(stamp)
        return made


def main() -> int:
    """Executable `avatar_bridge`."""
    return run(AvatarBridge)


if __name__ == "__main__":
    raise SystemExit(main())
