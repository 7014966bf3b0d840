"""Services that control a running conversation: reset, cancel, set_style."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from std_msgs.msg import Header
from std_srvs.srv import Trigger

from timar_ros.errors import UserError
from timar_ros.node_parts import style
from timar_ros.node_parts.inference_stream import Stream, prefix
from timar_ros.ros import qos
from timar_ros.ros.diagnostics import Statistics
from timar_ros.ros.messages import to_stamp
from timar_ros.srv import SetStyle


class Steered(Protocol):
    """The interface of `timar_inference` that the services use."""

    phase: str
    statistics: Statistics

    @property
    def pipeline(self) -> Any:
        """With ``reset(row)`` and ``check_style(**style)``."""

    @property
    def streams(self) -> Mapping[str, Stream]:
        """The conversations by namespace."""

    def between_turns(self, call: Callable[[], None], *, forget: str | None = None) -> None:
        """Run ``call`` between two turns."""

    def restyle(self, **style: float) -> None:
        """Set the style from the next turn on."""

    def get_name(self) -> str:
        """The node's name."""

    def now_ns(self) -> int:
        """The node's time [ns]."""

    def publish_on(self, kind: Any, topic: str, profile: Any) -> Any:
        """Create a publisher."""

    def serve(self, kind: Any, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """Create a service."""


def serve(node: Steered, key: str) -> None:
    """Create `~/reset` and `~/cancel` for one conversation, under its namespace if it has one; call in `configure`.

    A cancellation is published on `cancel`: sink, segmenter and retarget drop waiting audio and motion; they play and
    show later speech again.
    """
    name_prefix = f"{prefix(key)}{node.get_name()}" if key else "~"
    cancel_publisher = node.publish_on(Header, f"{prefix(key)}cancel", qos.commands())

    def reset(_request: Any, response: Any) -> Any:
        node.between_turns(lambda: node.pipeline.reset(node.streams[key].row), forget=key)
        node.statistics.count("resets")
        response.success, response.message = True, "a new conversation begins with the next turn"
        return response

    def cancel(_request: Any, response: Any) -> Any:
        response.success = node.phase == "active"
        if response.success:
            node.streams[key].interrupted = time.monotonic()
            cancel_publisher.publish(Header(stamp=to_stamp(node.now_ns())))
            node.statistics.count("interruptions")
        response.message = "queued audio and motion are dropped" if response.success else "the node is not active"
        return response

    node.serve(Trigger, f"{name_prefix}/reset", reset)
    node.serve(Trigger, f"{name_prefix}/cancel", cancel)


def serve_style(node: Steered) -> None:
    """Create `~/set_style`, for all conversations of the node; call in `configure`."""

    def set_style(request: Any, response: Any) -> Any:
        try:
            values = style.values_of(request, gains=False)
            node.pipeline.check_style(**values)
        except UserError as error:
            response.success, response.message = False, str(error)
            return response
        node.between_turns(lambda: node.restyle(**values))
        response.success = True
        response.message = f"from the next turn on: {style.in_words(values)}" if values else "nothing to change"
        return response

    node.serve(SetStyle, "~/set_style", set_style)
