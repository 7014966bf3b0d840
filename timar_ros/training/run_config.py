"""A training run's configuration: one YAML file, every key known, every value checked before anything heavy starts."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from timar_ros.errors import UserError
from timar_ros.files.reading import read_yaml

FAMILIES = ("timar", "dualtalk")
PRECISIONS = ("no", "bf16", "fp16")
SCHEDULES = ("constant", "decay", "cosine")


@dataclass(frozen=True)
class SpeechConfig:
    """The speech encoder: pretrained weights (frozen in the paper) or a small one trained from random weights."""

    weights: str | None = None
    """A folder or hub id for transformers (wav2vec 2.0, HuBERT, WavLM), or the folder of a trained TIMAR, whose encoder
    is used; None: random weights of ``config``."""
    config: dict[str, Any] | None = None
    """Arguments of transformers' ``Wav2Vec2Config``, for random weights."""
    trainable: bool = False
    filterbank_steps: int = 0
    """Steps before training in which the encoder alone learns to predict the log-mel energies of its input."""
    filterbank_learning_rate: float = 2e-3


@dataclass(frozen=True)
class DataConfig:
    """Data for training and validation: folders in DualTalk's layout."""

    path: str = "data/dualtalk"
    split: str = "train"
    validation_split: str | None = "test"
    validation_clips: int = 32
    clip_seconds: float = 8.0
    random_starts: bool = True
    """Draw a new start for each clip every epoch; otherwise clips lie on a fixed grid."""
    neutral_head: bool = False
    """Move every agent's mean head pose over the file to that of the whole set: speech does not show how somebody sits
    to the camera, and a model that guesses this pose moves the head far too much."""
    workers: int = 0
    skip_broken: bool = False


@dataclass(frozen=True)
class AugmentConfig:
    """Audio augmentation, each part drawn per clip and channel. ``probability`` 0 turns all of it off."""

    probability: float = 0.0
    gain_db: float = 6.0
    """Standard deviation of the level."""
    equaliser_db: float = 6.0
    """Standard deviation of the gain at the knots of a smooth random frequency response."""
    snr_db: tuple[float, float] = (8.0, 45.0)
    reverb_seconds: tuple[float, float] = (0.05, 0.5)
    reverb_probability: float = 0.4
    band_limit_probability: float = 0.2
    crosstalk_probability: float = 0.3
    crosstalk_db: tuple[float, float] = (-45.0, -22.0)
    background_probability: float = 0.0
    """Chance that a channel has babble, music or singing behind the voice; the motion stays unchanged, so that no
    background moves a mouth (:mod:`timar_ros.training.backgrounds`)."""
    background_snr_db: tuple[float, float] = (-3.0, 20.0)
    speed: float = 0.0
    """Clips run faster or slower by up to this share, motion and audio together (pitch changes too)."""


@dataclass(frozen=True)
class MaskConfig:
    """Which agent frames are masked and which user tokens are dropped (replaced by ``fake_latent``)."""

    mean: float = 1.0
    deviation: float = 0.25
    minimum: float = 0.7
    full_share: float = 0.0
    """Share of batches in which every agent frame is masked, as at sampling with one round and masked history."""
    token_drop: float = 0.1
    """Probability with which each user token is dropped (the paper's guidance drop)."""
    turn_drop: float = 0.0
    """Probability with which a turn's user speech and motion are dropped whole (anticipatory mode)."""
    user_drop: float = 0.0
    """Probability with which a clip has no user at all, speech or motion: the branch that guidance compares with."""
    tracker_drop: float = 0.0
    """Probability with which a clip has no user motion at all (no tracker)."""
    unheard: float = 0.0
    """Probability with which the last turn of a clip is not fully known: the user's part is cut off within the turn or
    dropped whole, the agent's speech is known a random time ahead. Rolling turns need this."""
    group_drop: float = 0.0
    """Probability with which a clip lacks one or two of expression, jaw, head pose (needs ``partial_motion``)."""


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW and its schedule. The paper: lr 1e-4 x batch/256, 100 of 400 epochs warm-up, then constant."""

    batch_size: int = 256
    """Clips in one optimiser step, over all processes."""
    micro_batch: int | None = None
    """Clips at once on one device; if smaller than the device's share of ``batch_size``, gradients accumulate."""
    steps: int | None = None
    epochs: int | None = 400
    seconds: float | None = None
    """Train for this long, by the clock, instead of a number of steps; the schedule follows time as well. A stopped run
    continues with its remaining time, not bit for bit."""
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.02
    clip_norm: float = 3.0
    warmup_steps: int | None = None
    warmup_epochs: int | None = None
    schedule: str = "constant"
    """``constant``; ``cosine`` to zero; ``decay``: constant, then linear to zero over the last ``decay_share``."""
    decay_share: float = 0.2
    ema: float = 0.9999
    bound_weight: float = 1.0
    """Weight of the variational bound, which trains the learned variance alone (paper: 1)."""
    bound_steps: int | None = None
    """Learn the variance for sampling in this many steps; None: for the 1000 steps of the paper. Sampling in 5 steps
    uses a variance learned for 1000 steps far outside its training range, which only a very well trained head
    survives."""
    noisiest_share: float = 0.0
    """Share of noise draws at the noisiest level, where the prediction depends on the conditioning alone (paper: 0). An
    equal share is drawn from the levels of sampling in ``bound_steps`` steps, the rest evenly from all 1000."""
    change_weight: float = 0.0
    """Weight of the error of the head's change from frame to frame, which makes nods count
    (:func:`timar_ros.training.objective.head_change_error`; paper: 0)."""
    listening_weight: float = 1.0
    """Factor on that error while the agent is silent: listeners move less, and their movements are answers."""
    joint_weight: float = 1.0
    """Weight of the joint head's loss, if the model has a joint head."""
    noise_draws: int = 4
    """Noise draws per frame for the diffusion head (the authors' diffusion_batch_mul)."""
    precision: str = "bf16"


@dataclass(frozen=True)
class RunConfig:
    """Where a run writes and how often."""

    folder: str = "runs/timar"
    checkpoint_every: int = 500
    validate_every: int = 500
    log_every: int = 10
    keep: int = 2


@dataclass(frozen=True)
class TrainConfig:
    """The whole run. See config/train/*.yaml and docs/training.md."""

    name: str = "timar"
    family: str = "timar"
    seed: int = 0
    start: str | None = None
    """A trained model's folder to start from (fine-tuning): weights of the same name and shape are copied, the rest
    stays random. The statistics of the motion still come from the data."""
    aligned_start: bool = False
    """Start with positions and attention aligned in time (:mod:`timar_ros.training.alignment`)."""
    match_spread: bool = False
    """Match the spread of an exported model's motion to the training data's (:mod:`timar_ros.training.spread`)."""
    calm_jaw: float = 0.0
    """How much an exported model then lowers its learned variance in the jaw's columns (1: half its range). Lips then
    follow the voice more closely than lips in the data, which also move for other reasons."""
    model: dict[str, Any] = field(default_factory=dict)
    """``size`` (mini, base, large, huge; default large) and any field of TimarConfig; for dualtalk: ``feature_dim``."""
    speech: SpeechConfig = SpeechConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    masks: MaskConfig = MaskConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    run: RunConfig = RunConfig()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for YAML and JSON."""
        return typing.cast("dict[str, Any]", _plain(dataclasses.asdict(self)))


def load_config(path: str | Path, changes: Sequence[str] = ()) -> TrainConfig:
    """Read a run's YAML file.

    :param changes: ``key.key=value`` each, which override the file (``value`` is YAML).
    :raises UserError: unreadable, not a mapping, an unknown key, or a value of the wrong kind or out of range.
    """
    content = read_yaml(path, "training configuration")
    for change in changes:
        _put(content, change)
    return config_from_dict(content, str(path))


def _put(content: object, change: str) -> None:
    """Set one value of nested mappings from ``key.key=value``."""
    name, equals, text = change.partition("=")
    *path, last = name.split(".")
    if not equals or not last:
        raise UserError(f"--set {change}: needs key.key=value, such as --set optimiser.batch_size=4")
    at = content
    for key in path:
        at = at.setdefault(key, {}) if isinstance(at, dict) else None
    if not isinstance(at, dict):
        raise UserError(f"--set {change}: {'.'.join(path)} holds no keys")
    try:
        at[last] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"--set {change}: is no valid YAML ({' '.join(str(error).split())})") from error


def config_from_dict(content: object, where: str = "training configuration") -> TrainConfig:
    """Build and check a configuration from plain values; ``where`` names the source in errors."""
    config = typing.cast("TrainConfig", _build(TrainConfig, content, where, ""))
    _check(config, where)
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _build(kind: type, content: object, where: str, prefix: str) -> object:
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{where}: {prefix.rstrip('.') or 'the file'} must be a mapping of keys to values")
    fields = typing.get_type_hints(kind)
    unknown = [str(key) for key in content if key not in fields]
    if unknown:
        raise UserError(f"{where}: unknown key '{prefix}{unknown[0]}'; known here: {', '.join(fields)}")
    return kind(**{key: _convert(fields[key], value, where, f"{prefix}{key}") for key, value in content.items()})


def _convert(kind: Any, value: object, where: str, key: str) -> object:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build(kind, value, where, f"{key}.")
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where, key)
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(arguments):
            raise UserError(f"{where}: {key} must be a list of {len(arguments)} numbers, not {value!r}")
        return tuple(_convert(a, v, where, key) for a, v in zip(arguments, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where}: {key} must be a mapping, not {value!r}")
        return value
    if kind is float and isinstance(value, str):
        # YAML 1.1 reads 1e-3 (without a dot) as text.
        try:
            value = float(value)
        except ValueError:
            raise UserError(f"{where}: {key} must be a number, not {value!r}") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{where}: {key} must be of type {kind.__name__}, not {value!r}")
    return value


def _check(config: TrainConfig, where: str) -> None:
    def need(good: bool, key: str, rule: str) -> None:
        if not good:
            raise UserError(f"{where}: {key} must be {rule}")

    optimiser, masks, data = config.optimiser, config.masks, config.data
    need(config.family in FAMILIES, "family", f"one of {', '.join(FAMILIES)}, not {config.family!r}")
    need(optimiser.precision in PRECISIONS, "optimiser.precision", f"one of {', '.join(PRECISIONS)}")
    need(optimiser.schedule in SCHEDULES, "optimiser.schedule", f"one of {', '.join(SCHEDULES)}")
    lengths = [each for each in (optimiser.steps, optimiser.epochs, optimiser.seconds) if each is not None]
    need(len(lengths) == 1, "optimiser", "given one of steps, epochs and seconds (the others null)")
    need(lengths[0] > 0, "optimiser.steps, epochs and seconds", "positive")
    need(optimiser.batch_size > 0 and optimiser.noise_draws > 0, "optimiser.batch_size and noise_draws", "positive")
    need(optimiser.learning_rate > 0, "optimiser.learning_rate", "positive")
    need(0 <= config.calm_jaw <= 2, "calm_jaw", "in [0, 2]")
    need(0 <= optimiser.noisiest_share <= 0.5, "optimiser.noisiest_share", "in [0, 0.5]")
    need(optimiser.change_weight >= 0, "optimiser.change_weight", "0 or more")
    need(optimiser.listening_weight > 0, "optimiser.listening_weight", "positive")
    need(0 <= optimiser.ema < 1, "optimiser.ema", "in [0, 1)")
    need(0 < optimiser.decay_share <= 1, "optimiser.decay_share", "in (0, 1]")
    need(
        0 < masks.minimum <= 1 and masks.deviation > 0, "masks", "given with minimum in (0, 1] and a positive deviation"
    )
    for key in ("full_share", "token_drop", "turn_drop", "tracker_drop", "user_drop", "unheard", "group_drop"):
        need(0 <= getattr(masks, key) <= 1, f"masks.{key}", "a probability in [0, 1]")
    need(data.clip_seconds > 0, "data.clip_seconds", "positive")
    need(0 <= config.augment.speed <= 0.25, "augment.speed", "in [0, 0.25]")
    need(
        (config.speech.weights is None) != (config.speech.config is None),
        "speech",
        "given either weights (a folder or hub id) or config (arguments of Wav2Vec2Config, for random weights)",
    )
    need(
        config.speech.trainable or config.speech.weights is not None,
        "speech.trainable",
        "true for an encoder of random weights",
    )
