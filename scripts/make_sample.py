"""Make samples/: the demo's conversation, with both people's motion. Needs espeak-ng and flite.

python scripts/make_sample.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from timar_ros.data.audio_files import write_audio
from timar_ros.data.motion_files import dualtalk_pose
from timar_ros.files import atomic_path
from timar_ros.motion import EXPRESSION
from timar_ros.synth.conversations import Conversation, converse
from timar_ros.synth.voices import Voice, require_engines

# User left, agent right: two clearly different voices, in no training set.
CAST = (
    Voice("flite", "rms", "m", rate=162.0, pitch=98.0, range=1.3, tract=0.98),
    Voice("flite", "slt", "f", rate=168.0, pitch=178.0, range=1.4, tract=1.03),
)
SECONDS = 40.0
# Chosen for its contents: eleven turns, backchannels of both, overlaps, questions and a shared laugh.
SEED = 30


def make() -> Conversation:
    """The sample conversation, always the same."""
    return converse(CAST, SECONDS, np.random.default_rng(SEED))


def main(folder: Path) -> None:
    require_engines()
    talk = make()
    write_audio(folder / "conversation.flac", talk.audio.T)
    for name, motion in zip(("user", "agent"), talk.motion, strict=True):
        # Tenths of a milliradian are below what a tracker resolves; rounding halves the file.
        frames = np.round(motion, 4)
        pose = dualtalk_pose(frames)
        with atomic_path(folder / f"conversation_{name}.npz") as path, path.open("wb") as file:
            np.savez_compressed(file, exp=frames[:, EXPRESSION], pose=pose, rate=np.float64(25))
    for said in talk.utterances:
        print(f"{said.start:6.2f} {said.end:6.2f}  {('user', 'agent')[said.speaker]:5}  {said.kind:11} {said.text}")
    for path in sorted(folder.glob("conversation*")):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "samples")
