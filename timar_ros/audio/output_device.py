"""A loudspeaker that plays samples at their stamps."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from timar_ros.audio.devices import INSTALL, find_device, portaudio
from timar_ros.audio.reopening import Reopening
from timar_ros.audio.timing import SampleClock
from timar_ros.errors import UserError, require

Samples = npt.NDArray[np.float32]

# The player corrects a larger error by one jump with a short fade instead of minutes of resampling.
JUMP_SECONDS = 0.04
# Largest change of pitch to catch up: 0.5 % is a tenth of a semitone.
MAX_CORRECTION = 0.005
FADE_SECONDS = 0.005
# A loudspeaker counts as removed when it takes no samples for this long.
STALL_SECONDS = 1.0


class Timeline:
    """Stamped samples that wait for playing; thread-safe, holds at most ``seconds``."""

    def __init__(self, rate: int, seconds: float = 30.0) -> None:
        self.rate = rate
        self.dropped_samples = 0
        self._limit = round(rate * seconds)
        self._pieces: deque[tuple[int, Samples]] = deque()
        self._held = 0
        self._lock = threading.Lock()

    def add(self, stamp_ns: int, samples: Samples) -> None:
        """Append samples [n], the first to be played at ``stamp_ns``; stamps must ascend."""
        with self._lock:
            self._pieces.append((stamp_ns, np.ascontiguousarray(samples, np.float32)))
            self._held += len(samples)
            while self._held > self._limit and len(self._pieces) > 1:
                lost = len(self._pieces.popleft()[1])
                self._held -= lost
                self.dropped_samples += lost

    def clear(self) -> None:
        """Drop samples that were not played yet (the agent was interrupted)."""
        with self._lock:
            self._pieces.clear()
            self._held = 0

    def take(self, start_ns: float, count: int) -> tuple[Samples, int]:
        """The ``count`` samples from ``start_ns`` on, with silence for missing ones, and the number of present ones.

        Drops samples before ``start_ns``. Joins pieces without a gap that follow each other within half a millisecond:
        their stamps contain the sender's jitter.
        """
        out = np.zeros(count, np.float32)
        known = 0
        tolerance = self.rate // 2000
        with self._lock:
            cursor = 0
            while self._pieces and cursor < count:
                stamp, samples = self._pieces[0]
                offset = round((stamp - start_ns) * 1e-9 * self.rate)
                if abs(offset - cursor) <= tolerance:
                    offset = cursor
                if offset >= count:
                    break
                if offset < cursor:
                    skip = cursor - offset
                    self._held -= min(skip, len(samples))
                    if skip >= len(samples):
                        self._pieces.popleft()
                        continue
                    samples, offset = samples[skip:], cursor
                used = min(len(samples), count - offset)
                out[offset : offset + used] = samples[:used]
                known += used
                cursor = offset + used
                self._held -= used
                if used == len(samples):
                    self._pieces.popleft()
                else:
                    # The rest starts at the end of this block, so that rounding errors do not add up.
                    self._pieces[0] = (round(start_ns + cursor / self.rate * 1e9), samples[used:])
        return out, known


@dataclass
class PlaybackCounters:
    """Counters of playing, and its timing error."""

    played_samples: int = 0
    silent_samples: int = 0
    underflows: int = 0
    jumps: int = 0
    reopened: int = 0
    error_s: float = 0.0
    max_error_s: float = 0.0


class Follower:
    """Converts the timeline to a device's blocks; resamples so that samples play at their stamps on the device's clock.

    Pure signal processing (no device), so that tests can simulate clocks.

    :param timeline: samples to play, at the source's rate.
    :param rate: the device's nominal sample rate [Hz].
    """

    def __init__(self, timeline: Timeline, rate: int) -> None:
        samplerate = require("samplerate", INSTALL, "playing audio")
        self.timeline = timeline
        self.rate = rate
        self.counters = PlaybackCounters()
        self._new_resampler: Callable[[], Any] = lambda: samplerate.Resampler("sinc_fastest", channels=1)
        self._resampler = self._new_resampler()
        self._playhead_ns: float | None = None  # stamp of the next sample to take from the timeline
        self._ready = np.zeros(0, np.float32)  # resampled samples, not yet returned
        self._samples_in = 0.0  # samples that went into the resampler ...
        self._samples_out = 0.0  # ... and samples that came out of it, in source samples
        self._fade_in = True

    def block(self, count: int, heard_ns: int) -> Samples:
        """The next ``count`` samples [count] for the device, which plays the first at ``heard_ns``."""
        source = self.timeline.rate
        if self._playhead_ns is None:
            self._restart(heard_ns)
        # The next audible sample on the source's time axis: the taken samples less those inside the resampler.
        waiting = (self._samples_in - self._samples_out) / source + len(self._ready) / self.rate
        error = (self._position() - waiting * 1e9 - heard_ns) * 1e-9  # > 0: playing is ahead of time
        if abs(error) > JUMP_SECONDS:
            self.counters.jumps += 1
            self._restart(heard_ns)
            error = 0.0
        self.counters.error_s = error
        self.counters.max_error_s = max(self.counters.max_error_s, abs(error))
        correction = min(max(error * 0.5, -MAX_CORRECTION), MAX_CORRECTION)
        ratio = self.rate / source * (1.0 + correction)
        rounds = 0
        while len(self._ready) < count:
            need = max(16, int((count - len(self._ready)) / ratio) + 8)
            piece, known = self.timeline.take(self._position(), need)
            self._playhead_ns = self._position() + need / source * 1e9
            self.counters.played_samples += known
            self.counters.silent_samples += need - known
            resampled = np.asarray(self._resampler.process(piece, ratio, end_of_input=False), np.float32)
            self._samples_in += need
            self._samples_out += len(resampled) / ratio
            self._ready = np.concatenate([self._ready, resampled])
            rounds += 1
            if rounds > 100:  # a resampler without output must not block the sound card
                raise RuntimeError("the resampler returns no samples")
        out, self._ready = self._ready[:count], self._ready[count:]
        if self._fade_in:
            fade = min(count, round(self.rate * FADE_SECONDS))
            out = out.copy()
            out[:fade] *= np.linspace(0.0, 1.0, fade, dtype=np.float32)
            self._fade_in = False
        return out

    def _position(self) -> float:
        assert self._playhead_ns is not None
        return self._playhead_ns

    def _restart(self, heard_ns: int) -> None:
        self._resampler = self._new_resampler()
        self._ready = np.zeros(0, np.float32)
        self._samples_in = self._samples_out = 0.0
        self._playhead_ns = float(heard_ns)
        self._fade_in = True


class Speaker(Reopening):
    """Plays a :class:`Timeline` on a sound device; reopens a device that was removed and came back.

    :param timeline: the caller adds stamped samples to it.
    :param device: name, number or empty for the default.
    :param clock: the host's clock [ns], the clock of the stamps.
    :param rate: the rate to open the device with [Hz]; 0: the device's own.
    :param report: called with one line of text when the device is removed or comes back.
    :raises UserError: when the device cannot be opened at the start.

    ``ready`` is set once the device's clock is known; samples with earlier stamps are not played.
    """

    def __init__(
        self,
        timeline: Timeline,
        device: str = "",
        *,
        clock: Callable[[], int] = time.time_ns,
        rate: int = 0,
        report: Callable[[str], None] = print,
    ) -> None:
        super().__init__("loudspeaker", device, STALL_SECONDS, report)
        self.timeline = timeline
        self.latency_s = 0.0
        self.ready = threading.Event()
        self._clock = clock
        self._rate = rate
        self.counters = PlaybackCounters()
        self._begin()

    def _open(self) -> None:
        sd = portaudio()
        found = find_device(self.device, "output")
        rate = self._rate or round(found.default_rate)
        follower = Follower(self.timeline, rate)
        follower.counters = self.counters
        clock = SampleClock(rate)
        position = 0

        def callback(out: npt.NDArray[np.float32], frames: int, when: Any, status: Any) -> None:
            nonlocal position
            self._note_alive()
            # By the driver's clock, read together with the host's clock: the callback's own delay cancels out.
            ahead = when.outputBufferDacTime - self._stream.time if self._stream is not None else -1.0
            if not 0.0 <= ahead < 5.0:
                ahead = self.latency_s
            if status.output_underflow:
                self.counters.underflows += 1
            heard_ns = clock.update(position, self._clock() + round(ahead * 1e9))
            position += frames
            if clock.settled:
                self.ready.set()
            out[:] = follower.block(frames, heard_ns)[:, None] if clock.settled else 0.0

        try:
            stream = sd.OutputStream(
                device=found.index,
                channels=min(2, found.output_channels),
                samplerate=rate,
                dtype="float32",
                latency="low",
                callback=callback,
            )
            self.latency_s = float(stream.latency)
            self._start(stream)
        except sd.PortAudioError as error:
            raise UserError(
                f"loudspeaker '{found.name}' does not open with {rate} Hz ({error}); "
                "give another rate or device ('timar audio devices')"
            ) from error
