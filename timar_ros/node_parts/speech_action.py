"""The action `tts_msgs/action/TTS` of ROS4HRI and PAL: says a goal's text, and sends the result after playing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse

from timar_ros.audio.speech_queue import CHUNK_SECONDS, Played
from timar_ros.errors import UserError
from timar_ros.ros.foreign_topics import message_class

if TYPE_CHECKING:
    from timar_ros.ros.base import ManagedNode

TYPE = "tts_msgs/action/TTS"


@dataclass(eq=False)
class Wish:
    """A text that is to be said, and how far it is.

    ``generation``: it is void once the node counts another. ``utterance`` and ``seconds`` [s]: its number in the queue
    of speech and how much was made of it. ``complete``: all of it was made. ``error``: why it was not said.
    """

    text: str
    generation: int = 0
    voice: str = ""
    locale: str = ""
    goal: Any = None
    begun: bool = False
    utterance: int = 0
    seconds: float = 0.0
    complete: bool = False
    error: str = ""

    def heard(self, played: Played) -> bool:
        """Whether the loudspeaker has played all of the text's speech."""
        whole = played.utterance == self.utterance and played.seconds >= self.seconds - CHUNK_SECONDS
        return not self.seconds or played.utterance > self.utterance or whole

    def answer(self) -> None:
        """End the goal and send its result."""
        self.goal.execute(self._end)

    def _end(self, goal: Any) -> Any:
        result = message_class(TYPE).Result()  # type: ignore[attr-defined]
        result.error_msg = self.error
        if goal.is_cancel_requested:
            goal.canceled()
        elif self.error:
            goal.abort()
        else:
            goal.succeed()
        return result


class SpeechAction:
    """The action's server; the node says goals and its other texts one after the other."""

    def __init__(
        self,
        node: ManagedNode,
        name: str,
        why_not: Callable[[str], str | None],
        take: Callable[[Wish], None],
        cancel: Callable[[Wish], None],
    ) -> None:
        self._node = node
        self._why_not, self._take, self._cancel = why_not, take, cancel
        self._wishes: dict[bytes, Wish] = {}
        self._server = ActionServer(
            node,
            message_class(TYPE),
            name,
            execute_callback=lambda goal: None,  # noqa: ARG005 (each goal has its own callback at the end)
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )

    def close(self) -> None:
        """Destroy the server."""
        self._server.destroy()

    def _on_goal(self, request: Any) -> GoalResponse:
        if (reason := self._why_not(request.input)) is None:
            return GoalResponse.ACCEPT
        self._node.get_logger().warning(f"goal refused: {reason}")
        return GoalResponse.REJECT

    def _on_accepted(self, goal: Any) -> None:
        request = goal.request
        self._wishes = {key: wish for key, wish in self._wishes.items() if wish.goal.is_active}
        wish = self._wishes[bytes(goal.goal_id.uuid)] = Wish(
            request.input, voice=request.voice, locale=request.locale, goal=goal
        )
        self._take(wish)

    def _on_cancel(self, goal: Any) -> CancelResponse:
        wish = self._wishes.get(bytes(goal.goal_id.uuid))
        if wish is None:
            return CancelResponse.REJECT
        self._cancel(wish)
        return CancelResponse.ACCEPT


def serve_speech(node: ManagedNode, name: str, *callbacks: Any) -> SpeechAction | None:
    """The action's server; None if its types are not installed.

    :param callbacks: see :class:`SpeechAction`.
    """
    try:
        return SpeechAction(node, name, *callbacks)
    except UserError:
        node.get_logger().debug(f"no action {name}: {TYPE} is not installed")
        return None
