"""Reads a trajectory controller's parameter from the node that subscribes to a topic of trajectories."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node

FLAG = "interpolate_from_desired_state"
"""Whether joint_trajectory_controller begins a new trajectory at its last command; false: at the measured position."""


class ControllerFlag:
    """:data:`FLAG` of the controller behind a topic ``<controller>/joint_trajectory``; :meth:`poll` requests it.

    :param node: the client's node; an executor must spin it.
    :param topic: the topic's full name, remappings included.
    """

    def __init__(self, node: Node, topic: str) -> None:
        self.controller = topic.rpartition("/")[0]
        self._node = node
        self._client: Any = node.create_client(GetParameters, f"{self.controller}/get_parameters")
        self._answer: Any = None
        self._value: bool | None = None

    def poll(self) -> bool | None:
        """The controller's value; None before its answer, or where it has no such parameter."""
        if self._answer is not None and self._answer.done():
            values = self._answer.result().values
            self._answer = None
            if values and values[0].type == ParameterType.PARAMETER_BOOL:
                self._value = bool(values[0].bool_value)
        if self._value is None and self._answer is None and self._client.service_is_ready():
            self._answer = self._client.call_async(GetParameters.Request(names=[FLAG]))
        return self._value

    def close(self) -> None:
        """Destroy the client."""
        self._node.destroy_client(self._client)
