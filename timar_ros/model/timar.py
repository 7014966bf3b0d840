"""The TIMAR network: from turns of speech and motion to one conditioning vector per motion frame, and the heads."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from timar_ros.model import speech_encoder as speech_tools
from timar_ros.model import tokens as layout
from timar_ros.model.attention import Block, token_turns, turn_causal_mask
from timar_ros.model.config import TimarConfig
from timar_ros.model.diffusion import DiffusionHead, Drawn, MotionMLP
from timar_ros.model.joint import JointHead, known_gain
from timar_ros.model.voice_gate import VoiceGate
from timar_ros.motion import HEAD, JAW


class Timar(nn.Module):
    """Encoder-only TIMAR and its ablations (arXiv 2512.15340).

    Parameter names are those of the released checkpoint; the speech encoder's start with ``speech_encoder.``.

    :ivar name: the model's name in logs and reports.
    :ivar trained: False for random weights.
    :ivar speech_source: folder or hub name of the speech encoder; None: its weights are part of the model.
    """

    speech_encoder: nn.Module

    def __init__(self, config: TimarConfig, speech_encoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.name = "timar"
        self.trained = False
        self.speech_source: str | None = None
        self.sha256 = ""
        self.speech_encoder = speech_encoder
        width, d = config.encoder_width, config.token_width
        count = config.context_turns * config.turn_tokens
        self.speech_projection = nn.Linear(config.speech_width, d)
        self.motion_encoder = nn.Sequential(
            nn.Linear(config.motion_width, d // 2), nn.ReLU(), nn.Linear(d // 2, d), nn.ReLU()
        )
        self.sep_tok_emb = nn.Embedding(layout.SEPARATORS, d)
        self.fake_latent = nn.Parameter(torch.empty(1, d))
        if config.partial_motion:
            self.untracked_motion = nn.Parameter(torch.zeros(config.motion_width))
        self.motion_mean: Tensor
        self.motion_scale: Tensor
        if config.standardise:
            self.register_buffer("motion_mean", torch.zeros(config.motion_width))
            self.register_buffer("motion_scale", torch.ones(config.motion_width))
        self.z_proj = nn.Linear(d, width)
        self.z_proj_ln = nn.LayerNorm(width, eps=1e-6)
        self.encoder_pos_embed_learned = nn.Parameter(torch.empty(1, count, width))
        depth = config.encoder_depth + (config.decoder_depth if config.encoder_only else 0)
        self.encoder_blocks = nn.ModuleList(self._block(width, config.encoder_heads) for _ in range(depth))
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)
        if not config.encoder_only:
            width = config.decoder_width
            self.decoder_embed = nn.Linear(config.encoder_width, width)
            self.decoder_pos_embed_learned = nn.Parameter(torch.empty(1, count, width))
            self.decoder_blocks = nn.ModuleList(
                self._block(width, config.decoder_heads) for _ in range(config.decoder_depth)
            )
            self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.diffusion_pos_embed_learned = nn.Parameter(torch.empty(1, count, width))
        if config.diffusion:
            self.diffloss = DiffusionHead(config.motion_width, width, config.head_width, config.head_depth)
        else:
            self.mlp_head = MotionMLP(width, config.motion_width)
        if config.voice_gate:
            self.voice_gate = VoiceGate(d)
        self.joint_scale: Tensor
        self.joint_style: Tensor
        if config.head == "joint":
            self.joint_head = JointHead(
                config.turn_frames, width, config.joint_width, config.joint_depth, config.joint_coefficients
            )
            # Deviation of the coefficients; mean and deviation over people of the logarithm of a head's deviation.
            self.register_buffer("joint_scale", torch.ones((config.joint_coefficients, 3)))
            self.register_buffer("joint_style", torch.tensor([0.0, 1.0]))

    def _block(self, width: int, heads: int) -> Block:
        config = self.config
        return Block(width, heads, config.mlp_ratio, config.dropout, config.attention_dropout)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.fake_latent.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' floating-point type."""
        return self.fake_latent.dtype

    @property
    def speech_frozen(self) -> bool:
        """Whether no weight of the speech encoder is trained (as in the paper)."""
        return not any(p.requires_grad for p in self.speech_encoder.parameters())

    def train(self, mode: bool = True) -> Timar:
        """Training mode; a frozen speech encoder stays in evaluation mode."""
        super().train(mode)
        if self.speech_frozen:
            self.speech_encoder.eval()
        return self

    # From inputs to tokens

    def speech_hidden(self, speech: Tensor) -> Tensor:
        """The speech encoder's states ``[B, F, speech_width]`` of normalised samples ``[B, N]``, one turn a row."""
        return speech_tools.encode(self.speech_encoder, speech.to(self.dtype), self.config.turn_frames)

    def encode_speech(self, speech: Tensor) -> Tensor:
        """Speech tokens ``[B, F, d]`` of normalised samples ``[B, N]``, one turn a row."""
        out: Tensor = self.speech_projection(self.speech_hidden(speech))
        return out

    def standardise(self, motion: Tensor) -> Tensor:
        """Motion ``[..., 56]`` as the network's layers see it; unchanged unless configured (``standardise``)."""
        return (motion - self.motion_mean) / self.motion_scale if self.config.standardise else motion

    def unstandardise(self, motion: Tensor) -> Tensor:
        """The inverse of :meth:`standardise`."""
        return motion * self.motion_scale + self.motion_mean if self.config.standardise else motion

    def encode_motion(self, motion: Tensor) -> Tensor:
        """Motion tokens ``[..., d]`` of FLAME frames ``[..., 56]``; NaN: not tracked.

        A fully untracked frame becomes ``fake_latent``. In a partly tracked frame a learned vector replaces the missing
        columns if the configuration says ``partial_motion``; otherwise the frame becomes ``fake_latent``.
        """
        motion = self.standardise(motion.float())
        untracked = motion.isnan()
        if self.config.partial_motion:
            lost = untracked.all(-1, keepdim=True)
            motion = torch.where(untracked, self.untracked_motion.float(), motion)
        else:
            lost = untracked.any(-1, keepdim=True)
            motion = motion.nan_to_num(0.0)
        tokens: Tensor = self.motion_encoder(motion.to(self.dtype))
        return torch.where(lost, self.fake_latent, tokens)

    def assemble(self, user_speech: Tensor, user_motion: Tensor, agent_speech: Tensor, agent_motion: Tensor) -> Tensor:
        """Turns ``[..., 4F + 10, d]`` of the four blocks' tokens ``[..., F, d]``."""
        return layout.assemble(self.sep_tok_emb.weight, user_speech, user_motion, agent_speech, agent_motion)

    def without_user(self, turns: Tensor) -> Tensor:
        """Turns ``[..., 4F + 10, d]`` with the user's tokens replaced by ``fake_latent`` (the separators stay)."""
        turns = turns.clone()
        for part in layout.user_slices(self.config.turn_frames):
            turns[..., part, :] = self.fake_latent
        return turns

    # From tokens to conditioning

    def embed(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """Tokens ``[B, T, d]`` at the encoder's width ``[B, T, D]``; where ``masked [B, T]``, the mask token."""
        x: Tensor = self.z_proj(tokens)
        return torch.where(masked.unsqueeze(-1), self.mask_token, x) if self.config.encoder_only else x

    def condition(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """The conditioning z ``[B, T, D]`` of a whole window of tokens ``[B, T, d]``, oldest turn first.

        :param masked: ``[B, T]``, True at unknown agent-motion tokens; every row masks the same number.
        """
        count, turn_tokens = tokens.shape[1], self.config.turn_tokens
        turns = token_turns(count, turn_tokens, tokens.device)
        x = self.z_proj_ln(self.embed(tokens, masked) + self.encoder_pos_embed_learned[:, :count])
        if self.config.encoder_only:
            mask = turn_causal_mask(turns) if self.config.causal else None
            for block in self.encoder_blocks:
                x = block(x, mask)
            x = self.encoder_norm(x)
        else:
            x = self._encode_decode(x, masked, turns)
        z: Tensor = x + self.diffusion_pos_embed_learned[:, :count]
        return z

    def _encode_decode(self, x: Tensor, masked: Tensor, turns: Tensor) -> Tensor:
        """The encoder-decoder ablation: the encoder sees the tokens that are not masked, the decoder all."""
        batch, count = masked.shape
        mask = None
        if self.config.causal:
            mask = turn_causal_mask(turns.expand(batch, -1)[~masked].view(batch, -1)).unsqueeze(1)
        x = x[~masked].view(batch, -1, x.shape[-1])
        for block in self.encoder_blocks:
            x = block(x, mask)
        kept = self.decoder_embed(self.encoder_norm(x)).to(self.mask_token.dtype)  # autocast may have changed its type
        x = self.mask_token.expand(batch, count, -1).masked_scatter(~masked.unsqueeze(-1), kept)
        x = x + self.decoder_pos_embed_learned[:, :count]
        mask = turn_causal_mask(turns) if self.config.causal else None
        for block in self.decoder_blocks:
            x = block(x, mask)
        out: Tensor = self.decoder_norm(x)
        return out

    # From conditioning to motion

    def sample_motion(
        self,
        z: Tensor,
        noise: tuple[Tensor, Tensor],
        temperature: float | Tensor = 1.0,
        guidance: float | Tensor = 1.0,
    ) -> Drawn:
        """Frames for conditioning ``z [n, G, D]``.

        :param z: G = 1, or 2 where the second is the branch without the user, for ``guidance``. With a joint head this
            branch is ignored: guidance strengthens the answer to the partner, which is the head's; a guided jaw opens
            in silence.
        :param noise: ``(initial [n, 56], steps [S, n, 56])``; the MLP head needs none.
        """
        if self.config.head == "joint":
            z = z[:, :1]
        if self.config.diffusion:
            without = z[:, 1] if z.shape[1] == 2 else None
            drawn = self.diffloss.sample(z[:, 0], noise, temperature, without, guidance)
            return Drawn(self.unstandardise(drawn.frames), self.unstandardise(drawn.expected))
        values: Tensor = self.mlp_head(z).float()
        if z.shape[1] == 2:
            values = values[:, 1:] + guidance * (values[:, :1] - values[:, 1:])
        frames = self.unstandardise(values[:, 0])
        return Drawn(frames, frames)

    def shut_without_voice(self, motion: Tensor, tokens: Tensor) -> Tensor:
        """Motion of turns ``[n, F, 56]`` with the jaw closed where the agent's channel holds no voice.

        :param tokens: of the turns, ``[n, 4F + 10, d]``. A model without a voice gate does not change motion.
        """
        if not self.config.voice_gate:
            return motion
        voice = self.voice_gate(tokens[:, layout.block_slice(2, self.config.turn_frames)])
        return torch.cat((motion[..., : JAW.start], voice * motion[..., JAW], motion[..., JAW.stop :]), dim=-1)

    def sample_head(
        self,
        z: Tensor,
        shown: Tensor,
        style: Tensor,
        noise: Tensor,
        guidance: float | Tensor = 1.0,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """A turn's head poses ``[n, F, 3]`` [rad] as one movement, for conditioning ``z [n, G, F, D]`` (joint head).

        :param shown: poses before the turn, oldest first, ``[n, SHOWN, 3]`` [rad]; NaN where not known.
        :param style: natural logarithm of the head's liveliness relative to an average person, ``[n]``; NaN: unknown.
        :param noise: ``[n, K, 3]`` of unit variance.
        :param guidance: see :meth:`sample_motion`.
        :param known: poses ``[n, F, 3]`` [rad] of which the first ones are known, and gains ``[n, 3, K, F]`` of
            :meth:`known_gain`.
        """
        mean, scale = (self.motion_mean[HEAD], self.motion_scale[HEAD]) if self.config.standardise else (0.0, 1.0)
        movement = self.joint_head.sample(
            z,
            (shown - mean) / scale,
            style / self.joint_style[1],
            noise,
            self.joint_scale,
            self.config.joint_steps,
            guidance,
            None if known is None else ((known[0] - mean) / scale, known[1]),
        )
        return movement * scale + mean

    def known_gain(self, count: int) -> NDArray[np.float32]:
        """Gains ``[3, K, F]`` with which the first ``count`` poses of a turn correct its movement (joint head)."""
        return known_gain(self.joint_scale.float().cpu().numpy(), self.config.turn_frames, count)


def initialise(model: Timar, zero_head: bool = True) -> None:
    """Random weights, from torch's global generator: Xavier for projections, normal (0.02) for learned vectors.

    :param zero_head: the head's modulations and last layer start at zero, as is best for training; False makes them
        random too, so that outputs depend on inputs before any training.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith("speech_encoder."):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters(recurse=False):
        if name != "untracked_motion":
            nn.init.normal_(parameter, std=0.02)
    nn.init.normal_(model.sep_tok_emb.weight, std=0.02)
    if model.config.diffusion:
        net = model.diffloss.net
        for module in net.time_embed.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        if zero_head:
            for layer in (*net.res_blocks, net.final_layer):
                nn.init.zeros_(layer.adaLN_modulation[1].weight)
            nn.init.zeros_(net.final_layer.linear.weight)
    if model.config.head == "joint" and zero_head:
        nn.init.zeros_(model.joint_head.out_proj.weight)
