"""`timar film`: a recorded conversation as a film with sound, drawn by the report's page in a headless Chromium."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.bags.recording import Recording
from timar_ros.errors import UserError, require
from timar_ros.evaluation.report.browser import CHROMIUM, Browser
from timar_ros.evaluation.report.report_audio import levelled, stereo
from timar_ros.files import atomic_path
from timar_ros.motion import MODEL_RATE
from timar_ros.simulation.render import Film

INSTALL = "pip install 'timar_ros[film]'"

GIF = "fps=12,scale=640:-2:flags=lanczos,split[a][b];[a]palettegen=max_colors=128[p];[b][p]paletteuse=dither=bayer"
"""How ffmpeg makes a GIF: twelve pictures a second, 640 pixels wide, with its own palette."""


def write_film(
    recording: Recording,
    report: Path,
    out: str | Path,
    *,
    begin: float = 0.0,
    end: float | None = None,
    size: tuple[int, int] = (1280, 720),
    rate: float = 25.0,
    theme: str = "light",
    on_picture: Callable[[int, int], None] = lambda _done, _all: None,
) -> Path:
    """Film a recording.

    :param report: the recording's report from `write_report`.
    :param out: an MP4 file to write.
    :param begin: where the film begins and ends in the conversation [s].
    :param size: width and height in pixels, even.
    :param rate: pictures per second [Hz].
    :param on_picture: called with (pictures done, all pictures).
    :raises UserError: no browser or encoder, a stretch outside the recording, or a file that cannot be written.
    """
    end = check_film(recording, begin, end, size)
    images: Any = require("PIL.Image", INSTALL, "a film")
    count = max(1, round((end - begin) * rate))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="timar_film_")))
        sound = _sound(recording, begin, end, folder / "sound.wav")
        browser = stack.enter_context(Browser(*size))
        browser.open(report, f"#film=1&theme={theme}")
        film = stack.enter_context(Film(out, *size, rate, audio=sound))
        for index in range(count):
            browser.run(f"timar.show({begin + index / rate})")
            film.add(_pixels(images, browser.picture(), size))
            on_picture(index + 1, count)
    return Path(out)


def check_film(recording: Recording, begin: float, end: float | None, size: tuple[int, int]) -> float:
    """Check the arguments of `write_film`; returns the film's end [s].

    :raises UserError: no browser or encoder, a stretch outside the recording, or a size that is not allowed.
    """
    if CHROMIUM is None:
        raise UserError("a film needs Chromium, Chrome or Edge to draw it: apt install chromium")
    require("PIL.Image", INSTALL, "a film")
    require("imageio_ffmpeg", INSTALL, "a film")
    end = recording.seconds if end is None else min(end, recording.seconds)
    if not 0.0 <= begin < end:
        raise UserError(f"{begin:g} s to {end:g} s is no stretch of {recording.name}: it has {recording.seconds:.1f} s")
    if any(side < 64 or side % 2 for side in size):
        raise UserError(f"a film of {size[0]} x {size[1]} pixels: both must be even, and 64 or more")
    return end


def _pixels(images: Any, jpeg: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    with images.open(io.BytesIO(jpeg)) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.uint8)
    if pixels.shape[:2] != (size[1], size[0]):
        raise UserError(
            f"the browser drew {pixels.shape[1]} x {pixels.shape[0]} pixels instead of {size[0]} x {size[1]}"
        )
    return pixels


def _sound(recording: Recording, begin: float, end: float, path: Path) -> str | None:
    """Write the stretch's sound to a file; None without sound."""
    import soundfile

    both = stereo(recording)
    if both is None:
        return None
    first, last = round(begin * MODEL_RATE), round(end * MODEL_RATE)
    piece = np.zeros((last - first, 2), np.float32)
    heard = levelled(both)[first:last]
    piece[: len(heard)] = heard
    # Each voice on both sides, the partner's louder on the left and the robot's on the right.
    mixed = piece @ np.array([[0.8, 0.45], [0.45, 0.8]], np.float32)
    soundfile.write(path, np.clip(mixed, -1.0, 1.0), MODEL_RATE, subtype="PCM_16")
    return str(path)


def write_gif(film: str | Path, out: str | Path) -> Path:
    """A GIF of a film.

    :raises UserError: when ffmpeg fails.
    """
    encoder: Any = require("imageio_ffmpeg", INSTALL, "a GIF")
    with atomic_path(out) as path:
        command = [
            encoder.get_ffmpeg_exe(),
            "-loglevel",
            "error",
            "-y",
            "-i",
            str(film),
            "-vf",
            GIF,
            "-f",
            "gif",
            str(path),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"ffmpeg could not make {out}: {' '.join(done.stderr.split())[:200]}")
    return Path(out)
