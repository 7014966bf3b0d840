"""Node `avatar_bridge`: converts the agent's motion for avatars: ARKit weights, FACS, a mouth opening, VMC."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32, Header

from timar_ros.foreign.vmc import NAMES, VmcSender
from timar_ros.motion import HEAD, MOTION_RATE, MOTION_SIZE
from timar_ros.msg import FlameMotion, StreamInfo
from timar_ros.retarget.avatar import HEAD_NOD, HEAD_SHAKE, AvatarMap, HeadGestures
from timar_ros.ros import messages, qos
from timar_ros.ros.base import OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.foreign_topics import message_class
from timar_ros.ros.node_process import run
from timar_ros.streaming.clock_steps import near, spoken

Frame = NDArray[np.float32]

MAX_HELD = 1000
"""Most frames that wait for their time: 40 s."""

CLOSING = (1.0, 0.9, 0.5, 0.1, 0.0)
"""Factors that bring an interrupted face to rest, frame by frame: within 200 ms at 25 Hz."""


class AvatarBridge(ManagedNode):
    """Publishes every frame at its time."""

    PARAMETERS = (
        Parameter("map", "", "file with the weights; empty: config/avatar.yaml"),
        Parameter("blendshapes", True, "publish ARKit weights on agent/blendshapes (JointState: name, position)"),
        Parameter("mouth", True, "publish agent/mouth (Float32, 0 closed to 1 open)"),
        Parameter("facs", False, "publish agent/facs (hri_msgs/FacialActionUnits, which must be installed)"),
        Parameter("vmc_port", 0, "send VMC messages (OSC over UDP) to this port, usually 39539; 0: none", 0, 65535),
        Parameter(
            "vmc_host",
            "127.0.0.1",
            "host that receives the VMC messages; another host gets them over the network",
        ),
        Parameter(
            "vmc_names",
            "arkit",
            "names of VMC's blendshapes: jawOpen (arkit), JawOpen (capital), or only the mouth A (vrm)",
            choices=NAMES,
        ),
        Parameter(
            "vmc_head_position",
            [0.0, 0.0, 0.0],
            "position of the avatar's head bone in its parent, for receivers that use it [m]",
            -10.0,
            10.0,
            check=lambda value: None if len(value) == 3 else "must be a position: x, y, z",
        ),
    )

    _vmc: VmcSender | None = None

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
        if self.value("vmc_port"):
            self._vmc = VmcSender(
                self.value("vmc_host"), self.value("vmc_port"), self.value("vmc_names"), self.value("vmc_head_position")
            )
            self.get_logger().info(
                f"VMC messages go to {self.value('vmc_host')}:{self.value('vmc_port')} without the unknown weights: "
                f"{', '.join(self._map.absent)}"
            )
        self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)

    def activate(self) -> None:
        """Create the subscriptions and start to publish."""
        self._waiting.clear()
        self._shown: Frame = np.zeros(MOTION_SIZE, np.float32)
        self._cancelled_until_ns = 0
        self.subscribe(Header, "cancel", self._cancel, qos.commands(), optional=True)
        self.subscribe(FlameMotion, "agent/motion", self._on_motion, qos.motion())
        self.every(0.005, self._show)

    def cleanup(self) -> None:
        """Close the socket."""
        vmc, self._vmc = self._vmc, None
        if vmc is not None:
            vmc.close()

    def diagnose(self) -> Diagnosis:
        """Report the number of waiting frames."""
        rows = {"frames waiting": str(len(self._waiting))}
        if self._vmc is not None and (refused := self._vmc.refused):
            return WARN, f"VMC: {refused}", rows
        return OK, "showing", rows

    def _take_info(self, message: StreamInfo) -> None:
        self._info = message

    def _on_motion(self, message: FlameMotion) -> None:
        chunk = messages.motion(message)
        if not np.isfinite(chunk.frames).all():
            raise messages.MessageError("the agent's motion must be known in all its parts")
        now = self.now_ns()
        if now > 0 and not near(chunk.stamp_ns, now):
            raise messages.MessageError(f"header.stamp lies {spoken(chunk.stamp_ns - now)} of this clock: not shown")
        kept = chunk.since(self._cancelled_until_ns)
        self.statistics.count("frames cancelled", len(chunk.frames) - len(kept.frames))
        self._hold(kept)

    def _cancel(self, message: Header) -> None:
        """The agent was interrupted: bring the face to rest until motion from after the interruption is due."""
        self._cancelled_until_ns = messages.shown_ns(message.stamp, self._info)
        self.statistics.count("frames cancelled", len(self._waiting))
        self._waiting.clear()
        closing = np.outer(CLOSING, self._shown).astype(np.float32)
        self._hold(messages.Motion(self.now_ns(), MOTION_RATE, 0, closing, None))

    def _hold(self, chunk: messages.Motion) -> None:
        """Keep frames until they are due."""
        if not len(chunk.frames):
            return
        rows: dict[str, Any] = {}
        if "blendshapes" in self._outputs_by_name or self._vmc is not None:
            rows["blendshapes"] = self._map.arkit(chunk.frames)
        if "mouth" in self._outputs_by_name or self._vmc is not None:
            rows["mouth"] = self._map.mouth(chunk.frames)
        if "facs" in self._outputs_by_name:
            rows["facs"] = self._facs(chunk)
        while self._waiting and self._waiting[-1][0] >= chunk.stamp_ns:
            self._waiting.pop()  # a newer message replaces overlapping frames
        for index, frame in enumerate(chunk.frames):
            stamp = chunk.stamp_ns + round(index * 1e9 / chunk.rate)
            self._waiting.append((stamp, frame, {name: values[index] for name, values in rows.items()}))
        while len(self._waiting) > MAX_HELD:
            self._waiting.popleft()
            self.statistics.count("frames dropped")

    def _facs(self, chunk: messages.Motion) -> Any:
        if self._gestures is None or self._gestures[0] != chunk.rate:
            self._gestures = (chunk.rate, HeadGestures(chunk.rate))
        units = self._map.facs(chunk.frames)
        units[:, [HEAD_NOD, HEAD_SHAKE]] = self._gestures[1].push(chunk.frames)
        return units

    def _show(self) -> None:
        now = self.now_ns()
        while self._waiting and self._waiting[0][0] <= now:
            stamp, self._shown, values = self._waiting.popleft()
            for name, value in values.items():
                if name in self._outputs_by_name:
                    self._outputs_by_name[name].publish(self._message(name, stamp, value))
            if self._vmc is not None:
                weights = dict(zip(self._map.names, values["blendshapes"].tolist(), strict=True))
                self._vmc.send(stamp * 1e-9, self._shown[HEAD], weights, float(values["mouth"]))

    def _message(self, name: str, stamp: int, value: Any) -> Any:
        if name == "mouth":
            return Float32(data=float(value))
        if name == "blendshapes":
            message = JointState(name=list(self._map.names), position=value.astype(float).tolist())
        else:
            message = self._units()
            message.intensity = np.ascontiguousarray(value, np.float32)
            message.confidence = (message.intensity > 0).astype(np.float32)
        message.header.stamp = messages.to_stamp(stamp)
        return message


def main() -> int:
    """Executable `avatar_bridge`."""
    return run(AvatarBridge)


if __name__ == "__main__":
    raise SystemExit(main())
