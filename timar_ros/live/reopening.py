"""A sound device that goes away is opened again when it comes back: what microphone and loudspeaker share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from timar_ros.live.devices import START_SECONDS, refresh


class Reopening:
    """Holds a device's stream and watches it in the background.

    A subclass opens the device in :meth:`_open`, calls :meth:`_note_alive` in the stream's callback, and keeps
    ``counters`` with a field ``reopened``.

    :param kind: what the device is, for reports.
    :param device: its name as the user gave it.
    :param stall_seconds: a device whose callback has not come for so long is taken for gone [s].
    :param report: told in one line what happens to the device.
    """

    counters: Any

    def __init__(self, kind: str, device: str, stall_seconds: float, report: Callable[[str], None]) -> None:
        self.device = device
        self._kind = kind
        self._stall = stall_seconds
        self._report = report
        self._stream: Any = None
        self._last_callback = self._opened = 0.0
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name=kind, daemon=True)

    @property
    def present(self) -> bool:
        """Whether the device is open: False from when it went away until it is back."""
        return self._stream is not None

    def close(self) -> None:
        """Stop and release the device; safe to call again."""
        self._closing.set()
        if self._watcher.is_alive() and threading.current_thread() is not self._watcher:
            self._watcher.join()
        self._close_stream()

    def _open(self) -> None:
        """Open the device and hand its stream to :meth:`_start`."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Open the device for the first time, which may fail, and watch it from then on."""
        self._open()
        self._watcher.start()

    def _note_alive(self) -> None:
        self._last_callback = time.monotonic()

    def _start(self, stream: Any) -> None:
        self._last_callback = self._opened = time.monotonic()
        self._stream = stream
        try:
            stream.start()
        except Exception:
            self._close_stream()
            raise

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.abort(ignore_errors=True)
                stream.close(ignore_errors=True)
            except Exception as error:  # a driver whose device is gone may fail in any way; it must not end us
                self._report(f"{self._kind}: closing failed: {error}")

    def _watch(self) -> None:
        while not self._closing.wait(0.1):
            heard = max(self._last_callback, self._opened + START_SECONDS)
            if self._stream is not None and self._stream.active and time.monotonic() - heard < self._stall:
                continue
            if self._stream is not None:
                self._report(f"{self._kind} {self.device or '(default)'} is gone; trying to reopen it")
                self._close_stream()
            try:
                refresh()
                self._open()
            except Exception:  # not there yet; the next round tries again
                self._closing.wait(0.5)
            else:
                self.counters.reopened += 1
                self._report(f"{self._kind} {self.device or '(default)'} is back")
