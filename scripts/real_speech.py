"""Measure a model's behaviour with real voices: lips, silence and noise, as tables.

    python scripts/real_speech.py --conversation DIR/X [--recordings FILE...] [--model timar-mini] [--seeds 8] ...

A conversation is two voices and the tracked motion of the second (X_speaker1.wav, X_speaker2.wav, X_speaker2.npz): the
model is the second speaker, without a tracker. Recordings are people talking, at any rate: each is used twice, once as
the user's voice with a silent agent, once as the agent's voice.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.data.audio_files import read_audio
from timar_ros.data.dualtalk_folder import load_motion
from timar_ros.evaluation.metrics.behaviour import measure, nod_power, phrase_ends
from timar_ros.evaluation.metrics.conversation_signals import voice_activity
from timar_ros.model import Timar
from timar_ros.motion import HEAD, JAW_OPENING, MODEL_RATE, MOTION_RATE, PITCH
from timar_ros.streaming.offline import generate, resolve_model
from timar_ros.streaming.sampling_options import PipelineOptions

Floats = NDArray[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--conversation", help="DIR/X of X_speaker1.wav, X_speaker2.wav and X_speaker2.npz")
    parser.add_argument("--recordings", nargs="*", default=[], help="people talking")
    parser.add_argument("--model", default="timar-mini")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of PipelineOptions")
    args = parser.parse_args()
    model = resolve_model(args.model)
    options = dict(_option(text) for text in args.option)
    every = [PipelineOptions(seed=seed, **options) for seed in range(args.seeds)]
    if args.conversation:
        conversation(model, every, args.conversation)
    voices = [read_audio(file) for file in args.recordings]
    if voices:
        listening(model, every, voices)
        speaking(model, every, voices)


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        return name, value
    return name, int(number) if name == "sampling_steps" else number


def conversation(model: Timar, every: Sequence[PipelineOptions], stem: str) -> None:
    """Measure the model as the second speaker of a recorded conversation."""
    user, agent = (read_audio(f"{stem}_speaker{speaker}.wav") for speaker in (1, 2))
    truth = np.asarray(load_motion(Path(f"{stem}_speaker2.npz")))
    rows = []
    for options in every:
        motion = generate(model, options, user, agent)[: len(truth)]
        found, real = measure(motion, truth, user, agent), truth[: len(motion)]
        spread = motion.std(0) / np.maximum(real.std(0), 1e-6)
        steps = np.diff(motion[:, HEAD], axis=0).std(0) / motion[:, HEAD].std(0)
        rows.append([found["jaw_follows"], *spread[HEAD], spread[JAW_OPENING], found["seam_ratio"], steps.mean()])
    print(f"conversation, {len(rows)} seeds: mean (lowest to highest)")
    names = ("lips r", "head x / tracked", "head y / tracked", "head z / tracked", "jaw / tracked", "seam", "step/sd")
    for name, column in zip(names, np.transpose(rows), strict=True):
        print(f"  {name:18} {column.mean():5.2f}  ({column.min():.2f} to {column.max():.2f})")
    talks, heard = voice_activity(agent), voice_activity(user)
    count = min(len(talks), len(heard), len(truth))
    after, otherwise = nod_power(truth[:count, PITCH], talks[:count], phrase_ends(heard[:count]))
    silent, after_phrases = (count / MOTION_RATE for count in (len(after) + len(otherwise), len(after)))
    print(
        f"  the agent is silent {silent:.1f} s of it, {after_phrases:.1f} s of that "
        f"after the user's phrases; the tracked person's nods there: {after.mean() / otherwise.mean():.2f}"
    )


def listening(model: Timar, every: Sequence[PipelineOptions], voices: Sequence[Floats]) -> None:
    """Measure nods after phrases, and the jaw, with recorded people as the user and a silent agent."""
    ends, jaws, powers = 0, [], []
    for voice in voices:
        heard = voice_activity(voice)
        ended = phrase_ends(heard)
        ends += len(ended)
        several = []
        for options in every:
            motion = generate(model, options, voice, np.zeros_like(voice))[: len(heard)]
            after, otherwise = nod_power(motion[:, PITCH], np.zeros(len(motion), bool), ended)
            several.append((after.mean(), otherwise.mean()))
            jaws.append(motion[:, JAW_OPENING].mean())
        powers.append(np.mean(several, axis=0))
    after, otherwise = np.transpose(powers)
    picks = np.random.default_rng(0).integers(0, len(voices), (2000, len(voices)))
    low, high = np.quantile(after[picks].mean(1) / otherwise[picks].mean(1), (0.025, 0.975))
    seconds = sum(len(voice) for voice in voices) / MODEL_RATE
    print(f"listening to {len(voices)} recordings ({seconds:.0f} s, {ends} phrases), {len(every)} seeds:")
    print(
        f"  nods after phrases / elsewhere {after.mean() / otherwise.mean():.2f} (95 % over recordings: {low:.2f} to "
        f"{high:.2f}); {(after / otherwise >= 1.5).sum()} of {len(voices)} recordings at 1.5 or more; "
        f"{1e3 * np.sqrt(after.mean()):.1f} against {1e3 * np.sqrt(otherwise.mean()):.1f} mrad rms"
    )
    print(f"  mean jaw {1e3 * np.mean(jaws):.0f} mrad")


def speaking(model: Timar, every: Sequence[PipelineOptions], voices: Sequence[Floats]) -> None:
    """Measure the lips, with the same voices as the agent's."""
    found, jaws = [], []
    for voice in voices:
        silence, talks = np.zeros_like(voice), voice_activity(voice)
        for options in every:
            motion = generate(model, options, silence, voice)[: len(talks)]
            found.append(measure(motion, motion, silence, voice)["jaw_follows"])
            jaws.append(motion[talks[: len(motion)], JAW_OPENING].mean())
    each = np.reshape(found, (len(voices), -1)).mean(1)
    print(
        f"speaking with their voices: lips r {np.mean(found):.2f} ({each.min():.2f} to {each.max():.2f} by recording), "
        f"mean jaw while speaking {1e3 * np.mean(jaws):.0f} mrad"
    )


if __name__ == "__main__":
    main()
