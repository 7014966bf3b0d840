"""Node `recorder`: writes every topic of the graph into a bag, as serialized bytes, and counts losses."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.exceptions import InvalidTopicNameException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    InvalidQoSProfileException,
    QoSProfile,
    ReliabilityPolicy,
)
from rosbags.interfaces import Qos as BagQos

from timar_ros.bags.bag_files import TOPICS, bag_qos, is_latched
from timar_ros.bags.bag_recorder import BagRecorder, RecordingSummary
from timar_ros.errors import UserError
from timar_ros.files.reading import read_yaml
from timar_ros.graph.description import NOT_RECORDED
from timar_ros.resources import share
from timar_ros.ros.base import ERROR, OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.foreign_topics import adapted
from timar_ros.ros.node_process import run
from timar_ros.ros.parameters import names

RCLError = rclpy_implementation.RCLError

DISCOVERY_PERIOD = 0.25
"""Time between two searches for new topics [s]."""

DEPTH = 1000
"""Queue depth of a subscription: 20 s of 20 ms chunks."""


class Recorder(ManagedNode):
    """Records from activation to deactivation; adds topics as they appear."""

    PARAMETERS = (
        Parameter("path", "", "folder of the bag to write; it must not exist yet"),
        Parameter("storage", "mcap", "kind of bag", choices=("mcap", "sqlite3")),
        Parameter("compress", False, "compress with zstd (chunks for mcap, messages for sqlite3)"),
        Parameter("cache_megabytes", 100, "size of the write cache; when it is full, messages drop", 1, 100_000),
        Parameter("topics", [""], "names of the only topics to record; none: all of the graph"),
        Parameter("exclude", list(NOT_RECORDED), "names of topics to leave out"),
        Parameter("qos_profiles", "", "YAML file of QoS by topic, as for ros2 bag; empty: config/recording_qos.yaml"),
    )

    recorder: BagRecorder | None = None
    summary: RecordingSummary | None = None

    def __init__(self, name: str = "recorder", **options: Any) -> None:
        super().__init__(name, **options)

    def configure(self) -> None:
        """Subscribe to the package's own topics before discovery, so that no message is missed."""
        if not self.value("path"):
            raise UserError("parameter 'path' is empty: name the folder of the bag to write")
        if Path(self.value("path")).exists():
            raise UserError(f"{self.value('path')} exists already: choose another path")
        self._only, self._exclude = self._resolved("topics"), self._resolved("exclude")
        self._overrides = _read_profiles(self.value("qos_profiles"))
        self._subscriptions_by_topic: dict[str, tuple[Any, QoSProfile, str]] = {}
        self._early: list[tuple[str, bytes]] = []
        self._unknown: set[str] = set()
        self.summary = None
        for name, msgtype in TOPICS.items():
            topic = self.resolve_topic_name(name)
            if self._wanted(topic):
                self._subscribe_to(topic, msgtype, self._overrides.get(topic) or _profile(latched=is_latched(topic)))
        timer = self.create_timer(DISCOVERY_PERIOD, self.guard("discovery", self._discover))
        self._scope["subscriptions"] = self._drop_subscriptions
        self._scope[timer] = lambda: self.destroy_timer(timer)
        self._discover()

    def activate(self) -> None:
        """Open the bag; write latched messages that have come already first."""
        self.recorder = BagRecorder(
            self.value("path"),
            storage=self.value("storage"),
            compress=self.value("compress"),
            cache_bytes=self.value("cache_megabytes") * 1_000_000,
        )
        early, self._early = self._early, []
        for topic, data in early:
            self._store(topic, data)

    def deactivate(self) -> None:
        """Close the bag and log its contents."""
        if self.recorder is None:
            return
        self._drain()
        recorder, self.recorder = self.recorder, None
        self.summary = recorder.stop()
        for line in describe(self.summary):
            self.get_logger().info(line)

    def cleanup(self) -> None:
        """Drop early messages."""
        self._early = []

    def diagnose(self) -> Diagnosis:
        """Report written, dropped and lost messages."""
        if self.recorder is None:
            return OK, "not recording", {}
        losses = self.recorder.losses
        rows = {
            "messages": str(self.recorder.received),
            "dropped for a full cache": str(self.recorder.overflowed),
            "lost audio samples": str(sum(losses.samples.values())),
            "lost turns": str(sum(losses.turns.values())),
            "lost messages": str(sum(self.recorder.lost_messages.values())),
        }
        if self.recorder.failure is not None:
            return ERROR, f"writing failed: {self.recorder.failure}", rows
        if self.recorder.overflowed:
            return WARN, "the disk is too slow: messages are dropped", rows
        return OK, "recording", rows

    def _resolved(self, parameter: str) -> set[str]:
        """Full names of the topics that a parameter lists."""
        try:
            return {self.resolve_topic_name(name) for name in names(self.value(parameter))}
        except (RCLError, InvalidTopicNameException) as error:
            # rcl appends the place in its sources, which tells the user nothing.
            reason = str(error).split(", at ")[0].removeprefix("failed to resolve name: ")
            raise UserError(f"parameter '{parameter}': {reason}") from error

    def _wanted(self, topic: str) -> bool:
        hidden = any(part.startswith("_") for part in topic.split("/"))
        return topic not in self._exclude and (topic in self._only if self._only else not hidden)

    def _discover(self) -> None:
        for topic, types in self.get_topic_names_and_types():
            if not self._wanted(topic) or topic in self._unknown:
                continue
            if topic not in self._overrides:
                publishers = self.get_publishers_info_by_topic(topic)
                if not publishers:
                    continue
                self._subscribe_to(topic, types[0], adapted([p.qos_profile for p in publishers], DEPTH))
            else:
                self._subscribe_to(topic, types[0], self._overrides[topic])

    def _subscribe_to(self, topic: str, msgtype: str, profile: QoSProfile) -> None:
        """Subscribe, or subscribe again when the publishers' QoS has changed."""
        existing = self._subscriptions_by_topic.get(topic)
        if existing is not None:
            if (existing[1].reliability, existing[1].durability) == (profile.reliability, profile.durability):
                return
            self.destroy_subscription(existing[0])
        message_type = _import_type(msgtype)
        if message_type is None:
            self._unknown.add(topic)
            self.get_logger().warning(f"{topic} is not recorded: its type {msgtype} is not installed here")
            return

        def lost(event: Any) -> None:
            if self.recorder is not None:
                self.recorder.lost_messages[topic] += event.total_count_change

        def take(data: bytes) -> None:
            self._store(topic, data)

        guarded = self.guard(topic, take)
        try:
            subscription = self.create_subscription(
                message_type,
                topic,
                guarded,
                profile,
                raw=True,
                event_callbacks=SubscriptionEventCallbacks(message_lost=lost),
            )
        except UnsupportedEventTypeError:
            subscription = self.create_subscription(message_type, topic, guarded, profile, raw=True)
        self._subscriptions_by_topic[topic] = (subscription, profile, msgtype)

    def _store(self, topic: str, data: bytes) -> None:
        now = self.now_ns()
        # Before activation only latched messages are kept; a simulated clock stands at 0 until its first tick.
        if self.recorder is None or now == 0:
            if is_latched(topic) or (now == 0 and self.recorder is not None):
                self._early.append((topic, data))
            return
        if self._early:
            early, self._early = self._early, []
            for earlier, message in early:
                self._push(earlier, now, message)
        self._push(topic, now, data)

    def _push(self, topic: str, now: int, data: bytes) -> None:
        assert self.recorder is not None
        msgtype = self._subscriptions_by_topic[topic][2]
        if not self.recorder.knows(topic):
            offered = [_to_bag(p.qos_profile) for p in self.get_publishers_info_by_topic(topic)]
            self.recorder.add_topic(topic, msgtype, offered[:1] or [bag_qos(latched=is_latched(topic), depth=100)])
        self.recorder.push(topic, now, data)

    def _drain(self) -> None:
        """Store the messages that have arrived: during a transition the executor's thread takes no messages."""
        for topic, (subscription, _, _) in list(self._subscriptions_by_topic.items()):
            for _ in range(DEPTH):
                taken = subscription.handle.take_message(subscription.msg_type, True)
                if taken is None:
                    break
                self._store(topic, taken[0])

    def _drop_subscriptions(self) -> None:
        for subscription, _, _ in self._subscriptions_by_topic.values():
            self.destroy_subscription(subscription)
        self._subscriptions_by_topic.clear()


def describe(summary: RecordingSummary) -> list[str]:
    """A finished recording's contents and losses, as lines for a log."""
    count = sum(summary.messages.values())
    lines = [f"{summary.path}: {count} messages on {len(summary.messages)} topics, {summary.seconds:.1f} s"]
    for what, by_topic in (
        ("audio samples lost", summary.lost_samples),
        ("turns skipped", summary.lost_turns),
        ("messages lost by the middleware", summary.lost_messages),
    ):
        lines += [f"{topic}: {number} {what}" for topic, number in by_topic.items()]
    if summary.overflowed:
        lines.append(f"{summary.overflowed} messages dropped: the disk was too slow for the cache")
    return lines if len(lines) > 1 else [f"{lines[0]}, nothing lost"]


def _profile(*, latched: bool) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=DEPTH,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _to_bag(profile: QoSProfile) -> BagQos:
    return bag_qos(
        latched=profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
        # Fast DDS does not report a remote publisher's depth; a player cannot use 0.
        depth=profile.depth or 100,
        reliable=profile.reliability != ReliabilityPolicy.BEST_EFFORT,
    )


def _import_type(msgtype: str) -> type | None:
    package, _, name = msgtype.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None


def _read_profiles(path: str) -> dict[str, QoSProfile]:
    """QoS by topic from a YAML file in rosbag2's format.

    :raises UserError: when the file cannot be read or an entry is invalid.
    """
    file = Path(path) if path else share("config", "recording_qos.yaml")
    entries = read_yaml(file, "QoS file") or {}
    try:
        return {
            str(topic): QoSProfile(
                history=HistoryPolicy[str(entry.get("history", "keep_last")).upper()],
                depth=int(entry.get("depth", DEPTH)),
                reliability=ReliabilityPolicy[str(entry.get("reliability", "reliable")).upper()],
                durability=DurabilityPolicy[str(entry.get("durability", "volatile")).upper()],
            )
            for topic, entry in entries.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, InvalidQoSProfileException) as error:
        raise UserError(f"QoS file {file} is invalid: {' '.join(str(error).split())}") from error


def main() -> int:
    """Executable `recorder`."""
    return run(Recorder)


if __name__ == "__main__":
    raise SystemExit(main())
