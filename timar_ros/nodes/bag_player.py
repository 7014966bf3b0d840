"""Node `bag_player`: a bag's audio and user motion as a live source, at any speed, with the bag's own time on /clock.

Time is driven by the stamps: the clock shows a chunk's end when the chunk is published. And it waits for the nodes:
never more than `turns_ahead` turns are played beyond the last answered one, so that a machine too slow for the speed
plays more slowly instead of losing chunks or turns. So the nodes do the same at half the pace, at four times it, or
(speed 0) as fast as they answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timar_ros.data.bag_foreign import AudioEvent, Event, Inputs, read_mapping
from timar_ros.data.bags import BagReader
from timar_ros.data.recording import find_bag
from timar_ros.errors import UserError
from timar_ros.nodes.base import OK, WARN, Diagnosis, Parameter
from timar_ros.nodes.messages import MessageError
from timar_ros.nodes.paced_source import PACING, PacedSource
from timar_ros.nodes.pacing import Playing
from timar_ros.nodes.process import run
from timar_ros.streaming.resampling import audio_context

TICK_NS = 20_000_000
"""The clock goes on at least in such steps."""

TAIL_SECONDS = 60.0
"""So long [s] the clock runs on after the end at most, for what is still delayed."""


class BagPlayer(PacedSource):
    """Every activation plays the bag from its beginning."""

    LISTENERS = 1

    PARAMETERS = (
        Parameter("path", "", "bag to play: a folder, an .mcap or a .db3; also one that was cut off"),
        Parameter("mapping", "", "YAML that says which topics of a foreign bag are what (docs/bags.md)"),
        *PACING,
    )

    def __init__(self, **options: Any) -> None:
        super().__init__("bag_player", **options)

    def configure(self) -> None:
        """Look at the bag, say what is in it and what is missing."""
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
            self._length = bag.seconds
        self.open_outputs(clock=True)
        self.await_answers()

    def activate(self) -> None:
        """Start to play."""
        self._patient = True
        super().activate()

    def diagnose(self) -> Diagnosis:
        """How far it is."""
        rows = {"position [s]": f"{self._position:.2f}", "length [s]": f"{self._length:.2f}"}
        if self.finished.is_set():
            return OK, "finished", rows
        return (OK, "playing", rows) if self._patient else (WARN, "nobody answers", rows)

    def play(self, playing: Playing) -> None:
        """Let the bag's time pass, and publish what lies in it."""
        self._begun = time.monotonic()
        self._now = self._origin
        self.tick(self._origin)
        try:
            with BagReader(self._path) as bag:
                for at, event in _timed(Inputs(bag, self._mapping).events(), self._origin):
                    if not self._reach(playing, at, _beyond(event)):
                        return
                    self.publish(event)
        except (UserError, MessageError) as error:
            # The bag was looked at before: only a torn or foreign message in its middle comes here.
            self.get_logger().error(f"the bag ends early: {error}")
        self.finished.set()
        self.get_logger().info(f"finished: {self._position:.1f} s played")
        # Before the clock runs on, the last turn is to be answered.
        self._await_answers(playing, self._position - self._turn_duration)
        ends = self._now + round(TAIL_SECONDS * 1e9)
        while self._now < ends and self._reach(playing, self._now + TICK_NS, None):
            pass

    def _reach(self, playing: Playing, at: int, beyond: float | None) -> bool:
        """Let time pass until ``at`` [ns], with the clock ticking; False when told to stop.

        :param beyond: what must come after a turn's end until it can be answered [s]; None: wait for no answer.
        """
        while self._now < at:
            step = min(at, self._now + TICK_NS)
            if not self._wait(playing, step, beyond):
                return False
            self._now = step
            self._position = (step - self._origin) * 1e-9
            self.tick(step)
        return not playing.stopped

    def _wait(self, playing: Playing, at: int, beyond: float | None) -> bool:
        seconds = (at - self._origin) * 1e-9
        rate = float(self.value("speed"))
        if beyond is not None:
            began = time.monotonic()
            ahead = int(self.value("turns_ahead")) * self._turn_duration
            self._await_answers(playing, seconds - beyond - ahead)
            # What was waited is not caught up with.
            self._begun += time.monotonic() - began
        # At speed 0 only the tail is paced, at five times life's speed.
        unpaced = 0.0 if beyond is not None else TICK_NS * 1e-9 / 5
        ahead = self._begun + seconds / rate - time.monotonic() if rate > 0.0 else unpaced
        return not (playing.sleep(ahead) if ahead > 0.0 else playing.stopped)

    def _await_answers(self, playing: Playing, seconds: float) -> None:
        """Wait until all turns that end by then [s of the conversation] are answered, if anybody answers at all."""
        if not self._patient or not self.count_publishers(self.resolve_topic_name("agent/motion")):
            return
        turns = math.ceil(seconds / self._turn_duration - 1e-9)
        if not playing.wait_for(lambda: playing.answered >= turns, float(self.value("answer_timeout"))):
            self._patient = False
            self.get_logger().warning(f"turn {playing.answered} was not answered: playing on without waiting")


def _timed(events: Iterator[Event], start: int) -> Iterator[tuple[int, Event]]:
    """Events with the time at which they could be known at the earliest: audio at its end, motion when it was seen."""
    now = start
    for event in events:
        known = event.stamp_ns
        if isinstance(event, AudioEvent) and event.rate > 0:
            known += len(event.samples) * 1_000_000_000 // event.rate
            if event.role == "agent":
                # A robot knows its own speech ahead of time, and the bag tells how much.
                known = min(known, event.arrived_ns)
        # Stamps of a stray clock must not stop the time, nor throw it hours ahead.
        if now < known <= now + 60_000_000_000:
            now = known
        yield now, event


def _beyond(event: Event) -> float:
    """What must come after a turn's last sample until the turn can be closed [s]."""
    if isinstance(event, AudioEvent):
        return len(event.samples) / event.rate + audio_context(event.rate) / event.rate + TICK_NS * 1e-9
    return 2.0 / event.rate


def main() -> int:
    """Executable `bag_player`."""
    return run(BagPlayer)


if __name__ == "__main__":
    raise SystemExit(main())
