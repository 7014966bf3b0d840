"""The learning rate over a run."""

from __future__ import annotations

import math

from timar_ros.training.run_config import OptimiserConfig

# A number of steps that a run limited by time never reaches.
ENDLESS = 10**7


def total_steps(options: OptimiserConfig, clips: int) -> int:
    """Optimiser steps of the whole run; :data:`ENDLESS` for a run limited by time."""
    if options.seconds is not None:
        return ENDLESS
    return options.steps or max(1, round((options.epochs or 0) * clips / options.batch_size))


def expected_total(step: int, warmup: int, spent: float, seconds: float) -> int:
    """Steps of a run of ``seconds``, at the pace of the first ``step`` steps in ``spent`` seconds."""
    if spent >= seconds:
        return step + 1
    # The first steps are slow: libraries initialise themselves.
    return ENDLESS if step < max(warmup, 20) else max(step + 1, round(step * seconds / max(spent, 1e-3)))


def warmup_steps(options: OptimiserConfig, clips: int) -> int:
    """Optimiser steps of the linear warm-up."""
    if options.warmup_steps is not None:
        return options.warmup_steps
    return round((options.warmup_epochs or 0) * clips / options.batch_size)


def learning_rate(step: int, total: int, warmup: int, options: OptimiserConfig) -> float:
    """The learning rate of the step from ``step`` to ``step + 1``."""
    rate = options.learning_rate
    if step < warmup:
        return rate * (step + 1) / warmup
    if options.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    if options.schedule == "decay":
        return rate * min(1.0, (total - step) / max(1.0, options.decay_share * total))
    return rate
