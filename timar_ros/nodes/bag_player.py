"""Node `bag_player`: publishes a bag's audio and user motion as a live source, at any speed, with its time on /clock.

The stamps drive the time: when the node publishes a chunk, the clock shows the chunk's end. The node also waits for
answers: it plays at most `turns_ahead` turns beyond the last answered turn, so a machine too slow for the speed plays
more slowly instead of losing chunks or turns. The result is therefore the same at half the speed, at four times the
speed, or (speed 0) as fast as the nodes answer.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timar_ros.bags.bag_files import BagReader
from timar_ros.bags.bag_foreign import AudioEvent, Event, Inputs, read_mapping
from timar_ros.bags.motion_gaps import gap_events
from timar_ros.bags.recording import find_bag
from timar_ros.errors import UserError
from timar_ros.msg import Turn
from timar_ros.node_parts.paced_source import PACING, PacedSource
from timar_ros.node_parts.pacing import Playing
from timar_ros.ros import qos
from timar_ros.ros.base import OK, WARN, Diagnosis, Parameter
from timar_ros.ros.messages import MessageError
from timar_ros.ros.node_process import run
from timar_ros.streaming.resampling import audio_context

TICK_NS = 20_000_000
"""Largest step of the clock."""

EARLY_NS = 1_000_000_000
"""The node publishes speech that was recorded ahead of its time this much earlier still, in real-time steps. Messages
of two topics may overtake each other, more so at a higher speed, and the segmenter must not judge the speech late."""

OVERTAKING_SECONDS = 0.05
"""Wall time between the first piece of an utterance and the next message of the other topic [s]."""

CLOCK_SECONDS = 0.2
"""Wall time for the nodes to receive the clock, before the first speech that is ahead of it [s]."""

LACKING_SECONDS = 5.0
"""A turn that is not cut within this wall time [s] lacks something: the bag lost it, or the bag holds it too late.
Longer than the 3 s after which FastDDS sends a message again."""

MOST_LENT_NS = 600_000_000
"""The clock then goes on by this much at most, until the turn is cut: more than the `max_lateness` of the launch
files (0.5 s), and less than a turn of 1 s."""

TAIL_SECONDS = 60.0
"""The clock runs at most this long [s] after the end, for output that is still delayed."""


class BagPlayer(PacedSource):
    """Every activation plays the bag from its beginning."""

    LISTENERS = 1

    PARAMETERS = (
        Parameter("path", "", "bag to play: a folder, an .mcap or a .db3; a truncated bag plays, too"),
        Parameter("mapping", "", "YAML file that maps a foreign bag's topics to inputs (docs/bags.md)"),
        *PACING,
    )

    def __init__(self, **options: Any) -> None:
        super().__init__("bag_player", **options)

    def configure(self) -> None:
        """Open the bag; log its contents and what is missing."""
        if not self.value("path"):
            raise UserError("parameter 'path' is empty: name the bag to play")
        self._path = find_bag(Path(self.value("path")))
        self._mapping = read_mapping(self.value("mapping")) if self.value("mapping") else None
        with BagReader(self._path) as bag:
            if bag.salvaged:
                self.get_logger().warning(f"the recording was cut off: {bag.salvaged}")
            inputs = Inputs(bag, self._mapping)
            for note in inputs.notes:
                self.get_logger().info(note)
            first = next((event for event in inputs.events() if isinstance(event, AudioEvent)), None)
            if first is None:
                raise UserError(f"{self._path} has no audio")
            self._origin = first.stamp_ns
            self._early = {stream for stream, ahead in inputs.streams_ahead().items() if ahead}
            self._length = bag.seconds
        self.open_outputs(clock=True)
        self.await_answers()
        if self.value("answered_by") != "turns":
            self.subscribe(Turn, "turns", self._take_turn, qos.turns(), optional=True)

    def activate(self) -> None:
        """Start to play."""
        self._patient = True
        self._cut = 0  # how many turns are cut
        super().activate()

    def _take_turn(self, message: Turn) -> None:
        if message.phase == Turn.COMPLETE:
            self._cut = max(self._cut, message.number + 1)

    def diagnose(self) -> Diagnosis:
        """Report the position in the bag."""
        rows = {"position [s]": f"{self._position:.2f}", "length [s]": f"{self._length:.2f}"}
        if self.finished.is_set():
            return OK, "finished", rows
        return (OK, "playing", rows) if self._patient else (WARN, "no node answers the turns", rows)

    def play(self, playing: Playing) -> None:
        """Advance the clock through the bag, and publish each event at its time."""
        self._now = self._origin - (EARLY_NS if self._early else 0)
        self.tick(self._now)
        if self._early and playing.sleep(CLOCK_SECONDS):
            return
        rate = float(self.value("speed"))
        # Wall time at which the first sample is due.
        self._schedule_start = time.monotonic() + ((self._origin - self._now) * 1e-9 / rate if rate > 0.0 else 0.0)
        begun_streams: set[int] = set()
        try:
            with BagReader(self._path) as bag:
                events = _with_gaps(_ordered(Inputs(bag, self._mapping), self._early), Inputs(bag, self._mapping))
                for at, event in _timed(events, self._now):
                    if not self._reach(playing, at, _beyond(event)):
                        return
                    begins = _begins(event, begun_streams)
                    if begins:
                        # Earlier speech must have become turns by now, and later speech must not.
                        self._await_answers(playing, self._position - 2 * self._turn_duration)
                    self.publish(event)
                    if begins and playing.sleep(OVERTAKING_SECONDS):
                        return
        except (UserError, MessageError) as error:
            # `configure` has opened the bag, so the error is a damaged or foreign message in its middle.
            self.get_logger().error(f"the bag ends early: {error}")
        self.finished.set()
        self.get_logger().info(f"finished: {self._position:.1f} s played")
        # The last turn must be answered before the clock runs on.
        self._await_answers(playing, self._position - self._turn_duration)
        ends = self._now + round(TAIL_SECONDS * 1e9)
        while self._now < ends and self._reach(playing, self._now + TICK_NS, None):
            pass

    def _reach(self, playing: Playing, at: int, beyond: float | None) -> bool:
        """Advance the clock until ``at`` [ns]; False when the playing was stopped.

        :param beyond: audio that the nodes need after a turn's end to answer the turn [s]; None: wait for no answer.
        """
        while self._now < at:
            step = min(at, self._now + TICK_NS)
            if not self._wait(playing, step, beyond):
                return False
            if step > self._now:
                self._pass_time(step)
        return not playing.stopped

    def _pass_time(self, to: int) -> None:
        self._now = to
        self._position = (to - self._origin) * 1e-9
        self.tick(to)

    def _wait(self, playing: Playing, at: int, beyond: float | None) -> bool:
        seconds = (at - self._origin) * 1e-9
        rate = float(self.value("speed"))
        if beyond is not None:
            wait_started = time.monotonic()
            ahead = int(self.value("turns_ahead")) * self._turn_duration
            self._await_answers(playing, seconds - beyond - ahead)
            # The time spent waiting shifts the schedule.
            self._schedule_start += time.monotonic() - wait_started
        # At speed 0 only the tail is paced, at five times real time.
        unpaced = 0.0 if beyond is not None else TICK_NS * 1e-9 / 5
        ahead = self._schedule_start + seconds / rate - time.monotonic() if rate > 0.0 else unpaced
        return not (playing.sleep(ahead) if ahead > 0.0 else playing.stopped)

    def _await_answers(self, playing: Playing, seconds: float) -> None:
        """Wait until all turns that end by ``seconds`` (of the conversation) are answered, if a node answers at all."""
        if not self._patient or not self.count_publishers(self.resolve_topic_name("agent/motion")):
            return
        turns = math.ceil(seconds / self._turn_duration - 1e-9)
        deadline = time.monotonic() + float(self.value("answer_timeout"))
        patience, lent = LACKING_SECONDS, 0
        while not playing.wait_for(lambda: playing.answered >= turns, min(patience, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                self._patient = False
                self.get_logger().warning(f"turn {playing.answered} got no answer in time: playing on without waiting")
                return
            patience = LACKING_SECONDS
            waiting = max(self._cut, playing.answered) < turns and self.count_publishers(
                self.resolve_topic_name("turns")
            )
            if waiting and lent < MOST_LENT_NS:
                patience, lent = TICK_NS * 1e-9, lent + TICK_NS
                self._pass_time(self._now + TICK_NS)


def _begins(event: Event, begun_streams: set[int]) -> bool:
    """Whether the event is the first piece of an utterance; adds its stream_id to ``begun``.

    :param begun: the stream_id of utterances that have begun.
    """
    if not isinstance(event, AudioEvent) or event.role != "agent" or event.stream_id in begun_streams:
        return False
    begun_streams.add(event.stream_id)
    return True


def _ordered(inputs: Inputs, ahead: set[int]) -> Iterator[Event]:
    """All events in order of arrival, but speech ahead of its time :data:`EARLY_NS` earlier.

    :param ahead: the stream_id of speech ahead of its time.
    """
    if not ahead:
        return inputs.events()

    def is_ahead(event: Event) -> bool:
        return isinstance(event, AudioEvent) and event.role == "agent" and event.stream_id in ahead

    def earlier() -> Iterator[Event]:
        leads: dict[int, int] = {}
        for event in inputs.events():
            if isinstance(event, AudioEvent) and is_ahead(event):
                lead = leads.setdefault(event.stream_id, event.stamp_ns - event.arrived_ns)
                yield dataclasses.replace(event, arrived_ns=event.stamp_ns - lead - EARLY_NS)

    others = (event for event in inputs.events() if not is_ahead(event))
    return heapq.merge(earlier(), others, key=lambda event: event.arrived_ns)


def _with_gaps(events: Iterator[Event], inputs: Inputs) -> Iterator[Event]:
    """The events and the gaps in the motion, so that no turn waits for frames that the bag lacks.

    The clock stands still until the turn is answered, so the segmenter would otherwise wait for these frames forever.
    The stream tells of no gap after the last event: that turn is never answered.
    """
    waiting: list[Event] = []
    for event in heapq.merge(events, gap_events(inputs), key=lambda event: event.arrived_ns):
        waiting.append(event)
        if isinstance(event, AudioEvent) or len(event.frames):
            yield from waiting
            waiting.clear()


def _timed(events: Iterator[Event], start: int) -> Iterator[tuple[int, Event]]:
    """Events with the earliest time at which a node could know them: the end of audio, the stamp of motion."""
    now = start
    for event in events:
        known = event.stamp_ns
        if isinstance(event, AudioEvent) and event.rate > 0:
            known += len(event.samples) * 1_000_000_000 // event.rate
            if event.role == "agent":
                # A robot knows its own speech ahead of time; the bag's time of arrival shows how much.
                known = min(known, event.arrived_ns)
        # A stray stamp must not stop the time, nor set it hours ahead.
        if now < known <= now + 60_000_000_000:
            now = known
        yield now, event


def _beyond(event: Event) -> float:
    """Length of the input that must follow a turn's last sample before the turn is complete [s]."""
    if isinstance(event, AudioEvent):
        return len(event.samples) / event.rate + audio_context(event.rate) / event.rate + TICK_NS * 1e-9
    return 2.0 / event.rate


def main() -> int:
    """Executable `bag_player`."""
    return run(BagPlayer)


if __name__ == "__main__":
    raise SystemExit(main())
