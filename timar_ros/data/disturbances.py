"""The kinds of corruption, in a light module for command lines."""

from __future__ import annotations

from dataclasses import dataclass

from timar_ros.errors import UserError

# Meaning of each kind's strength, and its default.
KINDS: dict[str, tuple[str, float]] = {
    "noise": ("bursts of noise in both channels at this SNR in dB", 5.0),
    "silence": ("share of the time in which either channel is cut out, in bursts", 0.2),
    "drop_motion": ("share of the user's frames that are not tracked, in bursts", 0.3),
    "hold_motion": ("share of the user's frames that repeat the last good one, in bursts", 0.3),
    "gaussian": ("normal noise on the user's motion, in deviations of each column", 0.5),
    "laplace": ("Laplace noise on the user's motion, in deviations of each column", 0.5),
    "uniform": ("uniform noise on the user's motion, in deviations of each column", 0.5),
    "shift": ("turns (seconds) by which the user's speech and motion come late", 1.0),
}


@dataclass(frozen=True)
class Corruption:
    """A kind of :data:`KINDS` and its strength.

    :raises UserError: an unknown kind or an impossible strength.
    """

    kind: str
    strength: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"unknown corruption '{self.kind}'; one of {', '.join(KINDS)}")
        low, high = (0.0, 1.0) if self.kind in ("silence", "drop_motion", "hold_motion") else (0.0, 60.0)
        low = -30.0 if self.kind == "noise" else low
        if not low <= self.strength <= high:
            raise UserError(f"{self.kind}: a strength of {self.strength:g} is not within {low:g} … {high:g}")

    @classmethod
    def parse(cls, text: str) -> Corruption:
        """From ``kind`` or ``kind=strength``."""
        kind, _, strength = text.partition("=")
        try:
            return cls(kind, float(strength) if strength else KINDS.get(kind, ("", 0.0))[1])
        except ValueError as error:
            raise UserError(f"'{text}': the strength is no number") from error

    def __str__(self) -> str:
        return f"{self.kind}={self.strength:g}"
