"""Services that steer a running conversation: another partner, an interruption, another style."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from std_msgs.msg import Header
from std_srvs.srv import Trigger

from timar_ros.errors import UserError
from timar_ros.nodes import qos, style
from timar_ros.nodes.inference_stream import Stream, prefix
from timar_ros.nodes.messages import to_stamp
from timar_ros.nodes.statistics import Statistics
from timar_ros.srv import SetStyle


class Steered(Protocol):
    """What a node of running conversations offers to the services: `timar_inference`."""

    phase: str
    statistics: Statistics

    @property
    def pipeline(self) -> Any:
        """With ``reset(row)`` and ``check_style(**style)``."""

    @property
    def streams(self) -> Mapping[str, Stream]:
        """The conversations by namespace."""

    def between_turns(self, call: Callable[[], None], *, forget: str | None = None) -> None:
        """Run ``call`` while no turn is being worked on."""

    def restyle(self, **style: float) -> None:
        """Another style from the next turn on."""

    def get_name(self) -> str:
        """The node's name."""

    def now_ns(self) -> int:
        """The node's time [ns]."""

    def publish_on(self, kind: Any, topic: str, profile: Any) -> Any:
        """A publisher."""

    def serve(self, kind: Any, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """A service."""


def serve(node: Steered, key: str) -> None:
    """Open `~/reset` and `~/cancel` for one conversation, under its namespace where it has one; call in `configure`.

    A cancellation goes out on `cancel`: sink, segmenter and retarget let go of what they hold; what is said
    from then on is heard and shown again.
    """
    place = f"{prefix(key)}{node.get_name()}" if key else "~"
    cancelled = node.publish_on(Header, f"{prefix(key)}cancel", qos.commands())

    def reset(_request: Any, response: Any) -> Any:
        node.between_turns(lambda: node.pipeline.reset(node.streams[key].row), forget=key)
        node.statistics.count("resets")
        response.success, response.message = True, "a new conversation begins with the next turn"
        return response

    def cancel(_request: Any, response: Any) -> Any:
        response.success = node.phase == "active"
        if response.success:
            node.streams[key].interrupted = time.monotonic()
            cancelled.publish(Header(stamp=to_stamp(node.now_ns())))
            node.statistics.count("interruptions")
        response.message = "queued audio and motion are dropped" if response.success else "the node is not active"
        return response

    node.serve(Trigger, f"{place}/reset", reset)
    node.serve(Trigger, f"{place}/cancel", cancel)


def serve_style(node: Steered) -> None:
    """Open `~/set_style`, for all conversations of the node; call in `configure`."""

    def set_style(request: Any, response: Any) -> Any:
        try:
            wanted = style.asked(request, gains=False)
            node.pipeline.check_style(**wanted)
        except UserError as error:
            response.success, response.message = False, str(error)
            return response
        node.between_turns(lambda: node.restyle(**wanted))
        response.success = True
        response.message = f"from the next turn on: {style.told(wanted)}" if wanted else "nothing to change"
        return response

    node.serve(SetStyle, "~/set_style", set_style)
