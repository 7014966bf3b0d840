"""The sizes and variants of a TIMAR network, in one frozen value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE, MOTION_RATE, MOTION_SIZE

# Names in the authors' argument namespace -> names here. Entries without a counterpart do not concern the network.
_AUTHORS_NAMES = {
    "motion_fps": "motion_rate",
    "speech_frequency": "speech_rate",
    "chunk_second": "turn_seconds",
    "max_context_time": "context_seconds",
    "speech_snippet_embed_dim": "speech_width",
    "motion_embed_dim": "motion_width",
    "token_embed_dim": "token_width",
    "encoder_embed_dim": "encoder_width",
    "encoder_depth": "encoder_depth",
    "encoder_num_heads": "encoder_heads",
    "decoder_embed_dim": "decoder_width",
    "decoder_depth": "decoder_depth",
    "decoder_num_heads": "decoder_heads",
    "mlp_ratio": "mlp_ratio",
    "diffloss_d": "head_depth",
    "diffloss_w": "head_width",
    "num_sampling_steps": "sampling_steps",
    "use_causal_attn": "causal",
    "use_encoder_only": "encoder_only",
    "use_diffloss": "diffusion",
    "attn_dropout": "attention_dropout",
    "proj_dropout": "dropout",
}

HEADS = ("frame", "joint")

# The paper's sizes (table of model variants), and `mini` for two ordinary cores and a file of a few megabytes.
_SIZES: dict[str, dict[str, Any]] = {
    "mini": {
        "speech_width": 128,
        "token_width": 192,
        "encoder_width": 192,
        "encoder_depth": 2,
        "encoder_heads": 4,
        "decoder_width": 192,
        "decoder_depth": 2,
        "decoder_heads": 4,
        "head_depth": 3,
        "head_width": 192,
        "attention_dropout": 0.0,
        "partial_motion": True,
        "standardise": True,
    },
    "base": {
        "encoder_width": 768,
        "encoder_depth": 12,
        "encoder_heads": 12,
        "decoder_width": 768,
        "decoder_depth": 12,
        "decoder_heads": 12,
    },
    "large": {},
    "huge": {
        "encoder_width": 1280,
        "encoder_depth": 20,
        "encoder_heads": 16,
        "decoder_width": 1280,
        "decoder_depth": 20,
        "decoder_heads": 16,
    },
}


LARGEST_SIZE, LARGEST_DEPTH = 1_000_000, 1_000
"""No width, rate or count, and no number of blocks, of a model is beyond these."""


@dataclasses.dataclass(frozen=True)
class TimarConfig:
    """Everything that decides the network's shapes and variant. The defaults are the released model's (large).

    Widths are numbers of channels, depths numbers of blocks, rates in Hz, times in seconds.
    """

    motion_rate: int = round(MOTION_RATE)
    speech_rate: int = MODEL_RATE
    turn_seconds: float = 1.0
    context_seconds: float = 8.0  # the window, current turn included; decides the number of learned positions
    speech_width: int = 1024
    motion_width: int = MOTION_SIZE
    token_width: int = 1024
    encoder_width: int = 1024
    encoder_depth: int = 16
    encoder_heads: int = 16
    decoder_width: int = 1024
    decoder_depth: int = 16
    decoder_heads: int = 16
    mlp_ratio: float = 4.0
    head_depth: int = 3
    head_width: int = 1024
    sampling_steps: int = 5
    causal: bool = True  # Turn-Level Causal Attention; False: the paper's bidirectional ablation
    encoder_only: bool = True  # False: the paper's encoder-decoder ablation
    diffusion: bool = True  # False: the paper's MLP-head ablation
    dropout: float = 0.1
    attention_dropout: float = 0.1
    partial_motion: bool = False  # a learned 56-vector replaces untracked columns of the user's motion
    standardise: bool = False  # stored statistics standardise input motion, and output motion back
    noise_correlation: float = 0.0  # seconds over which sampling noise is correlated, if options give none
    head_noise_correlation: float = 0.0  # the same for the head pose, smooth in speed; 0: as the other columns
    guidance: float = 1.0  # guidance towards the user's behaviour, if options give none; 1: none
    head_crossover: float = 0.0  # Hz: sampled head motion below it, posterior mean above it; 0: all sampled
    head_emphasis: float = 1.0  # factor on the head's posterior mean above head_crossover
    head: str = "frame"  # how head pose is sampled: by frame (the paper), or joint: a turn as one movement
    joint_width: int = 384
    joint_depth: int = 4
    joint_coefficients: int = 14  # sines of a turn's movement, for each of the head's angles
    joint_steps: int = 8  # steps of the joint head's sampler
    voice_gate: bool = False  # the jaw moves only for what sounds like a voice

    def __post_init__(self) -> None:
        self._check_kinds()
        for name in ("motion_rate", "speech_rate", "speech_width", "motion_width", "token_width", "encoder_width",
                     "encoder_heads", "decoder_width", "decoder_heads", "head_width", "sampling_steps",
                     "joint_width", "joint_depth", "joint_coefficients", "joint_steps"):  # fmt: skip
            if getattr(self, name) < 1:
                raise UserError(f"model configuration: {name} = {getattr(self, name)} must be at least 1")
        if self.motion_width != MOTION_SIZE:
            raise UserError(
                f"model configuration: motion_width = {self.motion_width}, a FLAME frame here has {MOTION_SIZE} columns"
            )
        if self.head not in HEADS:
            raise UserError(f"model configuration: head = '{self.head}': use {' or '.join(HEADS)}")
        if self.token_width % 2:
            raise UserError(f"model configuration: token_width = {self.token_width} must be even")
        for width, heads in ((self.encoder_width, self.encoder_heads), (self.decoder_width, self.decoder_heads)):
            if width % heads:
                raise UserError(f"model configuration: {heads} attention heads do not divide the width {width}")
        if self.encoder_depth < 1 or self.decoder_depth < 0:
            raise UserError("model configuration: encoder_depth must be at least 1 and decoder_depth at least 0")
        for name, highest in (("noise_correlation", 60.0), ("head_noise_correlation", 60.0), ("guidance", 20.0),
                              ("head_crossover", self.motion_rate / 4), ("head_emphasis", 10.0)):  # fmt: skip
            if not 0 <= getattr(self, name) <= highest:
                raise UserError(f"model configuration: {name} = {getattr(self, name)} must be within 0 and {highest:g}")
        if self.head == "joint" and not self.diffusion:
            raise UserError(
                "model configuration: a joint head needs the diffusion head for face and jaw; set diffusion: true"
            )
        counts = {
            "frames": self.motion_rate * self.turn_seconds,
            "samples": self.speech_rate * self.turn_seconds,
            "turns in the context": self.context_seconds / self.turn_seconds,
        }
        for name, value in counts.items():
            if value < 1 or not math.isclose(value, round(value)):
                raise UserError(
                    f"model configuration: a turn of {self.turn_seconds} s gives {value:g} {name}, not a whole number"
                    + (self._nearest_turns() if name == "frames" else "")
                )

        if self.head == "joint" and self.joint_coefficients > self.turn_frames:
            raise UserError(
                f"model configuration: joint_coefficients = {self.joint_coefficients} must be at most the "
                f"{self.turn_frames} frames of a turn"
            )

    def _nearest_turns(self) -> str:
        frames = math.floor(self.motion_rate * self.turn_seconds)
        nearest = [count / self.motion_rate for count in (frames, frames + 1) if count]
        return f": use {' or '.join(f'{seconds:g}' for seconds in nearest)} s"

    @property
    def turn_samples(self) -> int:
        """Speech samples of a turn (N)."""
        return round(self.speech_rate * self.turn_seconds)

    @property
    def turn_frames(self) -> int:
        """Motion frames of a turn (F)."""
        return round(self.motion_rate * self.turn_seconds)

    @property
    def turn_tokens(self) -> int:
        """Tokens of a turn: four blocks of F tokens, ten separators (110 for one second)."""
        return 4 * self.turn_frames + 10

    @property
    def context_turns(self) -> int:
        """Turns that the learned positions allow, current turn included."""
        return round(self.context_seconds / self.turn_seconds)

    @classmethod
    def of_size(cls, size: str) -> TimarConfig:
        """The configuration named ``mini``, ``base``, ``large`` or ``huge``.

        :raises UserError: when there is no such size.
        """
        if size not in _SIZES:
            raise UserError(f"unknown model size '{size}': choose one of {', '.join(_SIZES)}")
        return cls(**_SIZES[size])

    @classmethod
    def from_authors(cls, mapping: Mapping[str, Any]) -> TimarConfig:
        """From the names of the public implementation: a checkpoint's ``args`` (as a mapping) or a golden case's model.

        Entries that do not concern the network (learning rate, folders, ...) are ignored.
        """
        values: dict[str, Any] = {}
        for name, value in mapping.items():
            field = _AUTHORS_NAMES.get(name)
            if field is not None and value is not None:
                values[field] = int(value) if field == "sampling_steps" else value
        return cls(**values)

    def _check_kinds(self) -> None:
        """Values come from files: each must be of its default's kind, and small enough that a model can be made."""
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if kind in (int, float):
                highest = LARGEST_DEPTH if field.name.endswith("depth") else LARGEST_SIZE
                fits = number and abs(value) <= highest and (kind is float or float(value).is_integer())
            else:
                fits = isinstance(value, kind)
            if not fits:
                shown = str(value)[:40]
                raise UserError(f"model configuration: {field.name} = {shown} is no possible value")
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"model configuration: {name} = {getattr(self, name)} must be within 0 and 1")
        if self.turn_seconds <= 0.0 or self.mlp_ratio <= 0.0:
            raise UserError("model configuration: turn_seconds and mlp_ratio must be more than 0")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for config.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TimarConfig:
        """The inverse of :meth:`to_dict`.

        :raises UserError: on an unknown field or an impossible value.
        """
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise UserError(f"model configuration: unknown entries {', '.join(unknown)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"model configuration: {error}") from error
