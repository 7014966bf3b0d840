"""The options of a conversation, defined once: Python, command lines, node parameters, StreamInfo and replay use them.

The module imports nothing heavy: command lines are built from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from timar_ros.errors import UserError
from timar_ros.options import check, option

if TYPE_CHECKING:
    from timar_ros.model import TimarConfig

Mode = Literal["reactive", "anticipatory", "rolling"]
MODES: tuple[Mode, ...] = ("reactive", "anticipatory", "rolling")
POLICIES = ("auto", "sliding", "stepped")
ENGINES = ("cached", "oracle")
NORMALISING = ("running", "clip")

LARGEST_SEED = 2**63 - 1

LIVELINESS = (0.3, 2.0)
"""Range of the dial; training saw 0.45 to 2.2."""

FRAME_SECONDS = 0.04
"""Length of a motion frame [s]: hops, their margin and the look-ahead are whole frames."""

ROLLING_GUIDANCE = 2.0
"""Rolling: factor on how far a joint head's guidance goes beyond 1. The frames shown at the end of a turn have heard
little after the partner's phrase, and their answer to it is weaker."""

MARGIN = 0.15
"""Time beyond the turn itself to compute, transport and play motion [s]."""


@dataclass(frozen=True)
class SamplingOptions:
    """How the network samples a turn's motion, and how much of the conversation it sees.

    :raises UserError: on a value that is not allowed, naming it and what is allowed.
    """

    context_seconds: float | None = option(
        None, "window of the network, current turn included", unit="s", low=0, high=3600, kind=float,
        unset=0.0, none="the model's longest",
    )  # fmt: skip
    context_policy: str = option(
        "auto", "what leaves a full window: the oldest turn (sliding), or all but the newest three (stepped: less "
        "work); auto: stepped in rolling mode, else sliding", choices=POLICIES,
    )  # fmt: skip
    mask_history_agent: bool = option(True, "hide the agent's own past motion from the network, as in the paper")
    guidance: float | None = option(
        None, "strength of classifier-free guidance towards the user's behaviour (with a joint head: of the head's "
        "movement alone); 1: off", low=0, high=20, kind=float, unset=-1.0, none="the model's",
    )  # fmt: skip
    temperature: float = option(1.0, "factor on the noise that sampling adds", low=0, high=10)
    sampling_steps: int | None = option(
        None, "diffusion steps", low=2, high=1000, kind=int, unset=0, none="the model's"
    )
    noise_correlation: float | None = option(
        None, "correlation time of the sampling noise; 0: white noise, as in the paper", unit="s",
        low=0, high=60, kind=float, unset=-1.0, none="the model's",
    )  # fmt: skip
    head_crossover: float | None = option(
        None, "head: sampled motion below this frequency, posterior mean above; 0: all sampled, as in the paper",
        unit="Hz", low=0, high=6.25, kind=float, unset=-1.0, none="the model's",
    )  # fmt: skip
    liveliness: float = option(
        1.0, "size of the head's motion, 1: an average person's (models with a joint head only)",
        low=LIVELINESS[0], high=LIVELINESS[1],
    )  # fmt: skip
    follow_partner: bool = option(
        True, "the liveliness is multiplied by how much the partner's tracked head moved in the last 10 s, against an "
        "average person's, within 0.5 and 1.5 (models with a joint head)",
    )  # fmt: skip
    engine: str = option(
        "cached", "cached: keep keys and values of past turns; oracle: compute the whole window every turn",
        choices=ENGINES, live=False,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check(self)

    @property
    def window_policy(self) -> str:
        """The context policy in effect: ``sliding`` or ``stepped``."""
        return "sliding" if self.context_policy == "auto" else self.context_policy

    def guidance_for(self, config: TimarConfig) -> float:
        """The guidance in effect with a model."""
        return config.guidance if self.guidance is None else self.guidance

    def context_turns(self, config: TimarConfig) -> int:
        """The window in turns of a model, current turn included.

        :raises UserError: when the model cannot serve that window.
        """
        seconds = config.context_seconds if self.context_seconds is None else self.context_seconds
        turns = seconds / config.turn_seconds
        if not (math.isclose(turns, round(turns)) and 1 <= round(turns) <= config.context_turns):
            raise UserError(
                f"context_seconds = {seconds}: need whole turns of {config.turn_seconds} s, "
                f"at most {config.context_seconds} s"
            )
        return round(turns)


@dataclass(frozen=True)
class PipelineOptions(SamplingOptions):
    """All options of a conversation: sampling, and what happens to a turn before and after the network.

    :raises UserError: on a value that is not allowed, naming it and what is allowed.
    """

    mode: Mode = option(
        "reactive", "reactive: motion after each turn; anticipatory: before it, from the agent's speech; "
        "rolling: every hop", choices=MODES,
    )  # fmt: skip
    seed: int = option(
        0, "the sampling noise is a function of the seed and the turn's number", low=0, high=LARGEST_SEED
    )
    normalising: Literal["running", "clip"] = option(
        "running", "speech level from what was heard so far, as live, or from the whole recording, as in the paper",
        choices=NORMALISING, live=False,
    )  # fmt: skip
    seams: bool = option(True, "smooth the seam between one turn's motion and the next")
    playback_delay: float | None = option(
        None, "motion for time t is shown at t + this", unit="s", low=0, high=60, kind=float, unset=-1.0,
        none="a turn and the time to compute it; 0 in anticipatory mode",
    )  # fmt: skip
    channel: int = option(
        -1, "channel of the user's audio that is heard, from 0 on; -1: the mean of all", low=-1, high=254
    )
    planning_lead: float = option(
        0.24, "anticipatory: how long before its begin a turn is planned; the user is heard that much later",
        unit="s", low=0, high=60,
    )  # fmt: skip
    hop: float = option(
        0.2, "rolling: time between two hops; must divide the turn", unit="s",
        low=FRAME_SECONDS, high=1,
    )  # fmt: skip
    hop_margin: float = option(
        0.12, "rolling: time for computing and transport after a hop", unit="s",
        low=0, high=1,
    )  # fmt: skip
    look_ahead: float = option(
        0.4, "rolling: how early the agent's speech must come so that it is heard undelayed", unit="s",
        low=FRAME_SECONDS, high=10,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hop", "hop_margin", "look_ahead"):
            frames = getattr(self, name) / FRAME_SECONDS
            if not math.isclose(frames, round(frames), abs_tol=1e-6):
                raise UserError(f"{name} = {getattr(self, name)}: must be whole frames of {FRAME_SECONDS} s")
        if self.mode != "rolling":
            return
        if self.look_ahead < self.hop + self.hop_margin - 1e-9:
            raise UserError(
                f"look_ahead = {self.look_ahead}: must be hop and hop_margin at least, {self.hop + self.hop_margin:g} s"
            )
        if self.playback_delay is not None and not math.isclose(self.playback_delay, self.hop + self.hop_margin):
            raise UserError("playback_delay is hop and hop_margin in rolling mode: set those")

    @property
    def window_policy(self) -> str:
        """The context policy in effect: ``sliding`` or ``stepped``."""
        if self.context_policy == "auto" and self.mode == "rolling":
            return "stepped"  # rolling keeps five histories, and a sliding history is encoded again at every turn
        return super().window_policy

    def guidance_for(self, config: TimarConfig) -> float:
        """The guidance in effect with a model."""
        if self.guidance is None and self.mode == "rolling" and config.head == "joint":
            return 1.0 + ROLLING_GUIDANCE * (config.guidance - 1.0)
        return super().guidance_for(config)

    def step_seconds(self, turn_seconds: float) -> float:
        """How much of the conversation one step of the pipeline takes [s]: a turn, or in rolling mode a hop."""
        return self.hop if self.mode == "rolling" else turn_seconds

    def delay_ns(self, turn_seconds: float) -> int:
        """The playback delay [ns] with turns of this length; in rolling mode for speech that is not ahead."""
        if self.mode == "rolling":
            return round((self.hop + self.hop_margin) * 1e9)
        if self.playback_delay is not None:
            return round(self.playback_delay * 1e9)
        return 0 if self.mode == "anticipatory" else round((turn_seconds + MARGIN) * 1e9)
