"""Reopens a removed sound device when it comes back: the common base of microphone and loudspeaker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from timar_ros.audio.devices import START_SECONDS, refresh


class Reopening:
    """Owns a device's stream and watches it in the background.

    A subclass opens the device in :meth:`_open`, calls :meth:`_note_alive` in the stream's callback, and has
    ``counters`` with a field ``reopened``.

    :param kind: kind of device, for reports.
    :param device: the user's name of the device.
    :param stall_seconds: a device counts as removed when its callback did not run for this long [s].
    :param report: called with one line of text when the device is removed or comes back.
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
        """Whether the device is open: False from its removal until it is back."""
        return self._stream is not None

    def close(self) -> None:
        """Stop and release the device; further calls have no effect."""
        self._closing.set()
        if self._watcher.is_alive() and threading.current_thread() is not self._watcher:
            self._watcher.join()
        self._close_stream()

    def _open(self) -> None:
        """Open the device and pass its stream to :meth:`_start`."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Open the device for the first time, which may fail, then start to watch it."""
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
            except Exception as error:  # without its device a driver may fail in any way; the process continues
                self._report(f"{self._kind}: closing failed: {error}")

    def _watch(self) -> None:
        while not self._closing.wait(0.1):
            last_sign_of_life = max(self._last_callback, self._opened + START_SECONDS)
            if self._stream is not None and self._stream.active and time.monotonic() - last_sign_of_life < self._stall:
                continue
            if self._stream is not None:
                self._report(f"{self._kind} {self.device or '(default)'} is gone; trying to reopen it")
                self._close_stream()
            try:
                refresh()
                self._open()
            except Exception:  # the device is still missing; the next round tries again
                self._closing.wait(0.5)
            else:
                self.counters.reopened += 1
                self._report(f"{self._kind} {self.device or '(default)'} is back")
