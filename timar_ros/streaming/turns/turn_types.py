"""The output of turn building: turns, and counts of all faults of the input."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

Speech = NDArray[np.float32]


@dataclass
class TurnInput:
    """One turn of a conversation; N = 16000·duration samples, F = 25·duration frames."""

    number: int
    """Counts from 0 (or TurnBuilder's first_number); a planned and a complete turn share it, else it never repeats."""
    stamp_ns: int
    """Time of the turn's first sample [ns]."""
    duration: float
    """[s]"""
    user_speech: Speech
    """[N] in [-1, 1]; zeros where lost, and all zeros in a planned turn."""
    agent_speech: Speech
    """[N] in [-1, 1]; zeros where lost."""
    user_motion: NDArray[np.float32] | None
    """[F, 56] in TIMAR order, NaN where not tracked; None: nothing was tracked in this turn."""
    planned: bool = False
    """The turn begins now and only agent_speech is known (anticipatory mode)."""
    agent_ahead: Speech | None = None
    """Rolling mode: the agent's speech right after the hop, in [-1, 1]; None: not known ahead of its time."""
    lost_user: int = 0
    """Samples of a running user stream that never arrived."""
    lost_agent: int = 0
    """Samples of a running agent stream that never arrived."""


@dataclass(frozen=True)
class VoiceTiming:
    """Rolling mode: how a stream of the agent's speech is heard."""

    stream_id: int
    stamp_ns: int
    """Time of the stream's first sample [ns]."""
    ahead: bool
    """Whether the stream came ahead of its time, and so is heard at its stamps."""


@dataclass
class TurnCounters:
    """What happened to the input since the conversation began."""

    turns: int = 0
    planned_turns: int = 0
    audio_chunks: int = 0
    motion_frames: int = 0
    lost_user: int = 0
    """Samples at 16 kHz filled with silence."""
    lost_agent: int = 0
    late_chunks: int = 0
    """Audio chunks that came, in whole or in part, after their turn was closed."""
    late_samples: int = 0
    """Samples of the late chunks, at the stream's rate."""
    late_frames: int = 0
    duplicate_chunks: int = 0
    duplicate_frames: int = 0
    reordered_chunks: int = 0
    streams: int = 0
    """Streams begun, restarts included."""
    clock_jumps: int = 0
    """How often a stream's stamps left its count of samples for good, or advance()'s clock jumped."""
    stray_stamps: int = 0
    """Chunks whose stamp disagreed with their place in the stream; they were placed by index."""
    foreign_clocks: int = 0
    """Streams with stamps of another clock; they were placed at the conversation's present."""
    pauses: int = 0
    """Stretches without any audio, longer than max_pause, that were cut out of the conversation."""
    too_far_ahead: int = 0
    """Chunks or frames dropped since they lie further in the future than max_ahead."""
    drift_steps: int = 0
    """Corrections of a stream's time base by drift, at most 1 ms each, at turn boundaries."""
    unread_turns: int = 0
    """Turns dropped because pop() was not called."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Refused input by reason."""

    def as_dict(self) -> dict[str, int]:
        """All counts flat, refused input as ``rejected: reason``."""
        flat = asdict(self)
        rejected = flat.pop("rejected")
        return flat | {f"rejected: {reason}": count for reason, count in sorted(rejected.items())}
