"""Runs the whole graph as child processes and observes it from this process, for `timar demo` and `timar up`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from timar_ros.errors import UserError
from timar_ros.graph import observer
from timar_ros.graph.description import GraphOptions, NodeSpec, describe
from timar_ros.graph.domain import free_domain
from timar_ros.graph.health import Health, News
from timar_ros.graph.observer import Observer
from timar_ros.graph.restarts import Restarts, kept_conversation
from timar_ros.graph.supervisor import Supervisor

STALLED = 60.0
"""Time without any message from the graph after which a run is given up [s]."""


@dataclass
class Session:
    """A graph that is starting or running."""

    specs: Sequence[NodeSpec]
    supervisor: Supervisor
    observer: Observer

    def run(self, on_step: Callable[[], None], stop: Callable[[], bool]) -> bool:
        """Run until the conversation is over; False when ``stop()`` ended the run earlier.

        :raises NodeError: when a node dies.
        :raises UserError: when the graph sends no more messages.
        """
        self.observer.observed.progress = time.monotonic()
        while not self.observer.finished():
            if stop():
                return False
            self.supervisor.spin(0.05)
            on_step()
            if time.monotonic() - self.observer.observed.progress > STALLED:
                raise UserError(f"the graph has sent no message for {STALLED:.0f} s: {self._missing()}")
        return True

    def watch(self, stop: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Until told to stop; ``say`` gets a line for what diagnostics newly complain of, and when that is over.

        :raises NodeError: when a node dies, and is not to be restarted or was restarted too often.
        """
        health = Health(self.specs[0].namespace)
        health.listen(self.observer)
        news = News(health, say)

        def tell(name: str, what: str) -> None:
            say(f"{name} {what}")
            news.forget(name)

        self.supervisor.on_restart = tell
        while not stop():
            self.supervisor.spin(0.1)
            news.look()

    def _missing(self) -> str:
        observed = self.observer.observed
        if not observed.turns:
            return "no turn came; is the audio silent or the segmenter's 'turn_seconds' wrong?"
        if unanswered := observed.unanswered():
            return f"no motion for {len(unanswered)} turns, first number {unanswered[0]}; see timar_inference's log"
        return "the agent's audio did not end; see audio_sink's log"


@contextlib.contextmanager
def session(
    options: GraphOptions,
    logs: Path,
    echo: Callable[[str, str], None] | None = None,
    *,
    listening: bool = True,
    page: dict[str, Any] | None = None,
) -> Iterator[Session]:
    """Start the nodes; at the end of the context, end them in order.

    Discovery stays on this machine and in a separate domain, unless the environment sets it otherwise.

    :param logs: folder for each node's log and parameters.
    :param echo: called with (node, line) for every line that a node prints, from other threads.
    :param page: parameters of the live page, for `describe`.
    :param listening: whether the observer subscribes to the conversation; :meth:`Session.run` needs it.
    """
    with contextlib.ExitStack() as stack:
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        if "ROS_DOMAIN_ID" not in os.environ:
            os.environ["ROS_DOMAIN_ID"] = str(stack.enter_context(free_domain()))
            stack.callback(os.environ.pop, "ROS_DOMAIN_ID", None)
        options = stack.enter_context(kept_conversation(options))
        specs = describe(options, observers=observer.TOPICS if listening else (), page=page)
        context = Context()
        enclave = ["--ros-args", "--enclave", f"/{options.enclaves.strip('/')}/observer"] if options.enclaves else []
        rclpy.init(args=enclave, context=context, signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(context.try_shutdown)
        simulated = any(spec.parameters.get("use_sim_time", False) for spec in specs)
        observer_node = Observer(
            specs[0].namespace,
            anticipatory=options.mode == "anticipatory",
            listening=listening,
            context=context,
            parameter_overrides=[Parameter("use_sim_time", value=simulated)],
        )
        stack.callback(observer_node.destroy_node)
        executor = SingleThreadedExecutor(context=context)
        stack.callback(executor.shutdown)
        executor.add_node(observer_node)
        restarts = Restarts() if options.respawn else None
        supervisor = stack.enter_context(Supervisor(specs, logs, observer_node, executor, echo, restarts))
        yield Session(specs, supervisor, observer_node)
