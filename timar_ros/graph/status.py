"""How a running graph is: its nodes' lifecycle states, what they say of themselves, and the conversation's figures.

Looked at from outside, by a node of one's own: nothing of the graph has to be started by this process.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lifecycle_msgs.srv import GetState
from rclpy.executors import Executor
from rclpy.node import Node

from timar_ros.graph.advice import advice
from timar_ros.graph.health import ERROR, LEVELS, OK, WARN, Health
from timar_ros.graph.parameter_reference import NODES
from timar_ros.msg import StreamInfo
from timar_ros.ros import qos

REPORTS = 2
"""So many reports of each node are waited for: what goes wrong from time to time is not in every one."""

ASK_AGAIN = 1.0
"""Time after which a node's state is requested again [s]."""


@dataclass(frozen=True)
class NodeStatus:
    """One node: its lifecycle state and its worst report during the observation."""

    name: str
    state: str
    """unconfigured, inactive, active, finalized; "missing", or "no answer"."""
    level: str
    message: str
    advice: str
    """Advice; empty without a fault, or if the message contains it."""


@dataclass(frozen=True)
class Conversation:
    """Values from `stream_info` and timar_inference's counters."""

    mode: str
    model: str
    trained: bool
    playback_delay: float
    """[s]"""
    turns_answered: int | None
    """None: timar_inference runs in another namespace, or has not reported."""
    turns_dropped: int | None


@dataclass(frozen=True)
class GraphStatus:
    """All of it."""

    namespace: str
    nodes: list[NodeStatus]
    conversation: Conversation | None
    """None: no node publishes `stream_info`."""
    elsewhere: list[str] = field(default_factory=list)
    """Other namespaces with nodes of this package, when this one has none."""

    @property
    def fine(self) -> bool:
        """Whether nothing is missing and every node is active and OK."""
        return bool(self.nodes) and all(node.level == "OK" for node in self.nodes)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"fine": self.fine, **asdict(self)}


class GraphWatcher:
    """Observes the graph of a namespace.

    :param node: a node of this process; only this thread spins it, with ``executor``.
    :param namespace: the graph's namespace, as the user writes it.
    :param expected: names of the required nodes.
    """

    def __init__(self, node: Node, executor: Executor, namespace: str, expected: Sequence[str]) -> None:
        self._node, self._executor = node, executor
        self._namespace = "/" + namespace.strip("/")
        self._expected = list(expected)
        self._info: StreamInfo | None = None
        self._states: dict[str, str] = {}
        self._state_requests: dict[str, tuple[Any, Any, float]] = {}
        self.health = Health(self._namespace)
        self.health.listen(node)
        node.create_subscription(StreamInfo, self._full("stream_info"), self._take_info, qos.latched())

    def look(self, patience: float = 10.0, stop: Callable[[], bool] = lambda: False) -> GraphStatus:
        """Observe until every expected and every found node has reported, at most ``patience`` [s]."""
        self.health.reports.clear()
        self._states.clear()
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and not stop():
            self._executor.spin_once(timeout_sec=0.05)
            self._ask()
            if self._complete():
                break
        return self._status()

    def _full(self, name: str) -> str:
        return f"{self._namespace.rstrip('/')}/{name}"

    def _take_info(self, message: StreamInfo) -> None:
        self._info = message

    def _there(self) -> Counter[str]:
        """Number of this package's nodes in the namespace, by name."""
        found = self._node.get_node_names_and_namespaces()
        return Counter(
            name for name, where in found if where == self._namespace and (name in NODES or name in self._expected)
        )

    def _all(self) -> list[str]:
        others = sorted({*self._there(), *self.health.reports} - set(self._expected))
        return [*self._expected, *others]

    def _complete(self) -> bool:
        reports = self.health.reports
        heard = all(name in reports and reports[name].count >= REPORTS and name in self._states for name in self._all())
        return heard and (self._info is not None or self._states.get("timar_inference") != "active")

    def _ask(self) -> None:
        """Request the nodes' lifecycle states, and store the answers."""
        now = time.monotonic()
        for name in self._all():
            client, question, requested_at = self._state_requests.get(name, (None, None, 0.0))
            if question is not None and question.done():
                self._states[name] = question.result().current_state.label
                self._state_requests[name] = (client, None, now)
            elif question is not None and now - requested_at > ASK_AGAIN:
                client.remove_pending_request(question)
                self._state_requests[name] = (client, None, 0.0)
            elif question is None and (name not in self._states or now - requested_at > ASK_AGAIN):
                client = client or self._node.create_client(GetState, self._full(f"{name}/get_state"))
                ready = client.service_is_ready()
                self._state_requests[name] = (client, client.call_async(GetState.Request()) if ready else None, now)

    def _status(self) -> GraphStatus:
        there = self._there()
        nodes = [self._one(name, there[name]) for name in self._all()]
        elsewhere: set[str] = set()
        if not there:
            found = self._node.get_node_names_and_namespaces()
            elsewhere = {where for name, where in found if name in NODES and where != self._namespace}
        return GraphStatus(self._namespace, nodes, self._conversation(), sorted(elsewhere))

    def _one(self, name: str, count: int) -> NodeStatus:
        report, state = self.health.reports.get(name), self._states.get(name)
        if report is None and state is None:
            words, which = ("missing, or it hangs", "missing") if not count else ("does not answer", "no answer")
            return NodeStatus(name, which, LEVELS[ERROR], words, advice(words))
        state = state or (report.rows.get("state") if report else None) or "no answer"
        level, message = (report.worst, report.worst_message) if report else (ERROR, "no diagnostics")
        if count > 1:
            level, message = ERROR, f"{count} nodes have this name: end one of them, or use a namespace"
        elif level == OK and state != "active":
            level, message = WARN, f"state {state}, not active"
        return NodeStatus(name, state, LEVELS[level], message, "" if level == OK else advice(message))

    def _conversation(self) -> Conversation | None:
        if self._info is None:
            return None
        info, report = self._info, self.health.reports.get("timar_inference")
        answered, dropped = (
            None if report is None else int(report.rows.get(key, 0)) for key in ("turns answered", "turns dropped")
        )
        return Conversation(info.mode, info.model, bool(info.trained), float(info.playback_delay), answered, dropped)
