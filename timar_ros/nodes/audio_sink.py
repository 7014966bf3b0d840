"""Node `audio_sink`: delays the agent's audio until its motion is shown; writes to a topic, a loudspeaker and a file.

The robot shows the motion for time t at t + playback_delay, so this node publishes the audio of time t then, with that
stamp. In rolling mode each stream of the agent's audio has its own delay, which the segmenter publishes.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from pathlib import Path
from typing import Any

from std_msgs.msg import Header

from timar_ros.audio.devices import find_device
from timar_ros.audio.sound_file import SoundFile
from timar_ros.msg import AudioChunk, StreamInfo, VoiceTiming
from timar_ros.node_parts.loudspeaker import Loudspeaker
from timar_ros.ros import qos
from timar_ros.ros.base import ERROR, OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.messages import Audio, MessageError, audio, audio_message, to_ns
from timar_ros.ros.node_process import run
from timar_ros.streaming.clock_steps import MOST_AHEAD, spoken
from timar_ros.streaming.interruption import Interruption

MAX_HELD_NS = 30_000_000_000
"""Largest amount of waiting audio: without a limit a missing `stream_info` would fill the memory."""

LARGEST_WAIT_NS = MOST_AHEAD + 60_000_000_000
"""A chunk waits at most this long: the most that speech can be ahead, plus the largest delay."""

PATIENCE = 0.15
"""How long [s] a chunk waits for its stream's delay; then the node plays the stream as one that is not ahead."""

MOST_STREAMS = 32
"""Streams whose delay the node keeps."""


PERIOD = 0.02
"""How often the node checks whether audio is due [s]."""

LATE_NS = 10_000_000
"""A chunk that arrives this long after its time is an underrun [ns]."""


class AudioSink(ManagedNode):
    """Delays and publishes one speaker's audio."""

    PARAMETERS = (
        Parameter("playback_delay", -1.0, "delay of the audio [s]; negative: the delay of stream_info", -1.0, 60.0),
        Parameter("file", "", "audio file (.wav or .flac) to write; empty: none"),
        Parameter("device", "", "loudspeaker that plays the audio: name, number or 'default'; empty: none"),
        Parameter("device_rate", 0, "rate to open the loudspeaker with [Hz]; 0: its own", 0, 384_000),
    )  # fmt: skip

    _file: SoundFile | None = None
    _file_fault: str | None = None
    _loudspeaker: Loudspeaker | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__("audio_sink", **options)
        self._delay_ns: int | None = None

    def configure(self) -> None:
        """Read the delay, create publishers and subscriptions."""
        if self.value("device"):
            find_device(self.value("device"), "output")
        delay = float(self.value("playback_delay"))
        self._delay_ns = None if delay < 0.0 else round(delay * 1e9)
        self._held: list[tuple[int, int, Audio]] = []
        self._count = 0
        self._next_index: dict[int, int] = {}
        self._output = self.publish_on(AudioChunk, "agent/audio_out", qos.audio())
        self._interruption = Interruption()
        self._rolling = False
        self._delays: dict[int, int] = {}  # each stream's delay in rolling mode [ns]
        self._undelayed: list[tuple[float, Audio]] = []  # (time of arrival, chunk) of streams without a known delay
        self.subscribe(VoiceTiming, "agent/voice_timing", self._take_timing, qos.commands(), optional=True)
        self.subscribe(AudioChunk, "agent/audio", self._take, qos.audio())
        self.subscribe(Header, "cancel", self._cancel, qos.commands(), optional=True)
        if self._delay_ns is None:
            self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)
        self.every(PERIOD, self._publish_due)
        for what in ("underruns", "samples lost", "chunks dropped"):
            self.statistics.count(what, 0)

    def activate(self) -> None:
        """Open the file and the loudspeaker."""
        if self.value("device"):
            self._loudspeaker = Loudspeaker(self, self.value("device"), self.value("device_rate"))
        self._file_fault = None
        if self.value("file"):
            self._file = SoundFile(Path(self.value("file")))

    def deactivate(self) -> None:
        """Close the file and the loudspeaker; drop waiting audio."""
        self._held.clear()
        self._undelayed.clear()
        self._next_index.clear()
        if self._loudspeaker is not None:
            self._loudspeaker.close()
            self._loudspeaker = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def diagnose(self) -> Diagnosis:
        """Report underruns, losses and waiting audio."""
        rows = {
            "held back [chunks]": str(len(self._held)),
            "playback_delay [s]": "unknown" if self._delay_ns is None else f"{self._delay_ns / 1e9:.3f}",
        }
        if self._loudspeaker is not None:
            rows.update(self._loudspeaker.rows())
        if self._file_fault is not None:
            return ERROR, self._file_fault, rows
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
        self._delay_ns = round(float(message.playback_delay) * 1e9)  # 0 to 60 s: `subscribe` checks the message
        self._rolling = message.mode == "rolling"

    def _take_timing(self, message: VoiceTiming) -> None:
        """Rolling mode: store a stream's delay, and hold its waiting chunks until they are due."""
        self._delays.pop(message.stream_id, None)
        self._delays[message.stream_id] = round(float(message.delay) * 1e9)
        while len(self._delays) > MOST_STREAMS:
            del self._delays[next(iter(self._delays))]
        waiting, self._undelayed = self._undelayed, []
        for arrived, chunk in waiting:
            self._hold(chunk, arrived)

    def _delay_of(self, chunk: Audio) -> int | None:
        """The delay of a chunk [ns]; None while it is unknown."""
        if not self._rolling:
            return self._delay_ns
        return self._delays.get(chunk.stream_id)

    def _take(self, message: AudioChunk) -> None:
        chunk = audio(message)
        now = self.now_ns()
        if now > 0 and chunk.stamp_ns - now > MOST_AHEAD:
            raise MessageError(f"header.stamp lies {spoken(chunk.stamp_ns - now)} of this node's clock: not played")
        if self._interruption.covers(chunk, now):
            self.statistics.count("chunks cancelled")
            return
        self._hold(chunk, time.monotonic())

    def _hold(self, chunk: Audio, arrived: float) -> None:
        """Keep a chunk until it is due."""
        delay_ns = self._delay_of(chunk)
        if delay_ns is None and self._rolling:
            self._undelayed.append((arrived, chunk))
            return
        self._count += 1
        # The common delay may be unknown here; a stream's own delay is known, and streams then overtake each other.
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
                # The whole chunk at once: the sound card's clock is far more exact than a timer of this node.
                self._loudspeaker.add(chunk.stamp_ns + delay_ns, chunk.rate, chunk.samples.mean(axis=1))
            self._publish_due()

    def _cancel(self, message: Header) -> None:
        """The agent was interrupted: drop all audio from before the interruption."""
        self._interruption.begin(to_ns(message.stamp))
        self.statistics.count("chunks cancelled", len(self._held))
        self._held.clear()
        self._undelayed.clear()
        self._next_index.clear()
        if self._loudspeaker is not None:
            self._loudspeaker.cancel()

    def _publish_due(self) -> None:
        if self._delay_ns is None:
            return
        while self._undelayed and time.monotonic() - self._undelayed[0][0] > PATIENCE:
            # No delay came: no segmenter runs, or its message was lost.
            chunk = self._undelayed[0][1]
            self._take_timing(VoiceTiming(stream_id=chunk.stream_id, delay=self._delay_ns / 1e9))
        # Half a period early is better than up to a whole period late.
        due = self.now_ns() + round(PERIOD * 5e8) - (0 if self._rolling else self._delay_ns)
        while self._held and self._held[0][0] <= due:
            self._publish(heapq.heappop(self._held)[2])
        if self._held and self.now_ns() > 0 and self._held[0][0] - due > LARGEST_WAIT_NS:
            # The clock was set back: the waiting audio would be played hours later.
            self.statistics.count("chunks dropped", len(self._held))
            self._held.clear()
            self._next_index.clear()

    def _publish(self, chunk: Audio) -> None:
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
            self._write(self._file, chunk, lost)

    def _write(self, file: SoundFile, chunk: Audio, lost: int) -> None:
        """Append to the file; a full disk ends the file, but not the sound."""
        try:
            file.write(chunk.samples.mean(axis=1), chunk.rate, lost)
        except Exception as error:
            self._file, self._file_fault = None, f"{self.value('file')} ends early: {error}"
            self.note_fault("file", error)
            with contextlib.suppress(OSError, RuntimeError):
                file.close()


def main() -> int:
    """Executable `audio_sink`."""
    return run(AudioSink)


if __name__ == "__main__":
    raise SystemExit(main())
