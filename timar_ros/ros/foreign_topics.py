"""Subscriptions to topics with other packages' types, which are found and imported while the node runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from timar_ros.errors import UserError

if TYPE_CHECKING:
    from timar_ros.ros.base import ManagedNode

DEBIAN_NAMES = {"audio_common_msgs": "audio-common-msgs", "hri_msgs": "hri-msgs", "tf2_msgs": "tf2-msgs"}


def message_class(msgtype: str) -> type:
    """The class of ``package/msg/Name`` (or ``package/action/Name``).

    :raises UserError: when the package is not installed, or has no such message; the error names what to install.
    """
    package, kind, name = msgtype.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), name)
    except ImportError as error:
        debian = DEBIAN_NAMES.get(package, package.replace("_", "-"))
        raise UserError(
            f"message type {msgtype} is not installed here: install its package "
            f"('apt install ros-$ROS_DISTRO-{debian}'), or source the workspace that has '{package}'"
        ) from error
    except AttributeError as error:
        raise UserError(
            f"the installed package '{package}' has no {msgtype}; it is another package of the same name"
        ) from error


def adapted(offers: Collection[QoSProfile], depth: int) -> QoSProfile:
    """The QoS that connects to all publishers of a topic: what the weakest of them offers."""
    reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
    latched = bool(offers) and all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


class ForeignTopic:
    """A subscription that is created when the topic has a publisher, with that publisher's type and QoS.

    Create it in a node's `activate`; it searches for the topic twice a second until the topic has a publisher. A fault
    (a type that is not installed) is logged once and stays in ``fault`` for the diagnostics.

    :param topic: the topic's name; relative names are in the node's namespace, remappings apply.
    :param callback: called with each message; may raise MessageError or UserError to reject it.
    :param depth: queue depth.
    """

    def __init__(
        self,
        node: ManagedNode,
        topic: str,
        callback: Callable[[Any], None],
        *,
        depth: int = 100,
        optional: bool = False,
    ) -> None:
        self.node = node
        self.topic = topic
        self.msgtype: str | None = None
        self.fault: str | None = None
        self._resolved = node.resolve_topic_name(topic)
        self._callback = callback
        self._depth = depth
        self._optional = optional
        self._timer: Any = None
        self._subscription: Any = None
        self._search()
        if self.msgtype is None:
            self._timer = node.every(0.5, self._search, steady=True)

    def close(self) -> None:
        """Destroy subscription and timer. Otherwise both end when the node is deactivated."""
        for endpoint in (self._timer, self._subscription):
            self.node.drop(endpoint)

    def _search(self) -> None:
        if self.msgtype is not None or self.fault is not None:
            if self._timer is not None:
                self._timer.cancel()
            return
        publishers = self.node.get_publishers_info_by_topic(self._resolved)
        if not publishers:
            return
        types = {publisher.topic_type for publisher in publishers}
        try:
            if len(types) > 1:
                raise UserError(f"its publishers have different types: {', '.join(sorted(types))}")
            msgtype = types.pop()
            message_type = message_class(msgtype)
        except UserError as error:
            self.fault = f"{self._resolved}: {error}"
            self.node.get_logger().error(self.fault)
            return
        profile = adapted([publisher.qos_profile for publisher in publishers], self._depth)
        self._subscription = self.node.subscribe(
            message_type, self.topic, self._callback, profile, optional=self._optional
        )
        self.msgtype = msgtype
        self.node.get_logger().info(f"{self._resolved} is {msgtype}")
