"""A sound file that grows during the conversation and gets its name when it is closed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from timar_ros.errors import UserError


class SoundFile:
    """Mono 16-bit WAV or FLAC at the first piece's rate; other pieces are resampled to that rate.

    :raises UserError: when the name has another ending or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in (".wav", ".flac"):
            raise UserError(f"cannot write {path}: the name must end in .wav or .flac")
        self._path = path
        self._temporary = path.with_name(f".{path.name}.part")
        self._file: soundfile.SoundFile | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error

    def write(self, samples: NDArray[np.float32], rate: int, lost: int = 0) -> None:
        """Append samples [n] in [-1, 1] at ``rate`` [Hz], after ``lost`` samples of silence."""
        if self._file is None:
            kind = self._path.suffix[1:].upper()
            self._file = soundfile.SoundFile(
                self._temporary, "w", samplerate=rate, channels=1, format=kind, subtype="PCM_16"
            )
        if lost:
            # A longer gap is no loss: the stream's count started again.
            samples = np.concatenate([np.zeros(min(lost, 60 * rate), np.float32), samples])
        if rate != self._file.samplerate:
            samples = soxr.resample(samples, rate, self._file.samplerate)
        self._file.write(np.clip(samples, -1.0, 1.0))

    def close(self) -> None:
        """Finish the file; without any audio there is no file."""
        if self._file is None:
            self._temporary.unlink(missing_ok=True)
            return
        self._file.close()
        self._temporary.replace(self._path)
