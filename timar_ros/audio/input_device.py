"""A microphone as stamped blocks of samples."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from timar_ros.audio.devices import find_device, portaudio
from timar_ros.audio.reopening import Reopening
from timar_ros.audio.timing import SampleClock
from timar_ros.errors import UserError

# If the device's time is ahead of its samples by this much in this many blocks in a row, samples were lost.
LEAP_SECONDS = 0.05
LEAP_READINGS = 5


@dataclass(frozen=True)
class Block:
    """Captured samples.

    ``samples`` is float32 [n, channels] in [-1, 1]; ``stamp_ns`` is the host's time of the first sample,
    ``sample_index`` its number since the device was opened (it jumps after an overflow), ``stream_id`` changes with
    every reopening.
    """

    stamp_ns: int
    stream_id: int
    sample_index: int
    rate: int
    samples: npt.NDArray[np.float32]


@dataclass
class CaptureCounters:
    """Faults since the start."""

    overflows: int = 0
    lost_samples: int = 0
    reopened: int = 0
    dropped_blocks: int = 0


class Microphone(Reopening):
    """Reads a device in the background; reopens a device that was removed and came back.

    The time of a sample is the driver's conversion time, smoothed by a :class:`SampleClock`. The time of the callback
    does not matter.

    :param device: name, number or empty for the default (see :func:`find_device`).
    :param rate: sample rate to open the device with [Hz]; 0: the device's own.
    :param channels: channels to open; 0: one, or two if the device refuses one.
    :param block_seconds: length of a block [s].
    :param stall_seconds: a device counts as removed when it delivers nothing for this long [s].
    :param clock: the host's clock [ns], as in ROS stamps.
    :param report: called with one line of text when the device is removed or comes back.
    :raises UserError: when the device cannot be opened at the start.
    """

    def __init__(
        self,
        device: str = "",
        *,
        rate: int = 0,
        channels: int = 0,
        block_seconds: float = 0.02,
        stall_seconds: float = 1.0,
        clock: Callable[[], int] = time.time_ns,
        report: Callable[[str], None] = print,
    ) -> None:
        super().__init__("microphone", device, stall_seconds, report)
        self.counters = CaptureCounters()
        self._requested = (rate, channels)
        self._block_seconds = block_seconds
        self._clock = clock
        # Ten seconds of blocks. A reader that is further behind loses the newest blocks.
        self._blocks: queue.Queue[Block] = queue.Queue(maxsize=max(2, int(10 / block_seconds)))
        self._stream_id = 0
        self._begin()

    def read(self, timeout: float | None = None) -> Block | None:
        """The next block, or None when none came within ``timeout`` seconds (or the microphone was closed)."""
        try:
            return self._blocks.get(timeout=timeout)
        except queue.Empty:
            return None

    def _open(self) -> None:
        sd = portaudio()
        found = find_device(self.device, "input")
        rate = self._requested[0] or round(found.default_rate)
        attempts = [self._requested[1]] if self._requested[1] else [1, min(2, found.input_channels)]
        error: Exception | None = None
        for channels in attempts:
            try:
                self._start(self._input_stream(sd, found.index, rate, channels))
                self._stream_id += 1
            except sd.PortAudioError as reason:
                error = reason
            else:
                return
        raise UserError(
            f"microphone '{found.name}' does not open with {rate} Hz and {attempts[-1]} channels ({error}); "
            "give another rate or device ('timar audio devices')"
        )

    def _input_stream(self, sd: Any, index: int, rate: int, channels: int) -> Any:
        stream_id = self._stream_id + 1
        clock = SampleClock(rate)
        position = 0
        leaps = 0

        def callback(data: npt.NDArray[np.float32], frames: int, when: Any, status: Any) -> None:
            nonlocal position, leaps
            self._note_alive()
            # The first sample's age by the driver's clock at this moment: the callback's own delay cancels out.
            age = self._stream.time - when.inputBufferAdcTime if self._stream is not None else -1.0
            if not 0.0 <= age < 5.0:  # some drivers leave the field empty
                age = frames / rate
            time_ns = self._clock() - round(age * 1e9)
            self.counters.overflows += bool(status.input_overflow)
            # If time passes without samples, samples were lost. A single outlier does not show a loss.
            leap = (time_ns - clock.time_of(position)) * 1e-9 if clock.settled else 0.0
            leaps = leaps + 1 if leap > LEAP_SECONDS else 0
            if leaps >= LEAP_READINGS:
                missing = round(leap * rate)
                position += missing
                self.counters.lost_samples += missing
                leaps = 0
            block = Block(clock.update(position, time_ns), stream_id, position, rate, data.copy())
            position += frames
            if not clock.settled:  # half a second of silence at the start is better than wrong stamps later
                return
            try:
                self._blocks.put_nowait(block)
            except queue.Full:
                self.counters.dropped_blocks += 1

        return sd.InputStream(
            device=index,
            channels=channels,
            samplerate=rate,
            blocksize=round(rate * self._block_seconds),
            dtype="float32",
            latency="low",
            callback=callback,
        )
