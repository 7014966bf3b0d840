"""The joint head: a turn's head poses drawn as one movement, by rectified flow over the coefficients of its sines.

Frames drawn one by one cannot agree on when a nod begins. Here a turn of F frames of the head's three angles is one
point of K x 3 numbers: the first K coefficients of an orthonormal sine transform (DST-VII) of the head's way from where
it was last. Its sines are 0 at the frame before the turn and free at the turn's end, so that turns join by construction
(K = 14 of 25 frames: up to 7 Hz). A network learns the velocity from noise to that point (Liu et al. 2022, arXiv
2209.03003; Lipman et al. 2022, arXiv 2210.02747) given the conditioning of all F frames, the last frames shown, and how
lively the head is.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor, nn

# Frames before the turn that the head knows of, and the sizes of what conditions it.
SHOWN = 12
_SUMMARY, _FREQUENCIES = 256, 32
# Chance in training that the frames before, or the liveliness, are not given.
SHOWN_DROP, STYLE_DROP = 0.1, 0.15
# Noise on the frames before in training, in standard deviations of the pose: what was shown is never quite the truth.
SHOWN_NOISE = 0.04


@functools.cache
def sines(count: int, frames: int, device: torch.device) -> Tensor:
    """The first ``count`` rows of the orthonormal DST-VII of ``frames`` points, ``[K, F]``."""
    rank, frame = np.arange(count)[:, None], np.arange(frames)[None, :]
    rows = 2 / math.sqrt(2 * frames + 1) * np.sin(math.pi * (2 * rank + 1) * (frame + 1) / (2 * frames + 1))
    return torch.as_tensor(rows, dtype=torch.float32, device=device)


class JointBlock(nn.Module):
    """x + mlp(LN(x), conditioning)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fuse = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """``x [n, width]`` with ``cond [n, width]``, to the same shape."""
        fused: Tensor = self.fuse(torch.cat((self.norm(x), cond), dim=-1))
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
        """What conditions the velocity, ``[n, width]``.

        :param z: conditioning of the turn's frames, ``[n, F, D]``.
        :param shown: the poses before the turn, oldest first, ``[n, SHOWN, 3]``; NaN where not known.
        :param style: liveliness, standardised ``[n]``; NaN where not known.
        """
        known, told = ~shown.isnan().flatten(1).any(1, keepdim=True), ~style.isnan().unsqueeze(1)
        before = torch.where(known, shown.nan_to_num().flatten(1), 0.0)
        facts = torch.cat((before, known, torch.where(told, style.nan_to_num().unsqueeze(1), 0.0), told), dim=1)
        seen = nn.functional.silu(self.summary(self.cond_norm(z).flatten(1)))
        out: Tensor = self.cond_proj(seen) + self.shown_proj(facts.to(z.dtype))
        return out

    def velocity(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """``x [n, 3K]`` at ``time [n]`` within 0 (noise) and 1, ``context [n, width]``, to ``[n, 3K]``."""
        rates = torch.exp(torch.linspace(0, 5, _FREQUENCIES, device=x.device))
        angles = time.unsqueeze(-1) * rates
        cond = context + self.time_proj(torch.cat((angles.sin(), angles.cos()), -1).to(context.dtype))
        h = self.input_proj(x.to(context.dtype)) + cond
        for block in self.blocks:
            h = block(h, cond)
        out: Tensor = self.out_proj(nn.functional.silu(h)).float()
        return out

    def encode(self, poses: Tensor, last: Tensor, scale: Tensor) -> Tensor:
        """Poses ``[n, F, 3]`` as coefficients ``[n, 3K]`` of the way from ``last [n, 3]``, in units of ``scale``.

        :param scale: deviation of each coefficient, ``[K, 3]``.
        """
        with torch.autocast(poses.device.type, enabled=False):
            away = poses.float() - last.unsqueeze(1)
            made = torch.einsum("kf,nfa->nka", sines(self.coefficients, self.frames, poses.device), away)
            return (made / scale).flatten(1)

    def decode(self, coefficients: Tensor, last: Tensor, scale: Tensor) -> Tensor:
        """The inverse of :meth:`encode`: poses ``[n, F, 3]``, smooth up to the last of the sines."""
        with torch.autocast(last.device.type, enabled=False):
            made = coefficients.float().view(-1, self.coefficients, 3) * scale
            way = torch.einsum("kf,nka->nfa", sines(self.coefficients, self.frames, made.device), made)
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

        Part of what is known is hidden by chance (:data:`SHOWN_DROP`, :data:`STYLE_DROP`).

        :param generator: a CPU generator for all that is drawn.
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
    ) -> Tensor:
        """Poses ``[n, F, 3]`` (fp32) for ``z [n, G, F, D]``; G = 2: the second without the user, for ``guidance``.

        :param noise: ``[n, K, 3]`` of unit variance.
        """
        branches = z.shape[1]
        both = torch.cat([self.context(z[:, branch], shown, style) for branch in range(branches)])
        x = noise.flatten(1).float()
        for step in range(steps):
            # Steps are evenly spaced where training drew its times: close to the middle.
            now, then = (_time(each / steps) for each in (step, step + 1))
            time = torch.full((len(both),), now, device=x.device)
            speed = self.velocity(x.repeat(branches, 1), time, both)
            if branches == 2:
                given, without = speed.chunk(2)
                speed = without + guidance * (given - without)
            x = x + (then - now) * speed
        # A head that was not seen yet begins at the set's mean.
        return self.decode(x, _last(shown, torch.zeros_like(x[:, :3])), scale)


def _time(share: float) -> float:
    """Where the sampler is after a share of its steps: a little denser near both ends than evenly."""
    return 0.5 * share + 0.5 * (1 - math.cos(math.pi * share)) / 2


def _last(shown: Tensor, unknown: Tensor) -> Tensor:
    """The pose shown last ``[n, 3]``; ``unknown [n, 3]`` where none is known."""
    known = ~shown.isnan().flatten(1).any(1, keepdim=True)
    return torch.where(known, shown[:, -1].nan_to_num(), unknown)
