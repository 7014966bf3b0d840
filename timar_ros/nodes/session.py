"""A run of the whole graph as child processes, observed from this process: what `timar demo` and `timar up` share."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from timar_ros.errors import UserError
from timar_ros.nodes import observer
from timar_ros.nodes.domain import free_domain
from timar_ros.nodes.graph import GraphOptions, NodeSpec, describe
from timar_ros.nodes.observer import Observer
from timar_ros.nodes.supervisor import Supervisor

STALLED = 60.0
"""Seconds without any message from the graph after which a run is given up."""


@dataclass
class Session:
    """A graph that is starting or running."""

    specs: Sequence[NodeSpec]
    supervisor: Supervisor
    observer: Observer

    def run(self, on_step: Callable[[], None], stop: Callable[[], bool]) -> bool:
        """Until the conversation is over; False when told to stop before.

        :raises NodeError: when a node dies.
        :raises UserError: when nothing comes from the graph any more, or it asks for something impossible.
        """
        self.observer.seen.progress = time.monotonic()
        while not self.observer.finished():
            if stop():
                return False
            self.supervisor.spin(0.05)
            on_step()
            if time.monotonic() - self.observer.seen.progress > STALLED:
                raise UserError(f"the graph has said nothing for {STALLED:.0f} s: {self._missing()}")
        return True

    def _missing(self) -> str:
        seen = self.observer.seen
        if not seen.turns:
            return "no turn came; is the audio silent or the segmenter's 'turn_seconds' wrong?"
        if unanswered := seen.unanswered():
            return f"no motion for {len(unanswered)} turns, first number {unanswered[0]}; see timar_inference's log"
        return "the agent's audio did not end; see audio_sink's log"


@contextlib.contextmanager
def session(
    options: GraphOptions, logs: Path, echo: Callable[[str, str], None] | None = None, *, listening: bool = True
) -> Iterator[Session]:
    """Start the nodes; at the end of the context they are ended in order.

    Discovery stays on this machine and in a domain of its own, unless the environment says otherwise.

    :param logs: folder for each node's log and parameters.
    :param echo: gets (node, line) for every line that a node prints, from other threads.
    :param listening: whether the observer is to hear the conversation; without it :meth:`Session.run` cannot be used.
    """
    with contextlib.ExitStack() as stack:
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        if "ROS_DOMAIN_ID" not in os.environ:
            os.environ["ROS_DOMAIN_ID"] = str(stack.enter_context(free_domain()))
            stack.callback(os.environ.pop, "ROS_DOMAIN_ID", None)
        specs = describe(options, observers=observer.TOPICS if listening else ())
        context = Context()
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(context.try_shutdown)
        simulated = any(spec.parameters.get("use_sim_time", False) for spec in specs)
        seer = Observer(
            specs[0].namespace,
            anticipatory=options.mode == "anticipatory",
            listening=listening,
            context=context,
            parameter_overrides=[Parameter("use_sim_time", value=simulated)],
        )
        stack.callback(seer.destroy_node)
        executor = SingleThreadedExecutor(context=context)
        stack.callback(executor.shutdown)
        executor.add_node(seer)
        yield Session(specs, stack.enter_context(Supervisor(specs, logs, seer, executor, echo)), seer)
