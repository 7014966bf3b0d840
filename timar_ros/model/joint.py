"""The joint head: samples a turn's head poses as one movement, by rectified flow over coefficients of sines.

Frames sampled one by one cannot agree on the start of a nod. Here one point of K x 3 numbers is a turn of F frames of
the head's three angles: the first K coefficients of an orthonormal sine transform (DST-VII) of the head's displacement
from its last pose. The sines are 0 at the frame before the turn and free at the turn's end, so that turns join by
construction (K = 14 of 25 frames: up to 7 Hz). A network learns the velocity from noise to that point (Liu et al. 2022,
arXiv 2209.03003; Lipman et al. 2022, arXiv 2210.02747) given the conditioning of all F frames, the last frames shown,
and how lively the head is.
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Frames before the turn that condition the head, and the sizes of its conditions.
SHOWN = 12
_SUMMARY, _FREQUENCIES = 256, 32
# Chance in training that the frames before the turn, or the liveliness, are hidden.
SHOWN_DROP, STYLE_DROP = 0.1, 0.15
# Deviation that a movement may keep from frames of it that are known, in standard deviations of the pose.
KNOWN_NOISE = 0.1
# Noise on the previous frames in training, in standard deviations of the pose: shown frames never equal the truth.
SHOWN_NOISE = 0.04


@functools.cache
def sines(count: int, frames: int, device: torch.device) -> Tensor:
    """The first ``count`` rows of the orthonormal DST-VII of ``frames`` points, ``[K, F]``."""
    rank, frame = np.arange(count)[:, None], np.arange(frames)[None, :]
    rows = 2 / math.sqrt(2 * frames + 1) * np.sin(math.pi * (2 * rank + 1) * (frame + 1) / (2 * frames + 1))
    return torch.as_tensor(rows, dtype=torch.float32, device=device)


def known_gain(scale: NDArray[np.floating], frames: int, count: int) -> NDArray[np.float32]:
    """How the first ``count`` frames of a movement, where they are known, correct its coefficients, ``[3, K, F]``.

    The mean of the coefficients given these frames, for coefficients of unit variance and frames that are known up to
    :data:`KNOWN_NOISE`: the correction is the gain times the difference in the frames. 0 for frames that are not known.

    :param scale: deviation of each coefficient, ``[K, 3]``.
    """
    gain = np.zeros((3, len(scale), frames), np.float32)
    waves = sines(len(scale), frames, torch.device("cpu")).double().numpy()[:, :count]
    for axis, deviations in enumerate(scale.astype(np.float64).T):
        weighted_waves = waves.T * deviations
        inverse = np.linalg.inv(weighted_waves @ weighted_waves.T + KNOWN_NOISE**2 * np.eye(count))
        gain[axis, :, :count] = weighted_waves.T @ inverse
    return gain


class JointBlock(nn.Module):
    """x + mlp(LN(x), conditioning)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fuse = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, width)

    def condition(self, cond: Tensor) -> Tensor:
        """Addition of ``cond [..., width]`` to the fused features, ``[..., width]``: once for all sampler steps."""
        return nn.functional.linear(cond, self.fuse.weight[:, cond.shape[-1] :], self.fuse.bias)

    def forward(self, x: Tensor, conditioned: Tensor) -> Tensor:
        """``x [n, width]``, with ``conditioned [n, width]`` from :meth:`condition`, to the same shape."""
        fused = nn.functional.linear(self.norm(x), self.fuse.weight[:, : x.shape[-1]]) + conditioned
        out: Tensor = x + self.out(nn.functional.silu(fused))
        return out


class JointHead(nn.Module):
    """The velocity network, its loss and its sampler. Poses are standardised, ``[n, F, 3]``.

    :param frames: F, of a turn.
    :param cond_width: D, of the conditioning.
    :param coefficients: K, of every angle.
    """

    def __init__(self, frames: int, cond_width: int, width: int, depth: int, coefficients: int) -> None:
        super().__init__()
        self.frames, self.coefficients = frames, coefficients
        self.cond_norm = nn.LayerNorm(cond_width)
        self.summary = nn.Linear(frames * cond_width, _SUMMARY)
        self.shown_proj = nn.Linear(3 * SHOWN + 3, width)
        self.cond_proj = nn.Linear(_SUMMARY, width)
        self.time_proj = nn.Linear(2 * _FREQUENCIES, width)
        self.input_proj = nn.Linear(3 * coefficients, width)
        self.blocks = nn.ModuleList(JointBlock(width) for _ in range(depth))
        self.out_proj = nn.Linear(width, 3 * coefficients)

    def context(self, z: Tensor, shown: Tensor, style: Tensor) -> Tensor:
        """The velocity's conditions, ``[n, width]``.

        :param z: conditioning of the turn's frames, ``[n, F, D]``.
        :param shown: the poses before the turn, oldest first, ``[n, SHOWN, 3]``; NaN where not known.
        :param style: liveliness, standardised ``[n]``; NaN where not known.
        """
        known, styled = ~shown.isnan().flatten(1).any(1, keepdim=True), ~style.isnan().unsqueeze(1)
        before = torch.where(known, shown.nan_to_num().flatten(1), 0.0)
        facts = torch.cat((before, known, torch.where(styled, style.nan_to_num().unsqueeze(1), 0.0), styled), dim=1)
        summary = nn.functional.silu(self.summary(self.cond_norm(z).flatten(1)))
        out: Tensor = self.cond_proj(summary) + self.shown_proj(facts.to(z.dtype))
        return out

    def velocity(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """``x [n, 3K]`` at ``time [n]`` within 0 (noise) and 1, ``context [n, width]``, to ``[n, 3K]``."""
        return self._velocity(x, self._conditions(time, context))

    def _conditions(self, time: Tensor, context: Tensor) -> list[Tensor]:
        """Additions of time ``[...]`` and context ``[..., width]`` to the input and to each block, ``[..., width]``."""
        rates = torch.exp(torch.linspace(0, 5, _FREQUENCIES, device=time.device))
        angles = time.unsqueeze(-1) * rates
        cond = context + self.time_proj(torch.cat((angles.sin(), angles.cos()), -1).to(context.dtype))
        return [cond, *(cast("JointBlock", block).condition(cond) for block in self.blocks)]

    def _velocity(self, x: Tensor, conditions: list[Tensor]) -> Tensor:
        """As :meth:`velocity`, with :meth:`_conditions` of one time."""
        h = self.input_proj(x.to(conditions[0].dtype)) + conditions[0]
        for block, conditioned in zip(self.blocks, conditions[1:], strict=True):
            h = block(h, conditioned)
        out: Tensor = self.out_proj(nn.functional.silu(h)).float()
        return out

    def encode(self, poses: Tensor, last: Tensor, scale: Tensor) -> Tensor:
        """Poses ``[n, F, 3]`` as coefficients ``[n, 3K]`` of the offset from ``last [n, 3]``, in units of ``scale``.

        :param scale: deviation of each coefficient, ``[K, 3]``.
        """
        with torch.autocast(poses.device.type, enabled=False):
            away = poses.float() - last.unsqueeze(1)
            coefficients = torch.einsum("kf,nfa->nka", sines(self.coefficients, self.frames, poses.device), away)
            return (coefficients / scale).flatten(1)

    def decode(self, coefficients: Tensor, last: Tensor, scale: Tensor) -> Tensor:
        """The inverse of :meth:`encode`: poses ``[n, F, 3]``, smooth up to the last sine."""
        with torch.autocast(last.device.type, enabled=False):
            scaled = coefficients.float().view(-1, self.coefficients, 3) * scale
            way = torch.einsum("kf,nka->nfa", sines(self.coefficients, self.frames, scaled.device), scaled)
            return way + last.unsqueeze(1)

    def loss(
        self,
        poses: Tensor,
        z: Tensor,
        shown: Tensor,
        style: Tensor,
        scale: Tensor,
        generator: torch.Generator,
        draws: int,
    ) -> Tensor:
        """Squared error of the velocity, ``[n]``, a mean over coefficients and draws of noise and time.

        Conditions are hidden at random (:data:`SHOWN_DROP`, :data:`STYLE_DROP`).

        :param generator: a CPU generator for all random numbers.
        """
        count, device = len(poses), poses.device

        def chance(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator).to(device)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        shown = shown + SHOWN_NOISE * normal(count, 1, 3) + 0.25 * SHOWN_NOISE * normal(count, SHOWN, 3)
        shown = torch.where((chance(count) < SHOWN_DROP).view(-1, 1, 1), torch.nan, shown)
        style = torch.where(chance(count) < STYLE_DROP, torch.nan, style)
        target = self.encode(poses, _last(shown, poses[:, 0]), scale).repeat(draws, 1)
        context = self.context(z, shown, style).repeat(draws, 1)
        time = torch.sigmoid(normal(draws * count))
        noise = normal(*target.shape)
        mixed = (1 - time).unsqueeze(1) * noise + time.unsqueeze(1) * target
        error = self.velocity(mixed, time, context) - (target - noise)
        return error.square().mean(1).view(draws, count).mean(0)

    def sample(
        self,
        z: Tensor,
        shown: Tensor,
        style: Tensor,
        noise: Tensor,
        scale: Tensor,
        steps: int,
        guidance: float | Tensor = 1.0,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Poses ``[n, F, 3]`` (fp32) for ``z [n, G, F, D]``; G = 2: the second without the user, for ``guidance``.

        :param noise: ``[n, K, 3]`` of unit variance.
        :param known: poses ``[n, F, 3]`` that the movement must go through, and gains ``[n, 3, K, F]`` as of
            :func:`known_gain`, 0 for frames that are not known. At every step the expected end of the flow is corrected
            (as in Pokle et al. 2023, arXiv 2310.04432, without the network's derivative).
        """
        branches = z.shape[1]
        both = torch.cat([self.context(z[:, branch], shown, style) for branch in range(branches)])
        x = noise.flatten(1).float()
        # A head without a last pose begins at the training set's mean.
        last = _last(shown, torch.zeros_like(x[:, :3]))
        # A product of many rows reads its weights once: terms that do not depend on x are computed for all steps
        # together.
        conditions = self._conditions(_times(steps, x.device).expand(-1, len(both)), both)
        for step, (now, then) in enumerate(pairwise(_time(each / steps) for each in range(steps + 1))):
            speed = self._velocity(x.repeat(branches, 1), [each[step] for each in conditions])
            if branches == 2:
                conditional, unconditional = speed.chunk(2)
                speed = unconditional + guidance * (conditional - unconditional)
            if known is not None:
                poses, gain = known
                end = x + (1.0 - now) * speed
                left = poses - self.decode(end, last, scale)
                end = end + torch.einsum("nakf,nfa->nka", gain, left).flatten(1)
                speed = (end - x) / (1.0 - now)
            x = x + (then - now) * speed
        return self.decode(x, last, scale)


def _time(share: float) -> float:
    """The sampler's time after a share of its steps: slightly denser near both ends than evenly."""
    return 0.5 * share + 0.5 * (1 - math.cos(math.pi * share)) / 2


@functools.cache
def _times(steps: int, device: torch.device) -> Tensor:
    """The times of the sampler's steps, ``[steps, 1]``; cached: a recorded graph may copy nothing to its device."""
    return torch.tensor([[_time(step / steps)] for step in range(steps)], device=device)


def _last(shown: Tensor, unknown: Tensor) -> Tensor:
    """The last shown pose ``[n, 3]``; ``unknown [n, 3]`` where it is not known."""
    known = ~shown.isnan().flatten(1).any(1, keepdim=True)
    return torch.where(known, shown[:, -1].nan_to_num(), unknown)
