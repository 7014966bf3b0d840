"""A conversation's sound for a page: stereo (left partner, right robot), small, in formats that browsers play."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

from timar_ros.bags.recording import Recording
from timar_ros.motion import MODEL_RATE


def encoded(recording: Recording) -> list[tuple[str, str]]:
    """Pairs of MIME type and base64 text, best first; empty when no audio was recorded.

    Opus, and MP3 for browsers without Opus in Ogg; FLAC if libsndfile has neither.
    """
    import soundfile

    both = stereo(recording)
    if both is None:
        return []
    both = levelled(both)
    sources: list[tuple[str, str]] = []
    for mime, container, subtype, quality in (
        ('audio/ogg; codecs="opus"', "OGG", "OPUS", 0.95),
        ("audio/mpeg", "MP3", "MPEG_LAYER_III", 0.8),
        ("audio/flac", "FLAC", "PCM_16", None),
    ):
        if container == "FLAC" and sources:
            break
        if subtype not in soundfile.available_subtypes(container):
            continue
        buffer = io.BytesIO()
        options = {} if quality is None else {"compression_level": quality}
        with soundfile.SoundFile(buffer, "w", MODEL_RATE, 2, subtype=subtype, format=container, **options) as file:
            # libsndfile's compressors copy long arrays to their stack: a second at a time is safe.
            for first in range(0, len(both), MODEL_RATE):
                file.write(both[first : first + MODEL_RATE])
        sources.append((mime, base64.b64encode(buffer.getvalue()).decode("ascii")))
    return sources


def stereo(recording: Recording) -> NDArray[np.float32] | None:
    """Both voices [n, 2] at 16 kHz, the partner's first; None when no audio was recorded."""
    channels = [recording.user_audio, recording.agent_audio]
    if all(channel is None for channel in channels):
        return None
    length = max(len(channel) for channel in channels if channel is not None)
    both = np.zeros((max(length, MODEL_RATE // 10), 2), np.float32)
    for index, channel in enumerate(channels):
        if channel is not None:
            both[: len(channel), index] = channel
    return both


def levelled(both: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sound with its loudest sample at 0.9, amplified at most ten times."""
    loudest = float(np.abs(both).max(initial=0.0))
    gain = min(0.9 / loudest, 10.0) if loudest > 1e-6 else 1.0
    return np.asarray(np.clip(both * gain, -1.0, 1.0), np.float32)
