"""A lifecycle transition of another node, asked for until it is known to have happened or to have been refused."""

from __future__ import annotations

import time
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node

_GOALS = {
    "configure": (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    "activate": (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    "deactivate": (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
    "cleanup": (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
}
_TRANSITIONAL = range(State.TRANSITION_STATE_CONFIGURING, State.TRANSITION_STATE_ERRORPROCESSING + 1)

ASK_AGAIN = 3.0
"""Seconds without an answer after which the node's state is asked for."""


class LifecycleClient:
    """Takes one node at a time through one transition; polled by whoever spins ``node``.

    A service's answer can be lost: DDS matches the writer of the answers and their reader apart from the rest, and on a
    loaded machine a node may answer before it knows the one who asked. The transition has then happened and nobody
    hears of it. So who gets no answer asks for the state, which says whether it happened, and asks again if it did not.

    :param node: the client's own node.
    :param name: full name of the node to manage.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._change = node.create_client(ChangeState, f"{name}/change_state")
        self._state = node.create_client(GetState, f"{name}/get_state")
        self._requests: list[Any] = []
        self._question: Any = None
        self._decisive = False
        self._patient_until = 0.0
        self._goal = _GOALS["configure"]

    def begin(self, transition: str) -> None:
        """Ask for ``transition`` (configure, activate, deactivate or cleanup) from now on."""
        self._goal = _GOALS[transition]
        self._drop_question()
        for request in self._requests:
            self._change.remove_pending_request(request)
        self._requests.clear()

    def poll(self) -> bool | None:
        """True when it happened, False when the node refused, None while that is not known."""
        now = time.monotonic()
        if not self._requests:
            self._ask(now)
            return None
        if any(request.done() and request.result().success for request in self._requests):
            return True
        refused = self._requests[-1].done()
        if refused and len(self._requests) == 1:
            return False
        if self._question is None:
            # A second request is refused as well when the first had been heard: the state tells.
            if (refused or now > self._patient_until) and self._state.service_is_ready():
                self._question = self._state.call_async(GetState.Request())
                self._decisive = refused
                self._patient_until = now + ASK_AGAIN
        elif self._question.done():
            state = self._question.result().current_state.id
            self._question = None
            if state == self._goal[1]:
                return True
            if self._decisive:
                return False
            if not refused and state not in _TRANSITIONAL:
                self._ask(now)
        elif now > self._patient_until:
            self._drop_question()
        return None

    def _ask(self, now: float) -> None:
        if self._change.service_is_ready():
            self._requests.append(self._change.call_async(ChangeState.Request(transition=Transition(id=self._goal[0]))))
            self._patient_until = now + ASK_AGAIN

    def _drop_question(self) -> None:
        if self._question is not None:
            self._state.remove_pending_request(self._question)
            self._question = None
