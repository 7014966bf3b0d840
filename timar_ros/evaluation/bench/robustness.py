"""Effect of typical faults on a robot on a model's motion: noise, overlap, losses, lateness, mis-cut turns.

Each disturbance changes the model's input at growing severities; the resulting motion is compared with the undisturbed
run's, with the clean voice, and with the truth if there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from timar_ros.bags.recording import load_recording
from timar_ros.data.corrupted_copies import corrupt
from timar_ros.data.disturbances import Corruption
from timar_ros.data.dualtalk_folder import DualTalkFolder, Item
from timar_ros.errors import UserError
from timar_ros.evaluation.metrics import conversation_signals
from timar_ros.motion import EXPRESSION, HEAD, JAW, JAW_OPENING, MOTION_RATE, MOTION_SIZE, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from timar_ros.model import Timar
    from timar_ros.streaming.sampling_options import PipelineOptions

Array = NDArray[np.float32]

#: Severities by disturbance, with their meaning.
DISTURBANCES: dict[str, tuple[str, tuple[float, ...]]] = {
    "noise": ("bursts of noise, SNR in dB", (20.0, 10.0, 0.0)),
    "overlap": ("the other speaker in each microphone, level in dB", (-20.0, -10.0, 0.0)),
    "silence": ("share of the audio that is lost", (0.05, 0.2, 0.5)),
    "drop_motion": ("share of the partner's frames that are not tracked", (0.1, 0.3, 1.0)),
    "shift": ("partner's audio and motion late by s", (0.1, 0.3, 1.0)),
    "miscut": ("turns cut late by a share of a turn", (0.1, 0.25, 0.5)),
}

COLUMNS = ("drift_exp", "drift_jaw", "drift_pose", "lip_correlation", "head_speed", "seam_ratio", "truth_exp")
LABELS = {
    "drift_exp": "change, expression",
    "drift_jaw": "change, jaw",
    "drift_pose": "change, head",
    "lip_correlation": "jaw with voice",
    "head_speed": "head speed °/s",
    "seam_ratio": "seams",
    "truth_exp": "error, expression",
}


@dataclass(frozen=True)
class Row:
    """One severity of one disturbance; ``values`` by :data:`COLUMNS`.

    ``drift_*``: root mean square difference to the undisturbed motion, in deviations of that motion.
    """

    disturbance: str
    severity: float | None
    values: dict[str, float]


def items_of(source: str | Path, split: str | None = None, limit: int = 4) -> Iterator[tuple[str, Item, bool]]:
    """Name, inputs, and whether ``agent_motion`` is a truth, of a bag or of a DualTalk folder's first conversations.

    :raises UserError: when the source is neither.
    """
    path = Path(source)
    folder = path.is_dir() and not any(path.glob("*.mcap")) and any(path.rglob("*_speaker1.wav"))
    if folder:
        data = DualTalkFolder(path, split, normalise=False)
        for clip in data.clips(None)[:limit]:
            yield clip.name, data.load(clip), True
        return
    recording = load_recording(path)
    if recording.user_audio is None or recording.agent_audio is None:
        raise UserError(f"{path}: both speakers' audio is needed")
    count = int(recording.seconds * MOTION_RATE)
    user = recording.user_motion
    unknown = np.full((count, MOTION_SIZE), np.nan, np.float32)
    yield (
        recording.name,
        Item(
            user_speech=recording.user_audio[: count * SAMPLES_PER_FRAME],
            agent_speech=recording.agent_audio[: count * SAMPLES_PER_FRAME],
            user_motion=unknown if user is None else user.at_rate(count / MOTION_RATE),
            agent_motion=unknown,
        ),
        False,
    )


def disturbed(item: Item, disturbance: str, severity: float, turn_seconds: float, seed: int) -> Item:
    """A disturbed copy of the inputs; shapes stay, except that a mis-cut shortens all arrays by its shift.

    :raises UserError: for an unknown disturbance.
    """
    if disturbance == "overlap":
        gain = np.float32(10 ** (severity / 20))
        mixed = Item(**item)
        mixed["user_speech"] = item["user_speech"] + gain * item["agent_speech"]
        mixed["agent_speech"] = item["agent_speech"] + gain * item["user_speech"]
        return mixed
    if disturbance == "miscut":
        frames = round(severity * turn_seconds * MOTION_RATE)
        samples = frames * SAMPLES_PER_FRAME
        return Item(
            user_speech=item["user_speech"][samples:],
            agent_speech=item["agent_speech"][samples:],
            user_motion=item["user_motion"][frames:],
            agent_motion=item["agent_motion"][frames:],
        )
    return corrupt(item, Corruption(disturbance, severity), np.random.default_rng(seed))


def measure_robustness(
    model: Timar,
    options: PipelineOptions,
    source: str | Path,
    *,
    split: str | None = None,
    limit: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """A row for the undisturbed run and for each severity of each disturbance, means over conversations.

    :param seed: of the disturbances; the options hold the sampling's seed.
    :raises UserError: when the source cannot be used.
    """
    from timar_ros.streaming.offline import generate

    items = list(items_of(source, split, limit))
    if not items:
        raise UserError(f"{source} holds no conversation")
    plan = [("undisturbed", None), *((name, s) for name, (_, ladder) in DISTURBANCES.items() for s in ladder)]
    clean: dict[str, Array] = {}
    rows = []
    for index, (disturbance, severity) in enumerate(plan):
        found: list[dict[str, float]] = []
        for name, item, has_truth in items:
            hurt = item
            if severity is not None:
                hurt = disturbed(item, disturbance, severity, model.config.turn_seconds, seed)
            user_motion = None if np.isnan(hurt["user_motion"]).all() else hurt["user_motion"]
            motion = generate(model, options, hurt["user_speech"], hurt["agent_speech"], user_motion)
            clean.setdefault(name, motion)
            cut = len(item["agent_speech"]) - len(hurt["agent_speech"])
            offset = cut // SAMPLES_PER_FRAME
            found.append(_values(motion, clean[name][offset:], item, offset, has_truth, model.config.turn_frames))
            if progress is not None:
                progress(index * len(items) + len(found), len(plan) * len(items))
        rows.append(Row(disturbance, severity, _means(found)))
    return rows


def _values(
    motion: Array, clean: Array, item: Item, offset: int, has_truth: bool, turn_frames: int
) -> dict[str, float]:
    count = min(len(motion), len(clean))
    motion, clean = motion[:count], clean[:count]
    values = {}
    for group, columns in (("exp", EXPRESSION), ("jaw", JAW), ("pose", HEAD)):
        spread = float(clean[:, columns].std(axis=0).mean())
        change = float(np.sqrt(np.mean(np.square(motion[:, columns] - clean[:, columns]))))
        values[f"drift_{group}"] = change / spread if spread > 1e-9 else float("nan")
    # Lips are compared with the clean voice, not with the disturbed voice that the model gets.
    voice = item["agent_speech"][offset * SAMPLES_PER_FRAME :]
    values["lip_correlation"] = conversation_signals.lip_offset(voice, motion[:, JAW_OPENING])[1]
    values["head_speed"] = float(np.degrees(conversation_signals.speed(motion[:, HEAD], MOTION_RATE).mean()))
    values["seam_ratio"] = conversation_signals.seam_ratio(motion, turn_frames)
    if has_truth:
        truth = item["agent_motion"][offset : offset + count]
        values["truth_exp"] = float(np.mean(np.square(motion[: len(truth), EXPRESSION] - truth[:, EXPRESSION])))
    return values


def _means(found: list[dict[str, float]]) -> dict[str, float]:
    means = {}
    for key in found[0]:
        known = [values[key] for values in found if np.isfinite(values[key])]
        means[key] = float(np.mean(known)) if known else float("nan")
    return means
