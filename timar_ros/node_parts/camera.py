"""Reads a camera, a video file or a network stream as stamped pictures, for `face_tracker`."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from timar_ros.errors import UserError, require
from timar_ros.foreign.face_landmarker import INSTALL
from timar_ros.foreign.foreign_images import Picture

REOPEN = 1.0
"""Time between two attempts to open a camera again [s]."""


DEVICE = re.compile(r"(?:/dev/video)?(\d+)")
"""A camera's number, or its path on Linux."""


def check_source(source: str) -> None:
    """Check, without opening it, that a video source can exist.

    :param source: as for :class:`VideoFeed`.
    :raises UserError: when OpenCV, the camera or the file is missing.
    """
    cv2 = require("cv2", INSTALL, "reading video")
    # OpenCV's log lines about every attempt to open a camera hide the one line with the cause.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if (device := DEVICE.fullmatch(source)) is not None:
        if sys.platform.startswith("linux") and not Path(f"/dev/video{device[1]}").exists():
            raise UserError(f"camera {source} not found: there is no /dev/video{device[1]}")
    elif "://" not in source and not Path(source).is_file():
        raise UserError(f"video {source} not found: use a camera's number or path, a file or an address")


class VideoFeed:
    """Reads pictures in its own thread and passes them on one by one, until it is closed.

    A file plays in real time, without the pictures that would come late. A camera that disappears is opened again when
    it is back. The feed keeps no picture.

    :param source: a camera's number or path (``0``, ``/dev/video0``), a video file, or a stream's address (``rtsp://…``).
    :param take: called in the thread with a picture's time [ns] and the picture [h, w, 3] (uint8, red green blue).
    :param clock: returns the time for the stamps [ns].
    :param report: called with one line of text when the camera disappears or is back, and at the end of a file.
    :param size: requested width and height of a camera's pictures [pixels].
    :param rate: requested rate of a camera's pictures [Hz].
    :param delay: age of a camera's picture when it is read [s].
    :param repeat: play a file again and again.
    :raises UserError: when OpenCV is missing, or the source does not open.
    """

    def __init__(
        self,
        source: str,
        take: Callable[[int, Picture], None],
        *,
        clock: Callable[[], int] = time.time_ns,
        report: Callable[[str], Any] = print,
        size: tuple[int, int] = (640, 480),
        rate: float = 30.0,
        delay: float = 0.0,
        repeat: bool = False,
    ) -> None:
        check_source(source)
        self._cv2: Any = require("cv2", INSTALL, "reading video")
        device = DEVICE.fullmatch(source)
        self._device = int(device[1]) if device else None
        self._file = "" if device or "://" in source else source
        self._source = source
        self._take, self._clock, self._report = take, clock, report
        self._size, self._rate, self._delay, self._repeat = size, rate, round(delay * 1e9), repeat
        self.finished = threading.Event()
        """Set at the end of a file."""
        self.left_out = 0
        """Number of a file's pictures that were left out."""
        self._quit = threading.Event()
        self._capture: Any = self._open()
        if self._capture is None:
            raise UserError(f"video {source} does not open: is it there, is it a video, does another program use it?")
        self._thread = threading.Thread(target=self._run, name="video feed", daemon=True)
        self._thread.start()

    @property
    def present(self) -> bool:
        """Whether the source is open."""
        return self._capture is not None

    def close(self) -> None:
        """Stop and release the source; further calls have no effect. Do not call it from ``take``."""
        self._quit.set()
        self._thread.join()
        self._release()

    def _open(self) -> Any:
        cv2 = self._cv2
        capture = cv2.VideoCapture(self._source if self._device is None else self._device)
        if not capture.isOpened():
            capture.release()
            return None
        if self._device is not None:
            for what, value in (
                (cv2.CAP_PROP_FRAME_WIDTH, self._size[0]),
                (cv2.CAP_PROP_FRAME_HEIGHT, self._size[1]),
                (cv2.CAP_PROP_FPS, self._rate),
                (cv2.CAP_PROP_BUFFERSIZE, 1),  # the newest picture only
            ):
                capture.set(what, value)
        return capture

    def _release(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _run(self) -> None:
        while not self._quit.is_set():
            if self._capture is None:
                if self._quit.wait(REOPEN):
                    return
                self._capture = self._open()
                if self._capture is not None:
                    self._report(f"video {self._source} is back")
            elif self._file:
                if not self._play():
                    return
            else:
                self._watch()

    def _watch(self) -> None:
        """Read a camera's pictures until the camera is removed."""
        while not self._quit.is_set():
            if not self._capture.grab():
                self._report(f"video {self._source} is gone; trying to reopen it")
                self._release()
                return
            stamp = self._clock() - self._delay
            self._hand_over(stamp)

    def _play(self) -> bool:
        """Play a file once; False after the last picture."""
        rate = self._capture.get(self._cv2.CAP_PROP_FPS)
        period = 1e9 / rate if 0 < rate < 1000 else 4e7
        while not (started := self._clock()):  # a simulated clock stands at 0 until its first tick
            if self._quit.wait(0.05):
                return False
        count = 0
        while not self._quit.is_set() and self._capture.grab():
            due = started + round(count * period)
            count += 1
            if not self._wait_until(due):
                return False
            if self._clock() - due > 2 * period:
                self.left_out += 1
            else:
                self._hand_over(due)
        self._release()
        if self._quit.is_set():
            return False
        if not count:
            self._report(f"video {self._source} has no pictures")
        elif self._repeat:
            self._capture = self._open()
            return self._capture is not None
        else:
            self._report(f"video {self._source} is over: {count} pictures")
        self.finished.set()
        return False

    def _wait_until(self, due: int) -> bool:
        # The clock may be simulated, so this waits in short steps.
        while (ahead := due - self._clock()) > 0:
            if self._quit.wait(min(ahead * 1e-9, 0.05)):
                return False
        return True

    def _hand_over(self, stamp: int) -> None:
        good, picture = self._capture.retrieve()
        if good and picture is not None and picture.ndim == 3:
            self._take(stamp, np.ascontiguousarray(picture[:, :, ::-1]))
