"""A conversation's sound for a page: stereo (left partner, right robot), small, in formats that browsers play."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

from timar_ros.data.recording import Recording
from timar_ros.motion import MODEL_RATE


def encoded(recording: Recording) -> list[tuple[str, str]]:
    """Pairs of MIME type and base64 text, best first; empty when no audio was recorded.

    Opus, and MP3 for browsers without Opus in Ogg; FLAC where libsndfile has neither.
    """
    import soundfile

    channels = [recording.user_audio, recording.agent_audio]
    if all(channel is None for channel in channels):
        return []
    length = max(len(channel) for channel in channels if channel is not None)
    stereo = np.zeros((max(length, MODEL_RATE // 10), 2), np.float32)
    for index, channel in enumerate(channels):
        if channel is not None:
            stereo[: len(channel), index] = channel
    stereo = levelled(stereo)
    made: list[tuple[str, str]] = []
    for mime, container, subtype, quality in (
        ('audio/ogg; codecs="opus"', "OGG", "OPUS", 0.95),
        ("audio/mpeg", "MP3", "MPEG_LAYER_III", 0.8),
        ("audio/flac", "FLAC", "PCM_16", None),
    ):
        if container == "FLAC" and made:
            break
        if subtype not in soundfile.available_subtypes(container):
            continue
        buffer = io.BytesIO()
        options = {} if quality is None else {"compression_level": quality}
        with soundfile.SoundFile(buffer, "w", MODEL_RATE, 2, subtype=subtype, format=container, **options) as file:
            # libsndfile's compressors take long arrays onto their stack: a second at a time is safe.
            for first in range(0, len(stereo), MODEL_RATE):
                file.write(stereo[first : first + MODEL_RATE])
        made.append((mime, base64.b64encode(buffer.getvalue()).decode("ascii")))
    return made


def levelled(stereo: NDArray[np.float32]) -> NDArray[np.float32]:
    """Loud enough to be heard: the loudest sample at 0.9, but no more than ten times the original."""
    loudest = float(np.abs(stereo).max(initial=0.0))
    gain = min(0.9 / loudest, 10.0) if loudest > 1e-6 else 1.0
    return np.asarray(np.clip(stereo * gain, -1.0, 1.0), np.float32)
