"""A recorded conversation, and the order in which to play its pieces (no ROS)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from timar_ros.data.audio_files import load_audio, load_conversation
from timar_ros.data.motion_files import load_motion
from timar_ros.errors import UserError
from timar_ros.motion import MOTION_RATE
from timar_ros.streaming.turns.turn_builder import Role

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """Both speakers' audio [n] at a rate [Hz] each, and the user's frames [T, 56] (NaN: not tracked) or None."""

    user: Floats
    user_rate: int
    agent: Floats
    agent_rate: int
    motion: Floats | None = None
    motion_rate: float = MOTION_RATE

    @property
    def seconds(self) -> float:
        """Length of the longer speaker's audio [s]."""
        return max(len(self.user) / self.user_rate, len(self.agent) / self.agent_rate)


def load_recording(conversation: str, user: str, agent: str, motion: str = "") -> Recording:
    """A recording from a stereo file (left user, right agent), or from a file for each speaker.

    :param motion: the user's motion (.npz in DualTalk's layout, .npy [T, 56]); empty: not tracked.
    :raises UserError: when neither or both kinds of audio files are named, or a file cannot be read.
    """
    if bool(conversation) == bool(user or agent):
        raise UserError("name either a stereo 'recording' or both of 'user' and 'agent'")
    frames, rate = load_motion(motion) if motion else (None, MOTION_RATE)
    if conversation:
        left, right, audio_rate = load_conversation(conversation)
        return Recording(left, audio_rate, right, audio_rate, frames, rate)
    if not (user and agent):
        raise UserError(f"'{'agent' if user else 'user'}' is missing: two files make a conversation")
    (left, left_rate), (right, right_rate) = load_audio(user), load_audio(agent)
    return Recording(left, left_rate, right, right_rate, frames, rate)


@dataclass(frozen=True)
class Piece:
    """Part of one speaker's audio: samples [n] from ``index`` on; ``end`` marks the last piece, which may be empty."""

    role: Role
    index: int
    rate: int
    samples: Floats
    end: bool


@dataclass(frozen=True)
class Step:
    """The audio and motion to publish when the conversation's time reaches ``seconds``."""

    seconds: float
    pieces: list[Piece] = field(default_factory=list)
    first_frame: int = 0
    frames: Floats | None = None


def steps(recording: Recording, chunk: float, agent_lead: float = 0.0) -> Iterator[Step]:
    """The recording in pieces of ``chunk`` seconds, each at the time of its last sample.

    :param agent_lead: how long the agent's audio comes before its time [s], as a robot knows its own speech before it
        speaks. The conversation then begins at ``-agent_lead``.
    """
    speakers: tuple[tuple[Role, Floats, int, float], ...] = (
        ("user", recording.user, recording.user_rate, agent_lead),
        ("agent", recording.agent, recording.agent_rate, 0.0),
    )
    for number in range(math.ceil((recording.seconds + agent_lead) / chunk)):
        # Multiplied, not added up: no drift over hours.
        begin, now = number * chunk - agent_lead, (number + 1) * chunk - agent_lead
        pieces = []
        for role, samples, rate, behind in speakers:
            first, last = (
                min(max(0, round((edge * chunk - behind) * rate)), len(samples)) for edge in (number, number + 1)
            )
            if first < last:
                pieces.append(Piece(role, first, rate, samples[first:last], last == len(samples)))
        if recording.motion is None:
            yield Step(now, pieces)
            continue
        # Frame j is known at j / rate: the tracker's image of that time.
        first, last = (
            min(max(0, math.floor(edge * recording.motion_rate + 1e-6) + 1), len(recording.motion))
            for edge in (begin, now)
        )
        first = first if number else 0
        yield Step(now, pieces, first, recording.motion[first:last])
