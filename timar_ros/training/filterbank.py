"""Pre-training of a small speech encoder: it first learns to predict the log-mel energies of its input.

wav2vec 2.0's convolutions take tens of thousands of hours to find their filters. A small encoder that learns from a few
hours of synthetic voices gets its filters by construction (windowed sinusoids on the mel scale) and by a few hundred
steps of regression on log-mel energies, which every voice has. Training then continues end to end.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timar_ros.model.speech_encoder import encode
from timar_ros.motion import MODEL_RATE

BANDS = 40
WINDOW = 640
# Power below which a band counts as silent, for speech of unit variance: 40 dB under its mean.
FLOOR = 1e-4

log = logging.getLogger(__name__)


def mel_points(count: int, low: float = 60.0, high: float = 7600.0) -> np.ndarray:
    """``count`` frequencies in Hz, evenly spaced on the mel scale (HTK's formula), ends included."""
    ends = 2595 * np.log10(1 + np.array([low, high]) / 700)
    return np.asarray(700 * (10 ** (np.linspace(ends[0], ends[1], count) / 2595) - 1))


@torch.no_grad()
def initialise_filters(encoder: nn.Module, seed: int = 0) -> bool:
    """Make the first convolution a bank of windowed sinusoids, four phases a frequency, if its kernel is long enough.

    Its bias becomes a fixed pattern: the pattern's size after the LayerNorm over channels shows the level. Returns
    whether anything changed.
    """
    conv = encoder.feature_extractor.conv_layers[0].conv  # type: ignore[union-attr,index]
    assert isinstance(conv, nn.Conv1d)
    channels, _, kernel = conv.weight.shape
    if kernel < 100:
        return False
    frequencies = np.repeat(mel_points(-(-channels // 4)), 4)[:channels, None]
    phases = np.tile(np.arange(4) * np.pi / 2, -(-channels // 4))[:channels, None]
    time = np.arange(kernel) / MODEL_RATE
    filters = np.hanning(kernel) * np.cos(2 * np.pi * frequencies * time + phases)
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    conv.weight.copy_(torch.from_numpy(filters[:, None]).to(conv.weight))
    if conv.bias is not None:
        conv.bias.copy_(0.3 * torch.randn(channels, generator=torch.Generator().manual_seed(seed)))
    return True


@functools.cache
def _mel_matrix() -> Tensor:
    """Triangular filters over the power spectrum, ``[WINDOW // 2 + 1, BANDS]``."""
    points = mel_points(BANDS + 2)
    frequency = np.fft.rfftfreq(WINDOW, 1 / MODEL_RATE)[:, None]
    rise = (frequency - points[:-2]) / (points[1:-1] - points[:-2])
    fall = (points[2:] - frequency) / (points[2:] - points[1:-1])
    triangles = np.maximum(np.minimum(rise, fall), 0)
    return torch.from_numpy((triangles / np.maximum(triangles.sum(0), 1e-9)).astype(np.float32))


def log_mel(speech: Tensor, frames: int) -> Tensor:
    """Log-mel energies ``[B, frames, BANDS]`` of ``speech [B, N]``, one 40 ms window centred on every motion frame."""
    hop = speech.shape[-1] // frames
    padded = F.pad(speech.float(), ((WINDOW - hop) // 2, WINDOW - hop - (WINDOW - hop) // 2))
    windows = padded.unfold(-1, WINDOW, hop)[:, :frames] * torch.hann_window(WINDOW, device=speech.device)
    power = torch.fft.rfft(windows).abs().square() / (0.375 * WINDOW)
    return torch.log(power @ _mel_matrix().to(power) + FLOOR)


def fit_filterbank(
    encoder: nn.Module,
    speech: Iterable[Tensor],
    frames: int,
    steps: int,
    learning_rate: float,
    autocast: Callable[[], AbstractContextManager[None]],
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Train ``encoder`` alone to predict log-mel energies, through a linear layer that is then discarded.

    :param speech: batches of turns ``[B, N]``; training ends early when they run out.
    :param progress: called after every step with (steps done, all steps).
    :returns: share of the energies' variance that is explained at the end (mean of the last tenth of the steps).
    """
    width = int(encoder.config.hidden_size)  # type: ignore[union-attr,arg-type]
    device = next(encoder.parameters()).device
    readout = nn.Linear(width, BANDS).to(device)
    parameters = [*encoder.parameters(), *readout.parameters()]
    optimiser = torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    explained: list[float] = []
    encoder.train()
    for step, batch in enumerate(speech):
        if step >= steps:
            break
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / (0.05 * steps))
            group["lr"] = learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        target = log_mel(batch, frames)
        if step == 0:
            with torch.no_grad():
                readout.bias.copy_(target.mean((0, 1)))
        with autocast():
            prediction = readout(encode(encoder, batch, frames))
        error = (prediction.float() - target).square().mean((0, 1))
        # Without this a silent band would have unbounded weight.
        variance = target.var((0, 1)) + 0.1
        loss = (error / variance).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if progress is not None:
            progress(step + 1, steps)
        explained.append(1 - float(loss.detach()))
        if (step + 1) % 100 == 0:
            log.info(
                "speech encoder: step %d of %d, %.3f of log-mel variance explained", step + 1, steps, explained[-1]
            )
    tail = explained[-max(1, len(explained) // 10) :]
    return float(np.mean(tail)) if tail else 0.0
