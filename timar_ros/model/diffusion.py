"""The diffusion head: a small MLP that denoises a motion frame given its conditioning (paper, section 3.4).

The network predicts x0 and a learned-range variance (Nichol & Dhariwal 2021); sampling is ancestral DDPM on a few
evenly spaced steps; all arithmetic between the network's calls is fp32.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from timar_ros.motion import EXPRESSION, HEAD, JAW

TRAINING_STEPS = 1000
_FREQUENCIES = 128
_STEPS_AT_ONCE = 10


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Coefficients of a process of S steps, float64 ``[S]`` each; ``steps`` are the original step indices."""

    steps: np.ndarray
    signal: np.ndarray  # sqrt(alpha_bar): the share of x0 in x_t
    noise: np.ndarray  # sqrt(1 - alpha_bar): the share of noise in x_t
    posterior_x0: np.ndarray  # weight of x0 in the mean of q(x_{t-1} | x_t, x_0)
    posterior_xt: np.ndarray  # weight of x_t in the same mean
    log_beta: np.ndarray
    log_posterior: np.ndarray  # log of the posterior variance, its first entry replaced by its second


@functools.cache
def training_alphas() -> np.ndarray:
    """The products alpha_bar of the 1000 training steps: cosine schedule, betas capped at 0.999."""
    u = np.arange(TRAINING_STEPS + 1, dtype=np.float64) / TRAINING_STEPS
    level = np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.asarray(np.cumprod(1.0 - np.minimum(1.0 - level[1:] / level[:-1], 0.999)))


@functools.cache
def make_schedule(count: int = TRAINING_STEPS) -> Schedule:
    """The schedule on ``count`` of the 1000 training steps, evenly spaced; betas recomputed from the kept products.

    :raises ValueError: when ``count`` is not within 2..1000.
    """
    if not 2 <= count <= TRAINING_STEPS:
        raise ValueError(f"{count} diffusion steps: choose 2 to {TRAINING_STEPS}")
    stride = (TRAINING_STEPS - 1) / (count - 1)
    steps = np.array([round(i * stride) for i in range(count)])
    product = training_alphas()[steps]
    previous = np.concatenate(([1.0], product[:-1]))
    beta = 1.0 - product / previous
    variance = beta * (1.0 - previous) / (1.0 - product)
    variance[0] = variance[1]
    return Schedule(
        steps=steps,
        signal=np.sqrt(product),
        noise=np.sqrt(1.0 - product),
        posterior_x0=beta * np.sqrt(previous) / (1.0 - product),
        posterior_xt=(1.0 - previous) * np.sqrt(1.0 - beta) / (1.0 - product),
        log_beta=np.log(beta),
        log_posterior=np.log(variance),
    )


@functools.cache
def _steps_in_order(count: int, device: torch.device) -> Tensor:
    """The original step indices of a schedule in the order of use; cached on the device, for graphs."""
    return torch.as_tensor(make_schedule(count).steps[::-1].copy(), device=device)


class Drawn(NamedTuple):
    """Sampled frames and their posterior mean given z; both ``[n, 56]`` (fp32)."""

    frames: Tensor
    expected: Tensor
    """The first step's prediction of x0: at the noisiest level x_t holds no information, so it is the mean given z."""


class TimeEmbedding(nn.Module):
    """Sinusoids of the step index (128 cosines, then 128 sines), then a two-layer MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, steps: Tensor, dtype: torch.dtype) -> Tensor:
        """Step indices ``[n]`` to ``[n, width]``, computed in ``dtype``."""
        index = torch.arange(_FREQUENCIES, device=steps.device, dtype=torch.float32)
        angles = steps.float().unsqueeze(-1) * torch.exp(-math.log(10000) * index / _FREQUENCIES)
        features = torch.cat((angles.cos(), angles.sin()), dim=-1)
        out: Tensor = self.mlp(features.to(dtype))
        return out


class ResBlock(nn.Module):
    """x + gate * mlp(LN(x) * (1 + scale) + shift), modulated by time and conditioning."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def apply_modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
        """``x [..., width]`` with its ``modulation [..., 3·width]``."""
        shift, scale, gate = modulation.chunk(3, dim=-1)
        out: Tensor = x + gate * self.mlp(self.in_ln(x) * (1 + scale) + shift)
        return out


class FinalLayer(nn.Module):
    """Modulated LayerNorm without weights, then the projection to mean and variance."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, out_width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def apply_modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
        """``x [..., width]`` with its ``modulation [..., 2·width]``."""
        shift, scale = modulation.chunk(2, dim=-1)
        out: Tensor = self.linear(self.norm_final(x) * (1 + scale) + shift)
        return out


class DenoisingMLP(nn.Module):
    """The denoising network of one frame."""

    def __init__(self, frame_width: int, cond_width: int, width: int, depth: int) -> None:
        super().__init__()
        self.time_embed = TimeEmbedding(width)
        self.cond_embed = nn.Linear(cond_width, width)
        self.input_proj = nn.Linear(frame_width, width)
        self.res_blocks = nn.ModuleList(ResBlock(width) for _ in range(depth))
        self.final_layer = FinalLayer(width, 2 * frame_width)

    def modulations(self, y: Tensor) -> list[Tensor]:
        """Modulations of each block and of the final layer from time plus conditioning ``y [..., width]``."""
        activated, layers = nn.functional.silu(y), (*self.res_blocks, self.final_layer)
        return [layer.adaLN_modulation[1](activated) for layer in layers]  # [0] is the SiLU, the same for all layers

    def denoise(self, x: Tensor, modulations: list[Tensor]) -> Tensor:
        """Noisy frames ``x [..., 56]`` to ``[..., 112]``: x0 and the variance's fraction."""
        h = self.input_proj(x)
        for block, modulation in zip(self.res_blocks, modulations, strict=False):
            assert isinstance(block, ResBlock)
            h = block.apply_modulated(h, modulation)
        return self.final_layer.apply_modulated(h, modulations[-1])

    def forward(self, x: Tensor, steps: Tensor, cond: Tensor) -> Tensor:
        """``x [n, 56]``, original step indices ``steps [n]``, ``cond [n, D]`` to ``[n, 112]``."""
        return self.denoise(x, self.modulations(self.time_embed(steps, cond.dtype) + self.cond_embed(cond)))


class DiffusionHead(nn.Module):
    """The denoising network with its training loss and its sampler."""

    def __init__(self, frame_width: int, cond_width: int, width: int, depth: int) -> None:
        super().__init__()
        self.net = DenoisingMLP(frame_width, cond_width, width, depth)

    def loss(self, target: Tensor, cond: Tensor, steps: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """``(mse [n], bound [n])`` of ``target [n, 56]`` given ``cond [n, D]``, ``steps [n]``, ``noise [n, 56]``.

        mse is MSE(expression) + MSE(jaw) + MSE(head pose) of x0; the bound is the variational bound in bits (mean over
        the 56 columns) with the mean detached, which trains the variance alone.
        """
        schedule = make_schedule()
        target, noise = target.float(), noise.float()

        def at(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=target.device)[steps].unsqueeze(-1)

        noisy = at(schedule.signal) * target + at(schedule.noise) * noise
        out: Tensor = self.net(noisy.to(cond.dtype), steps, cond).float()
        x0, fraction = out.chunk(2, dim=-1)
        log_min, log_max = at(schedule.log_posterior), at(schedule.log_beta)
        log_variance = log_min + (fraction + 1) / 2 * (log_max - log_min)
        weight_x0, weight_xt = at(schedule.posterior_x0), at(schedule.posterior_xt)
        true_mean = weight_x0 * target + weight_xt * noisy
        mean = weight_x0 * x0.detach() + weight_xt * noisy
        divergence = 0.5 * (
            log_variance
            - log_min
            - 1
            + torch.exp(log_min - log_variance)
            + (true_mean - mean) ** 2 * torch.exp(-log_variance)
        )
        likelihood = discretised_log_likelihood(target, mean, 0.5 * log_variance)
        bound = torch.where((steps == 0).unsqueeze(-1), -likelihood, divergence).mean(-1) / math.log(2)
        return motion_mse(x0, target), bound

    def sample(
        self,
        cond: Tensor,
        noise: tuple[Tensor, Tensor],
        temperature: float | Tensor = 1.0,
        unconditional: Tensor | None = None,
        guidance: float | Tensor = 1.0,
    ) -> Drawn:
        """Draw frames for ``cond [n, D]``, one network call a step.

        :param noise: ``(initial [n, 56], steps [S, n, 56])`` in the order of use; the last of ``steps`` is not used.
        :param temperature: multiplies the noise added between steps, not the initial one.
        :param unconditional: conditioning of the branch without the user, for ``guidance`` (classifier-free).
        """
        both = cond if unconditional is None else torch.cat((cond, unconditional))
        steps = _steps_in_order(len(noise[1]), cond.device)
        embedded = self.net.cond_embed(both)
        modulations: list[Tensor] = []

        def predict(position: int, x: Tensor) -> Tensor:
            nonlocal modulations
            group, offset = divmod(position, _STEPS_AT_ONCE)
            if offset == 0:  # modulations for a group of steps, in one pass over the weights
                several = steps[group * _STEPS_AT_ONCE :][:_STEPS_AT_ONCE]
                modulations = self.net.modulations(self.net.time_embed(several, both.dtype).unsqueeze(1) + embedded)
            doubled = x if unconditional is None else torch.cat((x, x))
            return self.net.denoise(doubled.to(both.dtype), [each[offset] for each in modulations])

        return ancestral_sample(predict, noise, temperature, None if unconditional is None else guidance)


def ancestral_sample(
    predict: Callable[[int, Tensor], Tensor],
    noise: tuple[Tensor, Tensor],
    temperature: float | Tensor,
    guidance: float | Tensor | None,
) -> Drawn:
    """DDPM's reverse process, from the noisiest step down.

    :param predict: ``(position in the order of use, x_t [n, 56])`` to the network's output ``[n, 112]``, or
        ``[2n, 112]`` (conditional, then unconditional) when ``guidance`` is given.
    :param noise: as in :meth:`DiffusionHead.sample`; S decides the schedule.
    """
    x, added = noise[0].float(), noise[1].float()
    expected = x
    schedule = make_schedule(len(added))
    for count, i in enumerate(reversed(range(len(added)))):
        x0, fraction = predict(count, x).float().chunk(2, dim=-1)
        if guidance is not None:
            x0, without = x0.chunk(2)
            fraction = fraction.chunk(2)[0]
            x0 = without + guidance * (x0 - without)
        if count == 0:
            expected = x0
        mean = float(schedule.posterior_x0[i]) * x0 + float(schedule.posterior_xt[i]) * x
        if i == 0:
            break
        low, high = float(schedule.log_posterior[i]), float(schedule.log_beta[i])
        deviation = torch.exp(0.5 * (low + (fraction + 1) / 2 * (high - low)))
        x = mean + deviation * added[count] * temperature
    return Drawn(mean, expected)


def motion_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """MSE(expression) + MSE(jaw) + MSE(head pose), each a mean over its own columns: ``[..., 56]`` to ``[...]``."""
    error = (prediction - target) ** 2
    return error[..., EXPRESSION].mean(-1) + error[..., JAW].mean(-1) + error[..., HEAD].mean(-1)


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-likelihood (nats) of ``x`` under a Gaussian summed over bins of 2/255, open at -1 and 1 (Ho et al. 2020)."""
    inverse = torch.exp(-log_scale)
    upper = _normal_cdf(inverse * (x - mean + 1 / 255))
    lower = _normal_cdf(inverse * (x - mean - 1 / 255))
    inside = torch.log((upper - lower).clamp(min=1e-12))
    below = torch.log(upper.clamp(min=1e-12))
    above = torch.log((1 - lower).clamp(min=1e-12))
    return torch.where(x < -0.999, below, torch.where(x > 0.999, above, inside))


def _normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the normal distribution's cumulative function, as in DDPM's bound."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class MotionMLP(nn.Sequential):
    """The ablation without diffusion: conditioning to frame in one pass."""

    def __init__(self, cond_width: int, frame_width: int) -> None:
        super().__init__(nn.Linear(cond_width, cond_width // 2), nn.GELU(), nn.Linear(cond_width // 2, frame_width))
