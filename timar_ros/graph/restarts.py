"""Which nodes may be restarted when they die, how often, and where the conversation's state is kept."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from timar_ros.graph.description import GraphOptions, NodeSpec

MOST = 5
"""Most restarts of a node within WINDOW; one more death ends the graph."""

WINDOW = 60.0
"""[s]"""


def restartable(spec: NodeSpec) -> bool:
    """Whether a node can continue after a restart.

    The recorder cannot: it never writes over a bag. Neither can a source that is the graph's clock: time would begin
    anew for all others.
    """
    return spec.executable not in ("recorder", "bag_player") and not spec.parameters.get("publish_clock", False)


class Restarts:
    """Counts each node's restarts.

    :param clock: a steady clock's time [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: defaultdict[str, deque[float]] = defaultdict(deque)

    def another(self, name: str) -> int | None:
        """Count a restart; returns the number of restarts within WINDOW with this one, or None if it is not allowed."""
        times, now = self._times[name], self._clock()
        while times and now - times[0] > WINDOW:
            times.popleft()
        if len(times) >= MOST:
            return None
        times.append(now)
        return len(times)


@contextlib.contextmanager
def kept_conversation(options: GraphOptions) -> Iterator[GraphOptions]:
    """The options, with a state file if nodes may be restarted and the user named none.

    It lies in a folder that only this user can read, and is removed at the end of the context.
    """
    if not options.respawn or options.state_file:
        yield options
        return
    with tempfile.TemporaryDirectory(prefix="timar_ros-") as folder:
        yield replace(options, state_file=str(Path(folder, "conversation.npz")))
