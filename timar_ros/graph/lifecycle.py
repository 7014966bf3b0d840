"""Client for a lifecycle transition of another node; it repeats requests until the transition's outcome is known."""

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

RETRY_AFTER = 3.0
"""Time without an answer after which the client requests the node's state [s]."""


class LifecycleClient:
    """Runs one transition of one node at a time; the thread that spins ``node`` must call :meth:`poll`.

    A service's answer can be lost: DDS discovers the answers' writer and reader separately, and on a loaded machine a
    node may answer before it has discovered the client. The transition has then happened, but the client does not know.
    Without an answer the client therefore requests the state, and repeats the request if the state has not changed.

    :param node: the client's own node.
    :param name: full name of the node to manage.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._change = node.create_client(ChangeState, f"{name}/change_state")
        self._state = node.create_client(GetState, f"{name}/get_state")
        self._requests: list[Any] = []
        self._state_request: Any = None
        self._decisive = False
        self._next_check = 0.0
        self._goal = _GOALS["configure"]

    def begin(self, transition: str) -> None:
        """Request ``transition`` (configure, activate, deactivate or cleanup) from now on."""
        self._goal = _GOALS[transition]
        self._drop_state_request()
        for request in self._requests:
            self._change.remove_pending_request(request)
        self._requests.clear()

    def poll(self) -> bool | None:
        """True when the transition has happened, False when the node refused, None while the outcome is unknown."""
        now = time.monotonic()
        if not self._requests:
            self._request(now)
            return None
        if any(request.done() and request.result().success for request in self._requests):
            return True
        refused = self._requests[-1].done()
        if refused and len(self._requests) == 1:
            return False
        if self._state_request is None:
            # If the first request succeeded, the node refuses a second one: only the state tells the two cases apart.
            if (refused or now > self._next_check) and self._state.service_is_ready():
                self._state_request = self._state.call_async(GetState.Request())
                self._decisive = refused
                self._next_check = now + RETRY_AFTER
        elif self._state_request.done():
            state = self._state_request.result().current_state.id
            self._state_request = None
            if state == self._goal[1]:
                return True
            if self._decisive:
                return False
            if not refused and state not in _TRANSITIONAL:
                self._request(now)
        elif now > self._next_check:
            self._drop_state_request()
        return None

    def _request(self, now: float) -> None:
        if self._change.service_is_ready():
            self._requests.append(self._change.call_async(ChangeState.Request(transition=Transition(id=self._goal[0]))))
            self._next_check = now + RETRY_AFTER

    def _drop_state_request(self) -> None:
        if self._state_request is not None:
            self._state.remove_pending_request(self._state_request)
            self._state_request = None
