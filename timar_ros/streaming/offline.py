"""A whole recorded conversation at once, and the default model."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
from numpy.typing import NDArray

from timar_ros.errors import UserError, require
from timar_ros.motion import MODEL_RATE, MOTION_RATE, MOTION_SIZE
from timar_ros.resources import share
from timar_ros.streaming.activity import FRAME_SAMPLES, ActivityDetector
from timar_ros.streaming.pipeline import Frames, Pipeline, TurnMotion
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.sound_intake import MIX
from timar_ros.streaming.turns.turn_builder import Role, TurnBuilder
from timar_ros.streaming.turns.turn_types import TurnInput

if TYPE_CHECKING:
    from timar_ros.model import Timar

NS = 1_000_000_000
DEFAULT_MODEL = "timar-mini"
SMALL = 256  # largest width of an encoder that one thread runs as fast as several threads
RANDOM = re.compile(r"random-(mini|base|large|huge)(?:-(\d+))?")


def resolve_model(
    name: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    *,
    threads: int | None = None,
    inference: bool = True,
    **loading: Any,
) -> Timar:
    """Load the model that a user names.

    :param name: a path (folder, .safetensors or the authors' .pth), the name of a model that comes with the package,
        such as ``timar-mini``, or ``random-mini`` … ``random-huge`` for random weights (``random-mini-7``: of seed 7).
        None: the package's ``timar-mini``, or ``random-mini`` if that is missing.
    :param threads: CPU threads for torch, from now on in this process. None: one for a small model, which gains nothing
        from more, else torch's default. The number of threads changes the last bits of the motion.
    :param inference: keep only what inference needs: half the memory, but the model cannot be trained or saved.
    :param loading: further arguments of ``load_timar``.
    :raises UserError: when there is no such model, or torch is not installed.
    """
    require("torch", "pip install 'torch>=2.4'", "the model")
    from timar_ros.model import TimarConfig, create_timar, load_timar, place_timar

    wanted = os.fspath(name) if name else ""
    path = _find(wanted or DEFAULT_MODEL)
    if path is not None:
        return _with_threads(load_timar(path, device=device, dtype=dtype, inference=inference, **loading), threads)
    random = RANDOM.fullmatch(wanted or "random-mini")
    if random is None:
        raise UserError(
            f"no model '{wanted}': give a folder with config.json, a .safetensors, the authors' .pth, "
            f"{', '.join([*shipped_models(), 'random-mini'])} or random-large"
        )
    # Training starts from zeros, but a demonstration should show that everything moves.
    model = create_timar(TimarConfig.of_size(random[1]), seed=int(random[2] or 0), zero_head=False)
    return _with_threads(place_timar(model, device, dtype, inference), threads)


def _with_threads(model: Timar, threads: int | None) -> Timar:
    import torch

    if threads is None and model.config.encoder_width <= SMALL:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)
    return model


def shipped_models() -> list[str]:
    """Names of the models that came with the package."""
    try:
        return sorted(path.parent.name for path in share("models").glob("*/config.json"))
    except UserError:
        return []


def _find(name: str) -> Path | None:
    path = Path(name)
    if path.exists():
        return path
    if name in shipped_models():
        return share("models", name)
    return None


def generate(
    model: Timar,
    options: PipelineOptions | None,
    user: NDArray[np.float32],
    agent: NDArray[np.float32],
    user_motion: Frames | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    user_rate: int = MODEL_RATE,
    agent_rate: int = MODEL_RATE,
    motion_rate: float = MOTION_RATE,
    speech_ahead: bool = True,
) -> Frames:
    """The agent's motion for a recorded conversation, equal to the live graph's motion to the bit.

    :param user: the user's speech ``[n]`` in [-1, 1]; ``agent`` likewise. Silence extends the shorter one.
    :param user_motion: ``[T, 56]`` in TIMAR order from the same start, NaN where not tracked; None: no tracker.
    :param progress: called with (turns done, turns in all).
    :param speech_ahead: rolling mode: whether the agent's speech comes ahead of its time, as from a speech synthesizer.
    :returns: ``[T, 56]`` float32 at 25 Hz, T = 25·seconds of the longer recording, rounded down.
    :raises UserError: when a recording cannot be used or is shorter than a frame, or options do not fit the model.
    """
    frames = int(max(len(user) / user_rate, len(agent) / agent_rate) * MOTION_RATE + 1e-9)
    if frames < 1:
        raise UserError("the recording is shorter than one motion frame (40 ms)")
    pipeline = Pipeline(
        model,
        options,
        user_clip=_at_model_rate(user, user_rate),
        agent_clip=_at_model_rate(agent, agent_rate),
    )
    total = -(-frames // round(pipeline.step_seconds * MOTION_RATE))
    track = np.zeros((frames, MOTION_SIZE), np.float32)
    turns = turns_of(pipeline, user, agent, user_motion, user_rate, agent_rate, motion_rate, speech_ahead=speech_ahead)
    for done, motion in enumerate(run(pipeline, turns), start=1):
        # Each frame belongs to the speech at its time. The head rests in the first hop if its motion is unknown.
        first = round(motion.about_ns * MOTION_RATE / NS)
        track[first : first + len(motion.frames)] = motion.frames[: max(frames - first, 0)]
        if progress is not None:
            progress(min(done, total), total)
    return track


def speaking_frames(agent: Frames, rate: int, frames: int) -> NDArray[np.uint8]:
    """1 for each motion frame in which the agent speaks, as in :class:`TurnMotion`; ``[frames]``."""
    speech = _at_model_rate(agent, rate)
    speech = np.pad(speech, (0, max(0, frames * FRAME_SAMPLES - len(speech))))
    return ActivityDetector().process(speech)[:frames].astype(np.uint8)


def run(pipeline: Pipeline, turns: Iterator[TurnInput]) -> Iterator[TurnMotion]:
    """The motion of each turn that gets motion, in order."""
    for turn in turns:
        motion = pipeline.step(turn)
        if motion is not None:
            yield motion
        pipeline.idle()


def turns_of(
    pipeline: Pipeline,
    user: NDArray[np.float32],
    agent: NDArray[np.float32],
    user_motion: Frames | None = None,
    user_rate: int = MODEL_RATE,
    agent_rate: int = MODEL_RATE,
    motion_rate: float = MOTION_RATE,
    start_ns: int = 0,
    *,
    speech_ahead: bool = True,
) -> Iterator[TurnInput]:
    """The turns of a recorded conversation, cut by the live graph's TurnBuilder."""
    options = pipeline.options
    builder = TurnBuilder.of(options, pipeline.turn_seconds, channel=MIX)  # these are one channel each already
    # A turn that is planned needs the agent's speech to its end, and a little for resampling.
    ahead = math.ceil(pipeline.turn_seconds) if options.mode == "anticipatory" else 0
    if options.mode == "rolling" and speech_ahead:
        ahead = math.ceil(options.look_ahead) + 1
        builder.advance(start_ns - ahead * NS)  # by this clock the first chunk is ahead
    tracks: tuple[tuple[Role, Frames, int, int], ...] = (
        ("user", user, user_rate, 0),
        ("agent", agent, agent_rate, ahead),
    )
    seconds = max(len(user) / user_rate, len(agent) / agent_rate)
    if user_motion is not None:
        # Beyond the audio's end there are no turns.
        user_motion = user_motion[: int(seconds * motion_rate) + 1]
    for now in range(-ahead, math.ceil(seconds)):
        # The tracker's frames first: a turn closes as soon as both voices are complete.
        if user_motion is not None and now >= 0:
            _feed_motion(builder, user_motion, motion_rate, now, start_ns)
        for role, samples, rate, lead in tracks:
            first, last = max(0, (now + lead) * rate), min((now + lead + 1) * rate, len(samples))
            if first < last:
                stamp = start_ns + first * NS // rate
                ended = last == len(samples)
                refused = builder.add_audio(role, stamp, first, rate, samples[first:last], end=ended)
                if refused is not None:
                    raise UserError(f"the {role}'s recording cannot be used ({refused})")
        yield from builder.pop()
    yield from builder.finish()


def _feed_motion(builder: TurnBuilder, frames: Frames, rate: float, second: int, start_ns: int) -> None:
    # One frame beyond the second, to interpolate up to the second's end.
    first, last = int(np.ceil(second * rate - 1e-9)), int(np.ceil((second + 1) * rate - 1e-9)) + 1
    if first < len(frames):
        refused = builder.add_motion(start_ns + round(first * NS / rate), rate, frames[first:last])
        if refused is not None:
            raise UserError(f"the user's motion cannot be used ({refused})")


def _at_model_rate(samples: Frames, rate: int) -> Frames:
    return samples if rate == MODEL_RATE else np.asarray(soxr.resample(samples, rate, MODEL_RATE), dtype=np.float32)
