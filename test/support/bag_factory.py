"""A bag as a live run leaves it, made without ROS: two voices taking turns, a tracked user, an agent, four joints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_files import TOPICS, BagWriter
from timar_ros.motion import JAW_OPENING, MODEL_RATE, MOTION_RATE, MOTION_SIZE, PITCH, ROLL, YAW
from timar_ros.streaming.turns.turn_types import TurnInput

RATE, FPS = MODEL_RATE, round(MOTION_RATE)
START_NS = 1_700_000_000_000_000_000
DELAY = 1.3
JOINTS = ["neck_yaw", "neck_pitch", "neck_roll", "jaw"]

Floats = npt.NDArray[np.float32]


def speaking_pattern(seconds: float, role: str) -> npt.NDArray[np.bool_]:
    """Who speaks when, per frame: 3 s each in turn."""
    frame = np.arange(round(seconds * FPS))
    return (frame // (3 * FPS)) % 2 == (0 if role == "user" else 1)


def voice(seconds: float, role: str, seed: int = 0) -> Floats:
    """Noise in syllables (4 Hz) while the role speaks, near-silence otherwise; [seconds * 16000]."""
    generator = np.random.default_rng(seed + (role == "agent"))
    time = np.arange(round(seconds * RATE)) / RATE
    syllables = np.clip(np.sin(2 * np.pi * 4 * time), 0, 1) ** 0.5
    speaking = np.repeat(speaking_pattern(seconds, role), RATE // FPS)
    hum = np.sin(2 * np.pi * (120 if role == "user" else 190) * time)
    return (0.25 * speaking * syllables * (hum + 0.3 * generator.normal(size=len(time))) + 1e-4).astype(np.float32)


def motion(seconds: float, role: str, seed: int = 0) -> Floats:
    """A head that opens its jaw with its syllables and nods while it listens; [T, 56]."""
    generator = np.random.default_rng(100 + seed + (role == "agent"))
    count = round(seconds * FPS)
    time = np.arange(count) / FPS
    speaking = speaking_pattern(seconds, role)
    frames = np.zeros((count, MOTION_SIZE), np.float32)
    slow = np.cumsum(generator.normal(size=(count, 50)), axis=0)
    frames[:, :50] = 0.6 * (slow - slow.mean(axis=0)) / (slow.std(axis=0) + 1e-6)
    frames[:, 50] = 0.03 + 0.2 * speaking * np.clip(np.sin(2 * np.pi * 4 * time), 0, 1) ** 0.5
    frames[:, PITCH] = 0.05 * np.sin(2 * np.pi * 0.3 * time) + 0.08 * ~speaking * np.sin(2 * np.pi * 2.0 * time)
    frames[:, 54] = 0.2 * np.sin(2 * np.pi * 0.11 * time + seed)
    frames[:, 55] = 0.06 * np.sin(2 * np.pi * 0.17 * time)
    return frames


def write_bag(
    path: Path,
    seconds: float = 8.0,
    *,
    seed: int = 0,
    namespace: str = "",
    dropped: tuple[int, ...] = (),
    agent_frames: Floats | None = None,
    user_voice: Floats | None = None,
    agent_voice: Floats | None = None,
    user_frames: Floats | None = None,
    joints: bool = True,
    tracker: bool = True,
    chunk: float = 0.02,
    info: dict[str, Any] | None = None,
    voice_delay: float | None = None,
    looks: Sequence[tuple[float, str, tuple[float, float, float]]] = (),
) -> Path:
    """Write the bag; everything arrives in the order and with the delays of a live run.

    :param looks: times [s], frames and points of gaze/target.
    :param voice_delay: rolling mode: how late the agent is heard [s], as VoiceTiming says, and its motion shown.
    """
    delay = DELAY if voice_delay is None else voice_delay
    user_voice = voice(seconds, "user", seed) if user_voice is None else user_voice
    agent_voice = voice(seconds, "agent", seed) if agent_voice is None else agent_voice
    user_frames = motion(seconds, "user", seed) if user_frames is None else user_frames
    agent_frames = motion(seconds, "agent", seed) if agent_frames is None else agent_frames
    generator = np.random.default_rng(seed)
    events: list[tuple[int, str, Any]] = []
    with BagWriter(path) as bag:
        names = {short: short if short.startswith("/") else f"{namespace}/{short}" for short in TOPICS}
        for short, msgtype in TOPICS.items():
            bag.add_topic(names[short], msgtype)
        types = bag.types

        def at(second: float) -> int:
            return START_NS + round(second * 1e9)

        def put(second: float, short: str, message: Any) -> None:
            events.append((at(second), short, message))

        described: dict[str, Any] = {
            "mode": "reactive", "turn_duration": 1.0, "sample_rate": RATE, "motion_rate": float(FPS),
            "playback_delay": DELAY, "model": "made up", "trained": False, "device": "cpu", "dtype": "float32",
            "context_policy": "sliding", "context_seconds": 8.0, "sampling_steps": 5, "guidance": 1.0,
            "temperature": 1.0, "seed": seed, "normalising": "running",
        }  # fmt: skip
        put(-0.5, "stream_info", bag_messages.stream_info(types, at(-0.5), **{**described, **(info or {})}))
        if voice_delay is not None:
            heard = types["timar_ros/msg/VoiceTiming"](header=bag_messages.header(types, at(0.0)), stream_id=0,
                                                       delay=voice_delay)  # fmt: skip
            put(-0.4, "agent/voice_timing", heard)
        for second, frame, place in looks:
            put(second, "gaze/target", bag_messages.point(types, at(second), frame, place))
        size = round(chunk * RATE)
        for short, samples in (("user/audio", user_voice), ("agent/audio", agent_voice)):
            for first in range(0, len(samples), size):
                part = samples[first : first + size]
                message = bag_messages.audio_chunk(types, at(first / RATE), first, RATE, part)
                put((first + len(part)) / RATE + 0.001, short, message)
        if tracker:
            for index, frame in enumerate(user_frames):
                message = bag_messages.flame_motion(types, at(index / FPS), FPS, frame[None])
                put(index / FPS + 0.03, "user/motion", message)
        for number in range(int(seconds)):
            put(number + 1.01, "turns", turn_message(types, at(number), number, user_voice, agent_voice, user_frames))
            if number in dropped:
                continue
            part = agent_frames[number * FPS : (number + 1) * FPS]
            speaking = speaking_pattern(seconds, "agent")[number * FPS : (number + 1) * FPS]
            message = bag_messages.flame_motion(types, at(number + delay), FPS, part, turn=number, speaking=speaking)
            put(number + 1.01 + 0.06 + 0.02 * generator.random(), "agent/motion", message)
        if joints:
            position = joint_positions(agent_frames)
            for index in range(len(position)):
                second = index / 100 + delay
                put(second, "joint_states", bag_messages.joint_state(types, at(second), JOINTS, position[index]))
        for second in range(int(seconds)):
            put(second + 0.7, "/diagnostics", diagnostics(types, at(second + 0.7)))
        for stamp, short, message in sorted(events, key=lambda event: event[0]):
            bag.write(names[short], stamp, message)
    return path


def turn_message(
    types: Any, stamp_ns: int, number: int, user_voice: Floats, agent_voice: Floats, user_frames: Floats
) -> Any:
    """The Turn of one second."""
    cut = slice(number * RATE, (number + 1) * RATE)
    frames = user_frames[number * FPS : (number + 1) * FPS]
    turn = TurnInput(number, stamp_ns, 1.0, user_voice[cut], agent_voice[cut], frames)
    return bag_messages.turn_message(types, turn, float(FPS))


def joint_positions(frames: Floats) -> npt.NDArray[np.float64]:
    """Yaw, pitch, roll and jaw at 100 Hz, straight from the frames."""
    time, fine = np.arange(len(frames)) / FPS, np.arange(len(frames) * 4) / 100
    columns = [np.interp(fine, time, frames[:, column]) for column in (YAW, PITCH, ROLL, JAW_OPENING)]
    return np.stack(columns, axis=1).astype(np.float64)


def diagnostics(types: Any, stamp_ns: int) -> Any:
    """One node's status."""
    values = [types["diagnostic_msgs/msg/KeyValue"](key="turns dropped", value="0")]
    status = types["diagnostic_msgs/msg/DiagnosticStatus"](
        level=0, name="timar_inference: node", message="active", hardware_id="timar_ros", values=values
    )
    return types["diagnostic_msgs/msg/DiagnosticArray"](header=bag_messages.header(types, stamp_ns), status=[status])
