"""Node `audio_sink`: gives out the agent's audio when its motion is shown, to a loudspeaker and to a file.

The motion for time t is shown at t + playback_delay, so the audio of time t is published then, stamped so. In rolling
mode each stream of the agent's audio has a delay of its own, which the segmenter tells.
"""

from __future__ import annotations

import heapq
import time
from pathlib import Path
from typing import Any

from std_msgs.msg import Header

from timar_ros.live.devices import find_device
from timar_ros.msg import AudioChunk, StreamInfo, VoiceTiming
from timar_ros.nodes import qos
from timar_ros.nodes.base import OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.nodes.loudspeaker import Loudspeaker
from timar_ros.nodes.messages import Audio, audio, audio_message, to_ns
from timar_ros.nodes.process import run
from timar_ros.nodes.sound_file import SoundFile

MAX_HELD_NS = 30_000_000_000
"""Audio held back at most: without it a missing `stream_info` would fill the memory."""

PATIENCE = 0.15
"""How long [s] a chunk waits for its stream's delay; after that the stream is heard late, as one that is not ahead."""

MOST_STREAMS = 32
"""Streams whose delay is remembered."""


PERIOD = 0.02
"""How often it looks whether audio is due [s]."""

LATE_NS = 10_000_000
"""A chunk so much after its time is an underrun [ns]."""


class AudioSink(ManagedNode):
    """Delays and gives out one speaker's audio."""

    PARAMETERS = (
        Parameter("playback_delay", -1.0, "delay of the audio [s]; negative: what stream_info says", -1.0, 60.0),
        Parameter("file", "", "file (.wav or .flac) that the audio is written to; empty: none"),
        Parameter("device", "", "loudspeaker that the audio is played on: name, number or 'default'; empty: none"),
        Parameter("device_rate", 0, "rate to open the loudspeaker with [Hz]; 0: its own", 0, 384_000),
    )  # fmt: skip

    _file: SoundFile | None = None
    _loudspeaker: Loudspeaker | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__("audio_sink", **options)
        self._delay_ns: int | None = None

    def configure(self) -> None:
        """Learn the delay, open the ways in and out."""
        if self.value("device"):
            find_device(self.value("device"), "output")
        given = float(self.value("playback_delay"))
        self._delay_ns = None if given < 0.0 else round(given * 1e9)
        self._held: list[tuple[int, int, Audio]] = []
        self._count = 0
        self._next_index: dict[int, int] = {}
        self._output = self.publish_on(AudioChunk, "agent/audio_out", qos.audio())
        self._cancelled_ns = 0
        self._rolling = False
        self._delays: dict[int, int] = {}  # of streams, rolling mode [ns]
        self._untold: list[tuple[float, Audio]] = []  # chunks of streams without one, with their time of arrival
        self.subscribe(VoiceTiming, "agent/voice_timing", self._take_timing, qos.commands(), optional=True)
        self.subscribe(AudioChunk, "agent/audio", self._take, qos.audio())
        self.subscribe(Header, "cancel", self._cancel, qos.commands(), optional=True)
        if self._delay_ns is None:
            self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)
        self.every(PERIOD, self._give_out)
        for what in ("underruns", "samples lost", "chunks dropped"):
            self.statistics.count(what, 0)

    def activate(self) -> None:
        """Begin a new file, open the loudspeaker."""
        if self.value("device"):
            self._loudspeaker = Loudspeaker(self, self.value("device"), self.value("device_rate"))
        if self.value("file"):
            self._file = SoundFile(Path(self.value("file")))

    def deactivate(self) -> None:
        """Close the file; what is still held back is not for anybody's ears any more."""
        self._held.clear()
        self._untold.clear()
        self._next_index.clear()
        if self._loudspeaker is not None:
            self._loudspeaker.close()
            self._loudspeaker = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def diagnose(self) -> Diagnosis:
        """Underruns and what is held back."""
        rows = {
            "held back [chunks]": str(len(self._held)),
            "playback_delay [s]": "unknown" if self._delay_ns is None else f"{self._delay_ns / 1e9:.3f}",
        }
        if self._loudspeaker is not None:
            rows.update(self._loudspeaker.rows())
        if self._delay_ns is None:
            return WARN, "waiting for stream_info", rows
        if self._loudspeaker is not None and not self._loudspeaker.present:
            return WARN, f"the loudspeaker {self.value('device')} is gone", rows
        news = {what: self.statistics.grown(what) for what in ("underruns", "samples lost", "chunks dropped")}
        if news["underruns"]:
            return WARN, "audio came too late", rows
        if news["samples lost"] or news["chunks dropped"]:
            return WARN, "audio was lost", rows
        return OK, "playing", rows

    def _take_info(self, message: StreamInfo) -> None:
        self._delay_ns = round(float(message.playback_delay) * 1e9)
        self._rolling = message.mode == "rolling"

    def _take_timing(self, message: VoiceTiming) -> None:
        """Rolling mode: how late a stream is heard; what waited for this goes on its way."""
        self._delays.pop(message.stream_id, None)
        self._delays[message.stream_id] = round(float(message.delay) * 1e9)
        while len(self._delays) > MOST_STREAMS:
            del self._delays[next(iter(self._delays))]
        waiting, self._untold = self._untold, []
        for arrived, chunk in waiting:
            self._hold(chunk, arrived)

    def _delay_of(self, chunk: Audio) -> int | None:
        """How late a chunk is heard [ns]; None while nobody has told."""
        if not self._rolling:
            return self._delay_ns
        return self._delays.get(chunk.stream_id)

    def _take(self, message: AudioChunk) -> None:
        chunk = audio(message)
        if chunk.stamp_ns < self._cancelled_ns:  # on its way when the agent was interrupted
            self.statistics.count("chunks cancelled")
            return
        self._hold(chunk, time.monotonic())

    def _hold(self, chunk: Audio, arrived: float) -> None:
        """Keep a chunk until its time."""
        delay_ns = self._delay_of(chunk)
        if delay_ns is None and self._rolling:
            self._untold.append((arrived, chunk))
            return
        self._count += 1
        # One delay for all may still be unknown here; a stream's own is known, and streams then overtake each other.
        own_ns = delay_ns or 0 if self._rolling else 0
        heapq.heappush(self._held, (chunk.stamp_ns + own_ns, self._count, chunk))
        while chunk.stamp_ns - self._held[0][2].stamp_ns > MAX_HELD_NS:
            heapq.heappop(self._held)
            self.statistics.count("chunks dropped")
        if delay_ns is not None:
            length_ns = round(len(chunk.samples) * 1e9 / chunk.rate)
            overdue = self.now_ns() - (chunk.stamp_ns + delay_ns + length_ns)
            if overdue > LATE_NS:
                self.statistics.count("underruns")
            if self._loudspeaker is not None:
                # All at once: the sound card's clock says when it is due, far better than a timer here could.
                self._loudspeaker.add(chunk.stamp_ns + delay_ns, chunk.rate, chunk.samples.mean(axis=1))
            self._give_out()

    def _cancel(self, message: Header) -> None:
        """The agent was interrupted: fall silent, and take up again what it says from now on."""
        self._cancelled_ns = to_ns(message.stamp)
        self.statistics.count("chunks cancelled", len(self._held))
        self._held.clear()
        self._untold.clear()
        self._next_index.clear()
        if self._loudspeaker is not None:
            self._loudspeaker.cancel()

    def _give_out(self) -> None:
        if self._delay_ns is None:
            return
        while self._untold and time.monotonic() - self._untold[0][0] > PATIENCE:
            # Nobody tells: no segmenter runs, or its word was lost.
            chunk = self._untold[0][1]
            self._take_timing(VoiceTiming(stream_id=chunk.stream_id, delay=self._delay_ns / 1e9))
        # Half a period early rather than up to a whole one late.
        due = self.now_ns() + round(PERIOD * 5e8) - (0 if self._rolling else self._delay_ns)
        while self._held and self._held[0][0] <= due:
            self._send(heapq.heappop(self._held)[2])

    def _send(self, chunk: Audio) -> None:
        delay_ns = self._delay_of(chunk)
        assert delay_ns is not None
        expected = self._next_index.get(chunk.stream_id, chunk.sample_index)
        lost = chunk.sample_index - expected
        if lost < 0:
            self.statistics.count("duplicates")
            return
        self.statistics.count("samples lost", lost)
        self._next_index = {chunk.stream_id: chunk.sample_index + len(chunk.samples)}
        self._output.publish(
            audio_message(
                chunk.stamp_ns + delay_ns,
                chunk.sample_index,
                chunk.rate,
                chunk.samples if chunk.samples.shape[1] > 1 else chunk.samples[:, 0],
                stream_id=chunk.stream_id,
                end=chunk.end,
            )
        )
        self.statistics.tick("agent/audio_out")
        if self._file is not None:
            self._file.write(chunk.samples.mean(axis=1), chunk.rate, lost)


def main() -> int:
    """Executable `audio_sink`."""
    return run(AudioSink)


if __name__ == "__main__":
    raise SystemExit(main())
