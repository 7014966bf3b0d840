"""Text to speech by programs: espeak-ng, Piper, or any command that reads text and writes raw PCM. No ROS."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError

ENGINES = ("espeak-ng", "piper", "command")
PIECE = 4096
"""Largest number of bytes to read at a time; available bytes are passed on at once."""
HEADER = 44
"""Bytes of the WAV header that espeak-ng writes before the samples."""
INSTALL = {
    "espeak-ng": "sudo apt install espeak-ng, or choose engine 'piper' or 'command'",
    "piper": "pip install piper-tts, or choose engine 'espeak-ng'",
}


@dataclass(frozen=True)
class TextToSpeech:
    """A text-to-speech program; each text is one run of the program.

    :param command: reads UTF-8 text from standard input, and writes 16-bit little-endian mono samples.
    :param rate: samples per second [Hz]; 0: the output begins with a WAV header that has the rate.
    """

    command: Sequence[str]
    rate: int

    def speak(self, text: str) -> Iterator[tuple[NDArray[np.int16], int]]:
        """Samples [n] and their rate [Hz], piece by piece as the program writes them.

        Closing the iterator ends the program.

        :raises UserError: when the program fails; the error has the program's message.
        """
        with tempfile.TemporaryFile() as messages:
            try:
                process = subprocess.Popen(
                    self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages, bufsize=0
                )
            except OSError as error:
                raise UserError(f"cannot run {self.command[0]}: {error.strerror}") from error
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with contextlib.suppress(BrokenPipeError):  # the exit code is more informative
                    process.stdin.write(text.encode() + b"\n")
                    process.stdin.close()
                yield from self._pieces(process)
                if process.wait():
                    messages.seek(0)
                    messages_text = " ".join(messages.read().decode(errors="replace").split())
                    raise UserError(
                        f"{self.command[0]} failed with exit code {process.returncode}: {messages_text[-300:]}"
                    )
            finally:
                process.kill()
                process.wait()
                process.stdout.close()

    def _pieces(self, process: subprocess.Popen[bytes]) -> Iterator[tuple[NDArray[np.int16], int]]:
        assert process.stdout is not None
        rate, rest = self.rate, b""
        while piece := process.stdout.read(PIECE):
            rest += piece
            if not rate:
                if len(rest) < HEADER:
                    continue
                if rest[:4] != b"RIFF":
                    raise UserError(f"{self.command[0]} wrote no WAV header: give the rate of its samples")
                rate, rest = int.from_bytes(rest[24:28], "little"), rest[HEADER:]
            whole = len(rest) // 2 * 2
            if whole:
                yield np.frombuffer(rest[:whole], "<i2").astype(np.int16), rate
            rest = rest[whole:]


def text_to_speech(
    engine: str = "espeak-ng", voice: str = "", speed: int = 160, command: str = "", rate: int = 22050
) -> TextToSpeech:
    """The engine by name.

    :param voice: espeak-ng: a voice of ``espeak-ng --voices`` (default en-us); piper: the path of an .onnx voice.
    :param speed: espeak-ng: words a minute.
    :param command: engine ``command``: the program with its arguments; ``rate`` is its samples' rate [Hz].
    :raises UserError: for another engine, a program that is not installed, or a missing voice.
    """
    if engine not in ENGINES:
        raise UserError(f"engine '{engine}': use one of {', '.join(ENGINES)}")
    if engine == "espeak-ng":
        engine_program = TextToSpeech(("espeak-ng", "-v", voice or "en-us", "-s", str(speed), "--stdin", "--stdout"), 0)
    elif engine == "piper":
        description_file = Path(f"{voice}.json")
        try:
            rate = int(json.loads(description_file.read_text(encoding="utf-8"))["audio"]["sample_rate"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"engine 'piper' needs a voice, the path of an .onnx file next to its .onnx.json; not '{voice}'"
            ) from error
        engine_program = TextToSpeech(("piper", "--model", voice, "--output-raw"), rate)
    else:
        words = shlex.split(command)
        if not words:
            raise UserError("engine 'command' needs a command that reads text and writes raw 16-bit mono samples")
        engine_program = TextToSpeech(tuple(words), rate)
    program = engine_program.command[0]
    if shutil.which(program) is None:
        raise UserError(f"{program} is not installed: {INSTALL.get(engine, 'install it, or give its full path')}")
    return engine_program
