"""Sends the agent's head and face as VMC messages: OSC over UDP, for avatar programs and engine plug-ins.

VMC (Virtual Motion Capture protocol, protocol.vmc.info) counts in Unity's axes: x to the avatar's right, y up, z out of
the face, left-handed. FLAME's x is to the left, so a rotation is mirrored: its parts about y and z change sign.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from timar_ros.errors import UserError, require

NAMES = ("arkit", "capital", "vrm")
"""Names of blendshapes: jawOpen, JawOpen, or only the mouth as VRM's preset A."""
ENOUGH = 5
"""Datagrams in a row without an error after which a receiver counts as there."""
MOST = 20
"""Most messages of one datagram: 20 messages of 60 bytes fit into the 1500 bytes of an Ethernet frame."""


def unity_quaternion(head_pose: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A head pose [3] (axis-angle [rad], FLAME's axes) as a quaternion (x, y, z, w) in Unity's axes."""
    x, y, z, w = Rotation.from_rotvec(np.asarray(head_pose, np.float64)).as_quat()
    return np.array([x, -y, -z, w])


def head_pose_of(quaternion: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The inverse of :func:`unity_quaternion`."""
    x, y, z, w = np.asarray(quaternion, np.float64)
    return np.asarray(Rotation.from_quat([x, -y, -z, w]).as_rotvec(), np.float64)


class VmcSender:
    """Sends one frame at a time to one receiver.

    :param host: the receiver's name or address.
    :param port: the receiver's UDP port.
    :param names: one of :data:`NAMES`.
    :param head_position: the head bone's position [3] in its parent [m], which some receivers set as well.
    :raises UserError: when python-osc is missing, or the host is not known.
    """

    def __init__(
        self, host: str, port: int, names: str = "arkit", head_position: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> None:
        install = "pip install 'timar_ros[avatar]'"
        self._bundles: Any = require("pythonosc.osc_bundle_builder", install, "sending VMC")
        self._messages: Any = require("pythonosc.osc_message_builder", install, "sending VMC")
        try:
            [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            self._socket = socket.socket(family, kind, protocol)
            # A connected socket is told when nobody listens on this machine.
            self._socket.connect(address)
        except OSError as error:
            raise UserError(f"VMC receiver {host}:{port} cannot be reached: {error.strerror or error}") from error
        self._socket.setblocking(False)
        self._names = names
        self._position = [float(value) for value in head_position]
        self._start: float | None = None
        self._good = 0
        self.refused = ""
        """Why frames do not arrive, as far as UDP tells: on this machine, that nobody listens. Empty: none known."""

    def send(self, seconds: float, head_pose: npt.ArrayLike, weights: Mapping[str, float], mouth: float) -> None:
        """Send a frame.

        :param seconds: the frame's time [s]; VMC counts from the first frame.
        :param head_pose: axis-angle [3] in FLAME's axes [rad].
        :param weights: ARKit weights in [0, 1] by name. Other weights are not sent, so the avatar may blink by itself.
        :param mouth: how far the mouth is open, 0 to 1.
        """
        if self._start is None:
            self._start = seconds
        shapes = {"A": mouth} if self._names == "vrm" else weights
        rotation = unity_quaternion(head_pose).tolist()
        self._post(
            [
                ("/VMC/Ext/OK", [1]),
                ("/VMC/Ext/T", [seconds - self._start]),
                ("/VMC/Ext/Bone/Pos", ["Head", *self._position, *rotation]),
                *(("/VMC/Ext/Blend/Val", [self._called(name), float(value)]) for name, value in shapes.items()),
                ("/VMC/Ext/Blend/Apply", []),
            ]
        )

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _called(self, name: str) -> str:
        return name[:1].upper() + name[1:] if self._names == "capital" else name

    def _post(self, messages: Sequence[tuple[str, list[Any]]]) -> None:
        for first in range(0, len(messages), MOST):
            bundle = self._bundles.OscBundleBuilder(self._bundles.IMMEDIATELY)
            for address, values in messages[first : first + MOST]:
                builder = self._messages.OscMessageBuilder(address=address)
                for value in values:
                    builder.add_arg(value, {str: "s", int: "i", float: "f"}[type(value)])
                bundle.add_content(builder.build())
            try:
                self._socket.send(bundle.build().dgram)
                self._good += 1
            except OSError as error:  # nobody listens, no route, a full buffer: the next frame may go out again
                self._good, self.refused = 0, str(error.strerror or error)
        # UDP reports a refusal with the next datagram, so a single success does not show that somebody listens.
        if self._good >= ENOUGH:
            self.refused = ""
