"""Training of the voice gate alone, on a trained model's frozen speech encoder: minutes on one core.

The clips use the training voices: unchanged, over a background, with music, singing or a machine turned up between
phrases, and with such a sound in place of the voice.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from timar_ros.data.dualtalk_folder import DualTalkFolder
from timar_ros.errors import UserError
from timar_ros.model import Timar
from timar_ros.motion import MOTION_RATE
from timar_ros.streaming.activity import ActivityDetector
from timar_ros.training.audio_augmentation import colour, with_background
from timar_ros.training.backgrounds import background
from timar_ros.training.run_config import TrainConfig

log = logging.getLogger(__name__)

CLIPS, EPOCHS, BATCH, RATE = 600, 12, 64, 2e-3
# The mouth opens before the voice and closes after it [frames]; the activity detector itself holds for 0.16 s.
OPENS, CLOSES = 4, 3
# Shares of clips with a sound in place of the voice, turned up between phrases, and behind the voice.
ALONE, BETWEEN, BEHIND = 0.2, 0.35, 0.2
BETWEEN_SNR_DB = (-6.0, 8.0)
LEVEL_DB = 3.0

Array = NDArray[np.float32]


def fit_voice_gate(
    model: Timar, config: TrainConfig, skip: frozenset[str] = frozenset(), clips: int = CLIPS
) -> dict[str, float]:
    """Train ``model.voice_gate`` on clips of the training split; nothing else of the model changes.

    :returns: accuracy on a held-out tenth of the clips (``accuracy``), and the share of their frames with a voice
        (``voiced``).
    :raises UserError: when no conversation is as long as a clip.
    """
    folder = DualTalkFolder(config.data.path, config.data.split, normalise=False, skip=skip)
    every = folder.clips(config.data.clip_seconds)
    if not every:
        raise UserError(f"{config.data.path}: no conversation is as long as a clip ({config.data.clip_seconds} s)")
    rng = np.random.default_rng([config.seed, 11])
    model.eval()
    tokens, voiced = [], []
    for index in np.resize(rng.permutation(len(every)), clips):
        heard, speaks = disturbed(np.asarray(folder.load(every[index])["agent_speech"], np.float32), config, rng)
        with torch.inference_mode():
            turns = torch.from_numpy(heard).view(-1, model.config.turn_samples).to(model.device)
            tokens.append(model.encode_speech(turns).float().cpu())
        voiced.append(torch.from_numpy(speaks.astype(np.float32)).view(len(turns), -1))
    # A tensor made in inference mode cannot be trained on; a copy can.
    return _fit(model.voice_gate, torch.stack(tokens).clone(), torch.stack(voiced), config.seed)


def disturbed(speech: Array, config: TrainConfig, rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """A randomly disturbed clip ``[N]``, normalised, and the frames ``[T]`` in which a mouth may be open."""
    speaks = ActivityDetector().process(speech)
    may = speaks.copy()
    for lead in range(1, OPENS + 1):
        may[:-lead] |= speaks[lead:]
    for lag in range(1, CLOSES + 1):
        may[lag:] |= speaks[:-lag]
    voice = colour(speech / np.float32(speech.std() + 1e-6), config.augment, rng)
    kind = rng.random()
    if kind < ALONE:
        voice, may = background(len(speech), rng), np.zeros_like(may)
    elif kind < ALONE + BETWEEN:
        pauses = np.repeat(~speaks, len(speech) // len(speaks)).astype(np.float32)
        fade = np.hanning(round(0.2 * len(speech) / len(speaks) * MOTION_RATE))
        pauses = np.convolve(np.pad(pauses, (0, len(speech) - len(pauses))), fade / fade.sum(), "same")
        level = 10 ** (-rng.uniform(*BETWEEN_SNR_DB) / 20)
        voice = voice + np.asarray(level * pauses, np.float32) * background(len(speech), rng)
    elif kind < ALONE + BETWEEN + BEHIND:
        voice = with_background(voice, config.augment, rng, None)
    voice = voice / np.float32(voice.std() + 1e-6) * np.float32(10 ** (rng.normal(0, LEVEL_DB) / 20))
    return np.ascontiguousarray(voice, np.float32), may


def _fit(gate: nn.Module, tokens: Tensor, voiced: Tensor, seed: int) -> dict[str, float]:
    """``tokens [clips, turns, F, d]``, ``voiced [clips, turns, F]``; the last tenth of the clips is held out."""
    kept = max(1, len(tokens) // 10)
    known, answers = tokens[:-kept].flatten(0, 1), voiced[:-kept].flatten(0, 1)
    device = next(gate.parameters()).device
    optimiser = torch.optim.AdamW(gate.parameters(), RATE, weight_decay=0.02)
    steps = EPOCHS * -(-len(known) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    gate.requires_grad_(True)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(known), generator=generator).split(BATCH):
            logits = gate.logits(known[chosen].to(device))  # type: ignore[operator]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, answers[chosen].to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        logits = gate.logits(tokens[-kept:].flatten(0, 1).to(device)).cpu() > 0  # type: ignore[operator]
    truth = voiced[-kept:].flatten(0, 1) > 0
    found = {"accuracy": float((logits == truth).float().mean()), "voiced": float(truth.float().mean())}
    log.info("voice gate: %.3f of the held-back frames are classified right (%.3f have a voice)", *found.values())
    return found
