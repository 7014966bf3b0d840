"""`timar study`: heads of several systems in the same conversations, as one page on which people rate them blind.

The page names no system: trials and motions have numbers only. A second file, the key, maps numbers to systems.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from timar_ros.errors import UserError
from timar_ros.evaluation.judge import Maker, Order
from timar_ros.evaluation.metrics.believable import Talk
from timar_ros.files import atomic_path
from timar_ros.motion import HEAD, JAW_OPENING, MODEL_RATE, MOTION_RATE, SAMPLES_PER_FRAME

QUESTIONS = {
    "alive": "The head looks alive.",
    "listens": "The head listens to its partner.",
    "lips": "The mouth fits the voice.",
}
SCALE = 7
INTRODUCTION = (
    "You will see a head in short conversations: its own voice is heard on the right, its partner's on the left. "
    "Play each one to its end, then rate it. Only the movement of the head and the mouth differs. It takes a few "
    "minutes; nothing leaves this page but the file that you save at the end."
)
PLACE = "@STUDY@"


def key_path(out: Path) -> Path:
    """The path of a page's key."""
    return out.with_name(f"{out.stem}.key.json")


def write_study(makers: Sequence[Maker], talks: Sequence[Talk], out: Path, seconds: float, seed: int) -> Path:
    """Write the page and its key; returns the key's path.

    :param seconds: length of each trial: the middle of the conversation.
    :raises UserError: two systems of one name, or nothing to show.
    """
    labels = [maker.label for maker in makers]
    if len(set(labels)) < len(labels) or len(labels) < 2:
        raise UserError(f"{', '.join(labels)}: give two systems or more, each once")
    frames = round(seconds * MOTION_RATE)
    if not talks or frames < MOTION_RATE:
        raise UserError("nothing to show: give conversations, and a second or more of each")
    windows = [_middle(talk.frames, frames) for talk in talks]
    sounds = [_sound(talk, window) for talk, window in zip(talks, windows, strict=True)]
    motions: list[list[list[float]]] = []
    trials: list[dict[str, Any]] = []
    whose: dict[str, dict[str, str]] = {}
    rows = [
        (label, number, motion[windows[number]])
        for maker, label in zip(makers, labels, strict=True)
        for number, motion in enumerate(maker.make([Order(talk, seed) for talk in talks]))
    ]
    # The order in the file must not reveal a trial's system.
    for place in np.random.default_rng(seed).permutation(len(rows)):
        label, number, motion = rows[place]
        name = f"t{len(trials)}"
        whose[name] = {"system": label, "conversation": talks[number].name}
        trials.append({"id": name, "sound": number, "motion": len(motions)})
        motions.append(_shown(motion))
    content = {
        "rate": MOTION_RATE,
        "scale": SCALE,
        "questions": QUESTIONS,
        "introduction": INTRODUCTION,
        "trials": trials,
        "motions": motions,
        "sounds": sounds,
    }
    content["id"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    page = (Path(__file__).parent / "study_assets" / "study.html").read_text(encoding="utf-8")
    # "</" would end the script that holds the data.
    page = page.replace(PLACE, json.dumps(content, separators=(",", ":")).replace("</", "<\\/"))
    key = {"format": "timar study key 1", "study": content["id"], "scale": SCALE, "trials": whose}
    with atomic_path(key_path(out)) as path:
        path.write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
    with atomic_path(out) as path:
        path.write_text(page, encoding="utf-8")
    return key_path(out)


def _middle(total: int, wanted: int) -> slice:
    first = max(0, (total - wanted) // 2)
    return slice(first, min(total, first + wanted))


def _shown(motion: NDArray[np.float32]) -> list[list[float]]:
    """Pitch, yaw, roll and jaw of each frame [rad]."""
    columns = np.concatenate([motion[:, HEAD], motion[:, JAW_OPENING : JAW_OPENING + 1]], axis=1)
    return [[round(float(value), 4) for value in row] for row in columns]


def _sound(talk: Talk, window: slice) -> str:
    """Both voices, the partner's left, as a FLAC file in a data URL."""
    part = slice(window.start * SAMPLES_PER_FRAME, window.stop * SAMPLES_PER_FRAME)
    voices = np.stack([np.asarray(voice[part], np.float32) for voice in (talk.user, talk.agent)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, np.clip(voices, -1, 1), MODEL_RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode()}"
