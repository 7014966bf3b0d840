"""Recording a running system into a bag: a cache, a writer thread, and counts of losses."""

from __future__ import annotations

import dataclasses
import json
import queue
import threading
from collections import Counter
from collections.abc import Collection
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from rosbags.interfaces import Qos as BagQos
from rosbags.serde import SerdeError

from timar_ros.bags.bag_files import BagWriter
from timar_ros.bags.bag_types import typestore
from timar_ros.errors import UserError


class LossCounter:
    """Finds lost data from the counts in our messages."""

    def __init__(self) -> None:
        self.samples: Counter[str] = Counter()
        """Audio samples (per channel) missing between chunks, by topic."""
        self.turns: Counter[str] = Counter()
        """Skipped turn numbers, by topic (including turns that inference dropped)."""
        self._next_sample: dict[tuple[str, int], int] = {}
        self._next_turn: dict[str, int] = {}

    def watch(self, topic: str, msgtype: str, cdr: bytes) -> None:
        """Check a message of any type; types without a count are ignored."""
        if msgtype == "timar_ros/msg/AudioChunk":
            message: Any = typestore().deserialize_cdr(cdr, msgtype)
            key, index = (topic, int(message.stream_id)), int(message.sample_index)
            expected = self._next_sample.get(key, index)
            self.samples[topic] += max(0, index - expected)
            self._next_sample[key] = max(expected, index + len(message.data) // max(1, int(message.channels)))
        elif msgtype == "timar_ros/msg/Turn":
            self._turn(topic, int(typestore().deserialize_cdr(cdr, msgtype).number))
        elif msgtype == "timar_ros/msg/FlameMotion":
            # A tracker's frames belong to no turn: their number is always 0, without gaps.
            self._turn(topic, int(typestore().deserialize_cdr(cdr, msgtype).turn))

    def _turn(self, topic: str, number: int) -> None:
        expected = self._next_turn.get(topic, number)
        self.turns[topic] += max(0, number - expected)
        # A restarted count (the nodes were reset) is no loss.
        self._next_turn[topic] = number + 1


@dataclasses.dataclass(frozen=True)
class RecordingSummary:
    """Contents and losses of a recording."""

    path: Path
    messages: dict[str, int]
    seconds: float
    lost_samples: dict[str, int]
    lost_turns: dict[str, int]
    lost_messages: dict[str, int]
    overflowed: int

    @property
    def complete(self) -> bool:
        """Whether no loss is known."""
        return not (self.lost_samples or self.lost_turns or self.lost_messages or self.overflowed)


class BagRecorder:
    """Takes messages from any thread and writes them in its own thread, so that a slow disk stalls no callback.

    :param cache_bytes: most bytes waiting to be written; further messages are dropped and counted.
    :raises UserError: when the bag cannot be made.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        storage: Literal["mcap", "sqlite3"] = "mcap",
        compress: bool = False,
        cache_bytes: int = 100_000_000,
    ) -> None:
        self.losses = LossCounter()
        self.lost_messages: Counter[str] = Counter()
        """Messages that the middleware reported as lost, by topic."""
        self.overflowed = 0
        self.received = 0
        self._types: dict[str, str] = {}
        self._cache_bytes = cache_bytes
        self._waiting = 0
        self._first_ns = 2**63 - 1
        self._last_ns = 0
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[str, int, bytes] | tuple[str, Collection[BagQos] | None] | None] = (
            queue.SimpleQueue()
        )
        self._failure: Exception | None = None
        self._summary: RecordingSummary | None = None
        opening: Future[None] = Future()

        def work() -> None:
            # Open the bag in the writer thread: an sqlite connection belongs to its creating thread.
            try:
                self._bag = BagWriter(path, storage=storage, compress=compress, flush_seconds=0.9)
            except Exception as error:  # raised again in the thread that waits
                opening.set_exception(error)
            else:
                opening.set_result(None)
                self._write()

        self._thread = threading.Thread(target=work, name="bag writer", daemon=True)
        self._thread.start()
        opening.result()

    def add_topic(self, topic: str, msgtype: str, qos: Collection[BagQos] | None = None) -> None:
        """Announce a topic, before its first message."""
        if topic not in self._types:
            self._types[topic] = msgtype
            self._queue.put((topic, qos))

    def knows(self, topic: str) -> bool:
        """Whether the topic was announced."""
        return topic in self._types

    def push(self, topic: str, stamp_ns: int, cdr: bytes) -> bool:
        """Hand over a message with its time of arrival [ns]; False when a full cache dropped it."""
        with self._lock:
            self.received += 1
            if self._waiting + len(cdr) > self._cache_bytes:
                self.overflowed += 1
                return False
            self._waiting += len(cdr)
        self._queue.put((topic, stamp_ns, cdr))
        return True

    @property
    def failure(self) -> Exception | None:
        """The error that stopped the writer (a full disk); None without an error."""
        return self._failure

    def stop(self) -> RecordingSummary:
        """Write waiting messages, close the bag, and return its summary. A second call returns the same.

        :raises UserError: when writing failed.
        """
        if self._summary is None:
            self._queue.put(None)
            self._thread.join()
            if self._failure is not None:
                raise UserError(f"writing the bag {self._bag.path} failed: {self._failure}") from self._failure
            self._summary = self._account()
        return self._summary

    def _write(self) -> None:
        try:
            while True:
                try:
                    item = self._queue.get(timeout=0.3)
                except queue.Empty:
                    self._bag.flush_if_due()
                    continue
                if item is None:
                    break
                if len(item) == 2:
                    self._bag.add_topic(item[0], self._types[item[0]], item[1])
                else:
                    self._store(*item)
            self._note()
            self._bag.close()
        except Exception as error:  # stop() raises it; this thread cannot report it otherwise
            self._failure = error

    def _store(self, topic: str, stamp_ns: int, cdr: bytes) -> None:
        with self._lock:
            self._waiting -= len(cdr)
        self._bag.write_raw(topic, stamp_ns, cdr)
        self._first_ns = min(self._first_ns, stamp_ns)
        self._last_ns = max(self._last_ns, stamp_ns)
        try:
            self.losses.watch(topic, self._types[topic], cdr)
        except (SerdeError, ValueError):
            # A message of an older definition: store it unchanged; only its count is unreadable.
            self.losses.samples[topic] += 0

    def _account(self) -> RecordingSummary:
        return RecordingSummary(
            path=self._bag.path,
            messages=dict(self._bag.counts),
            seconds=max(0, self._last_ns - self._first_ns) * 1e-9,
            lost_samples={k: v for k, v in self.losses.samples.items() if v},
            lost_turns={k: v for k, v in self.losses.turns.items() if v},
            lost_messages={k: v for k, v in self.lost_messages.items() if v},
            overflowed=self.overflowed,
        )

    def _note(self) -> None:
        """Store the losses in the bag's metadata."""
        account = dataclasses.asdict(self._account())
        for key in ("lost_samples", "lost_turns", "lost_messages", "overflowed"):
            self._bag.note(f"timar_{key}", json.dumps(account[key]))
