"""A ROS context of a test's own: nodes under test and a probe, spun in the test's thread until something holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

PATIENCE = 120.0
"""Seconds after which a thing that should happen is held to be broken; nothing is decided by it otherwise."""


class Bench:
    """Use as a context manager. ``probe`` is a plain node for publishers and subscriptions of the test."""

    def __enter__(self) -> Bench:  # noqa: PYI034 (typing.Self needs 3.11)
        self.context = Context()
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.probe = rclpy.create_node("probe", context=self.context)
        self.executor.add_node(self.probe)
        self.nodes: list[Any] = []
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.end()
            node.destroy_node()
        self.executor.shutdown()
        self.probe.destroy_node()
        self.context.try_shutdown()

    def add(self, node_class: type, namespace: str = "", **parameters: Any) -> Any:
        """A node under test."""
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = node_class(context=self.context, namespace=namespace, parameter_overrides=overrides)
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def bring_up(self, *nodes: Any) -> None:
        """Configure all, then activate all."""
        for step in ("trigger_configure", "trigger_activate"):
            for node in nodes:
                getattr(node, step)()
                assert node.fault is None, node.fault

    def listen(self, message_type: type, topic: str, qos: Any) -> list[Any]:
        """What comes on a topic, as a list that grows."""
        got: list[Any] = []
        self.probe.create_subscription(message_type, topic, got.append, qos)
        return got

    def until(self, holds: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """Spin until something holds; its value. Fails the test when it never does."""
        deadline = time.monotonic() + patience
        while not (value := holds()):
            assert time.monotonic() < deadline, "what should happen never did"
            self.executor.spin_once(timeout_sec=0.05)
        return value

    def tell(self, node: Any, publisher: Any, message: Any) -> None:
        """Publish, and spin until a node has heard it."""
        topic = publisher.topic_name.removeprefix("/")
        before = node.statistics.counted(topic)
        publisher.publish(message)
        self.until(lambda: node.statistics.counted(topic) > before)

    def connected(self, publisher: Any, count: int = 1) -> None:
        """Spin until a publisher has subscribers."""
        self.until(lambda: publisher.get_subscription_count() >= count)


def hold_up(inference: Any) -> tuple[threading.Event, threading.Event]:
    """Let each pass of an inference node wait; events: a pass has begun, and the passes may go on."""
    began, let_go = threading.Event(), threading.Event()
    process = inference.pipeline.process

    def slow(turns: Any) -> Any:
        began.set()
        assert let_go.wait(PATIENCE)
        return process(turns)

    inference.pipeline.process = slow
    return began, let_go
