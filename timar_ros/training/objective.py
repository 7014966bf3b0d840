"""A batch's loss, for TIMAR and for the DualTalk baseline alike: per-frame losses and their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from timar_ros.baselines.dualtalk import DualTalk
from timar_ros.model import Timar
from timar_ros.model import tokens as layout
from timar_ros.model.diffusion import TRAINING_STEPS, make_schedule, motion_mse
from timar_ros.model.joint import SHOWN
from timar_ros.motion import HEAD, MOTION_SIZE
from timar_ros.training.run_config import OptimiserConfig

# A head's change from frame to frame, as a share of its deviation (0.143 for synthetic people, 0.14 for a tracked
# person, by `timar data stats`).
HEAD_CHANGE = 0.143


@dataclass(frozen=True)
class FrameLosses:
    """The losses of each frame of a batch: n = draws·B·T, ordered by draw, then clip, then frame."""

    loss: Tensor
    """``[n]``: the sum of all parts."""
    mse: Tensor
    """``[n]``: the part of x0 (diffusion) or of the motion (MLP head, DualTalk)."""
    weight: Tensor
    """``[n]``: 1 where a frame counts, 0 where the network knows it."""
    bound: Tensor | None = None
    """``[n]``: the variational bound in bits, before ``bound_weight``; None without diffusion."""
    conditioning: Tensor | None = None
    """``[B·T, D]`` of the agent's frames; None for DualTalk."""


class Objective(nn.Module):
    """Wraps a model so that a call returns its loss, as a distributed wrapper needs.

    The sum over the counted frames and their number are returned separately, so that processes and micro-batches
    combine exactly: the loss is the sum of all sums divided by the sum of all counts. With default options TIMAR's is
    the loss of the paper (arXiv 2512.15340, section 3.5).
    """

    def __init__(self, model: Timar | DualTalk, options: OptimiserConfig | None = None) -> None:
        super().__init__()
        options = options or OptimiserConfig()
        self.bound_weight, self.bound_steps = options.bound_weight, options.bound_steps
        self.change_weight, self.listening_weight = options.change_weight, options.listening_weight
        self.joint_weight, self.draws = options.joint_weight, options.noise_draws
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """``(sum of losses, sum of their x0 or motion MSE parts, number of frames counted)`` of a batch."""
        each = self.frame_losses(batch)
        return (each.loss * each.weight).sum(), (each.mse.detach() * each.weight).sum(), each.weight.sum()

    def frame_losses(self, batch: dict[str, Tensor]) -> FrameLosses:
        """The losses of a batch of clips; the batch holds all random values of training.

        :param batch: ``user_speech``, ``agent_speech`` ``[B, N]`` (normalised samples); ``user_motion`` (NaN: not
            tracked), ``agent_motion`` ``[B, T, 56]``; ``agent_mask [B, T]``: True at frames to predict, equally many in
            each clip; ``user_speech_drop``, ``user_motion_drop [B, T]``: True at user tokens that the network does not
            see. With diffusion ``timesteps [draws, B, T]`` of 1000 and ``noise [draws, B, T, 56]``; with
            ``change_weight`` ``agent_silent [B, T]``.
        """
        if isinstance(self.model, DualTalk):
            return self._dualtalk(self.model, batch)
        return self._timar(self.model, batch)

    def _dualtalk(self, model: DualTalk, batch: dict[str, Tensor]) -> FrameLosses:
        motion = batch["user_motion"].masked_fill(batch["user_motion_drop"].unsqueeze(-1), torch.nan)
        loss = model.training_loss(batch["agent_speech"], batch["user_speech"], motion, batch["agent_motion"])
        return FrameLosses(loss, loss, torch.ones_like(loss))

    def _timar(self, model: Timar, batch: dict[str, Tensor]) -> FrameLosses:
        cond = clip_conditioning(model, batch, batch["agent_mask"]).flatten(0, 1)
        target = model.standardise(batch["agent_motion"]).flatten(0, 1)
        weight = batch["agent_mask"].flatten().float()
        if not model.config.diffusion:
            mse = motion_mse(model.mlp_head(cond).float(), target)
            return FrameLosses(mse, mse, weight, conditioning=cond)
        draws = len(batch["timesteps"])
        mse, bound = model.diffloss.loss(
            target.repeat(draws, 1),
            cond.repeat(draws, 1),
            batch["timesteps"].flatten(),
            batch["noise"].flatten(0, -2),
        )
        if self.bound_steps is not None:
            first = strided_bound(model, target, cond, batch["timesteps"][-1], batch["noise"][-1], self.bound_steps)
            bound = first.repeat(draws)
        loss = mse + self.bound_weight * bound
        if self.change_weight:
            change = head_change_error(model, target, cond, batch["noise"][0])
            count = 1 + (self.listening_weight - 1) * batch["agent_silent"].flatten().float()
            loss = loss + self.change_weight * (count * change).repeat(draws)
        if model.config.head == "joint":
            drawn = joint_error(model, target, cond, batch, self.draws)
            loss = loss + self.joint_weight * drawn.repeat(draws)
        return FrameLosses(loss, mse, weight.repeat(draws), bound, cond)


def strided_bound(model: Timar, target: Tensor, cond: Tensor, timesteps: Tensor, noise: Tensor, count: int) -> Tensor:
    """The variational bound (bits, ``[n]``) of the process with ``count`` steps, for the variance alone.

    Noise levels are those of the sampler; the last step, at which it adds no noise, is left out. The conditioning gets
    no gradient: it learns from x0's error.

    :param timesteps: of 1000; mapped to the sampler's steps.
    """
    schedule = make_schedule(count)
    index = 1 + timesteps.flatten() % (count - 1)

    def at(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=target.device)[index].unsqueeze(-1)

    noisy = at(schedule.signal) * target + at(schedule.noise) * noise.flatten(0, -2)
    steps = torch.as_tensor(schedule.steps, device=target.device)[index]
    x0, fraction = model.diffloss.net(noisy, steps, cond.detach()).float().chunk(2, dim=-1)
    low, high = at(schedule.log_posterior), at(schedule.log_beta)
    log_variance = low + (fraction + 1) / 2 * (high - low)
    offset = at(schedule.posterior_x0) * (target - x0.detach())
    divergence = 0.5 * (log_variance - low - 1 + torch.exp(low - log_variance) + offset**2 * torch.exp(-log_variance))
    return divergence.mean(-1) / math.log(2)


def head_change_error(model: Timar, target: Tensor, cond: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the head's change from frame to frame inside turns, predicted from pure noise, ``[n]``.

    In units of :data:`HEAD_CHANGE`. A nod has a hundredth of the variance of the head's pose and a tenth of the
    variance of its speed: with the error of pose alone, nods are learned last. The optimum stays the same: at the
    noisiest level the prediction depends on the conditioning alone, and all frames of a turn are conditioned on the
    same tokens, so the prediction with the least error in pose also has the least error in change. Changes across turn
    boundaries are left out, since the later frame has more information.
    """
    noisiest = torch.full((len(target),), TRAINING_STEPS - 1, device=target.device)
    x0 = model.diffloss.net(noise.flatten(0, -2).to(cond.dtype), noisiest, cond).float()[:, HEAD]
    error = (x0 - target[:, HEAD]).unflatten(0, (-1, model.config.turn_frames))
    change = torch.diff(error, dim=1, prepend=error[:, :1]) / HEAD_CHANGE
    out: Tensor = change.square().mean(-1).flatten()
    return out


def joint_error(model: Timar, target: Tensor, cond: Tensor, batch: dict[str, Tensor], draws: int) -> Tensor:
    """The joint head's loss ``[B·T]``: each frame has its turn's loss.

    A turn continues from the previous frames of the clip; the first turn has no previous frames. The random numbers
    come from the batch's own noise, so that they depend on the clips alone.
    """
    frames, clips = model.config.turn_frames, len(batch["agent_motion"])
    poses = target[:, HEAD].view(clips, -1, frames, 3)
    generator = torch.Generator().manual_seed(int(batch["noise"].flatten()[:2].view(torch.int32).sum()) & 0x7FFFFFFF)
    shown = shown_before(poses).flatten(0, 1)
    style = (batch["agent_style"] - model.joint_style[0]) / model.joint_style[1]
    style = style.unsqueeze(1).expand(clips, poses.shape[1]).flatten()
    z = cond.view(clips * poses.shape[1], frames, -1)
    errors = model.joint_head.loss(poses.flatten(0, 1), z, shown, style, model.joint_scale, generator, draws)
    return errors.repeat_interleave(frames)


def shown_before(poses: Tensor) -> Tensor:
    """The poses before each turn ``[B, turns, SHOWN, 3]`` of poses ``[B, turns, F, 3]``; NaN before the first."""
    before = poses[:, :-1, -SHOWN:]
    if before.shape[2] < SHOWN:
        before = nn.functional.pad(before, (0, 0, SHOWN - before.shape[2], 0), value=torch.nan)
    return torch.cat((torch.full_like(poses[:, :1, :1], torch.nan).expand(-1, -1, SHOWN, -1), before), dim=1)


def clip_conditioning(model: Timar, batch: dict[str, Tensor], agent_mask: Tensor) -> Tensor:
    """The conditioning ``[B, T, D]`` of every agent frame of whole clips: each turn sees itself and earlier turns.

    The batch gives the drops (nothing is drawn here), so that a clip's masks do not depend on the process.
    """
    frames = model.config.turn_frames
    clips = len(batch["agent_motion"])
    turns = batch["agent_motion"].shape[1] // frames

    def speech_tokens(samples: Tensor) -> Tensor:
        states = model.encode_speech(samples.reshape(clips * turns, -1))
        return states.unflatten(0, (clips, turns))

    def drop(tokens: Tensor, dropped: Tensor) -> Tensor:
        kept = tokens.to(model.fake_latent.dtype)
        return torch.where(dropped.view(clips, turns, frames, 1), model.fake_latent, kept)

    def by_turn(motion: Tensor) -> Tensor:
        return motion.unflatten(1, (turns, frames))

    tokens = model.assemble(
        drop(speech_tokens(batch["user_speech"]), batch["user_speech_drop"]),
        drop(model.encode_motion(by_turn(batch["user_motion"])), batch["user_motion_drop"]),
        speech_tokens(batch["agent_speech"]).to(model.fake_latent.dtype),
        model.encode_motion(by_turn(batch["agent_motion"])).to(model.fake_latent.dtype),
    )
    z = model.condition(tokens.flatten(1, 2), layout.expand_agent_mask(agent_mask, frames))
    return cast("Tensor", z.unflatten(1, (turns, -1))[:, :, layout.agent_motion_slice(frames)].flatten(1, 2))


@torch.no_grad()
def sample_clips(model: Timar, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Motion ``[B, T, 56]`` for whole clips at once, as in streaming's first window with masked history."""
    cond = clip_conditioning(model, batch, torch.ones_like(batch["agent_mask"])).flatten(0, 1)
    if not model.config.diffusion:
        motion = model.mlp_head(cond).float()
    else:
        steps = model.config.sampling_steps
        initial, added = (
            torch.randn((len(cond), MOTION_SIZE), generator=generator),
            torch.randn((steps, len(cond), MOTION_SIZE), generator=generator),
        )
        motion = model.diffloss.sample(cond, (initial.to(cond.device), added.to(cond.device))).frames
    sampled = model.unstandardise(motion).unflatten(0, batch["agent_motion"].shape[:2])
    if model.config.head == "joint":
        sampled[..., HEAD] = _sample_heads(model, cond, batch, generator)
    return sampled


def _sample_heads(model: Timar, cond: Tensor, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Head poses ``[B, T, 3]`` of whole clips, turn by turn, each with its own person's liveliness."""
    config, clips = model.config, len(batch["agent_motion"])
    z = cond.view(clips, -1, config.turn_frames, cond.shape[-1])
    shown = torch.full((clips, SHOWN, 3), torch.nan, device=cond.device)
    style = batch["agent_style"] - model.joint_style[0]
    turns = []
    for turn in range(z.shape[1]):
        noise = torch.randn((clips, config.joint_coefficients, 3), generator=generator).to(cond.device)
        turns.append(model.sample_head(z[:, turn].unsqueeze(1), shown, style, noise))
        shown = torch.cat((shown, turns[-1]), dim=1)[:, -SHOWN:]
    return torch.cat(turns, dim=1)
