"""From a configuration to a model ready for training, and from a trained model to its folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from timar_ros.baselines.dualtalk import DualTalk, DualTalkConfig
from timar_ros.baselines.dualtalk_checkpoint import is_dualtalk, load_dualtalk, save_dualtalk
from timar_ros.data.dualtalk_folder import Clip, DualTalkFolder
from timar_ros.errors import UserError, require
from timar_ros.files.reading import first_line
from timar_ros.model import Timar, TimarConfig, create_timar, load_timar, save_timar
from timar_ros.model.checkpoint import folder_format
from timar_ros.model.speech_encoder import speech_encoder_config
from timar_ros.motion import HEAD
from timar_ros.training.alignment import align
from timar_ros.training.dataset import head_style, motion_statistics
from timar_ros.training.filterbank import initialise_filters
from timar_ros.training.objective import shown_before
from timar_ros.training.run_config import TrainConfig

# Number of clips for the statistics of standardising: enough for three digits, read in seconds.
STATISTICS_CLIPS = 400

log = logging.getLogger(__name__)


def build_model(config: TrainConfig) -> Timar | DualTalk:
    """A model with random weights (but a pretrained speech encoder, if the configuration names one)."""
    model: Timar | DualTalk = _build_dualtalk(config) if config.family == "dualtalk" else _build_timar(config)
    if config.start is not None:
        _take_weights(model, config.start)
    return model


def _build_timar(config: TrainConfig) -> Timar:
    values = dict(config.model)
    size = values.pop("size", "large")
    shape = TimarConfig.of_size(str(size)).to_dict() | values
    encoder: nn.Module | None = None
    speech = config.speech.config
    if config.speech.weights is not None:
        encoder = _pretrained(config.speech.weights)
        speech = speech_encoder_config(encoder)
        shape["speech_width"] = int(encoder.config.hidden_size)  # type: ignore[union-attr,arg-type]
    model = create_timar(TimarConfig.from_dict(shape), speech, config.seed)
    if encoder is not None:
        kept_apart = not config.speech.trainable and not _is_timar(config.speech.weights)
        model.speech_encoder, model.speech_source = encoder, config.speech.weights if kept_apart else None
    else:
        initialise_filters(model.speech_encoder, config.seed)
    model.speech_encoder.requires_grad_(config.speech.trainable)
    if config.aligned_start:
        align(model, config.seed)
    model.name = config.name
    return model


def _take_weights(model: Timar | DualTalk, source: str) -> None:
    """Put a trained model's weights into ``model`` wherever name and shape agree, and report the weights that stay."""
    trained: nn.Module = load_dualtalk(source) if is_dualtalk(source) else load_timar(source)
    own, pretrained = model.state_dict(), trained.state_dict()
    fitting = {key: value for key, value in pretrained.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise UserError(f"start: none of the weights in {source} fit this configuration's model")
    model.load_state_dict(fitting, strict=False)
    new = sorted({key.split(".")[0] for key in own if key not in fitting})
    log.info("%d of %d weights from %s%s", len(fitting), len(own), source, f"; new: {', '.join(new)}" if new else "")


def _build_dualtalk(config: TrainConfig) -> DualTalk:
    """The baseline; its two speech encoders start equal and are trained separately."""
    pretrained = None if config.speech.weights is None else _pretrained(config.speech.weights)
    speech = config.speech.config if pretrained is None else speech_encoder_config(pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        baseline = DualTalk(DualTalkConfig.from_dict(config.model), speech or {})
    for part in (baseline.joint_encoder.audio_encoder1, baseline.joint_encoder.audio_encoder2):
        if pretrained is None:
            initialise_filters(part, config.seed)
        else:
            part.load_state_dict(pretrained.state_dict(), strict=False)
        part.requires_grad_(config.speech.trainable)
    return baseline


def _is_timar(source: str | None) -> bool:
    """Whether ``source`` is the folder of a model of this package, whose speech encoder is used."""
    return source is not None and (folder_format(source) or "").startswith("timar_ros")


def _pretrained(source: str) -> nn.Module:
    if _is_timar(source):
        return load_timar(source).speech_encoder
    transformers = require("transformers", "pip install 'transformers>=4.45'", "the speech encoder")
    try:
        encoder: nn.Module = transformers.AutoModel.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise UserError(
            f"speech.weights '{source}' cannot be loaded ({reason}): give a folder that holds it"
        ) from error
    return encoder


def set_statistics(model: Timar | DualTalk, config: TrainConfig, skip: frozenset[str] = frozenset()) -> None:
    """Fill the statistics of a model that standardises motion, from an even choice of the training clips."""
    if not model.config.standardise:
        return
    folder = DualTalkFolder(config.data.path, config.data.split, skip=skip)
    clips = folder.clips(config.data.clip_seconds)
    chosen = [clips[i] for i in np.linspace(0, len(clips) - 1, min(len(clips), STATISTICS_CLIPS)).astype(int)]
    mean, deviation = motion_statistics(folder, chosen, config.data.neutral_head)
    model.motion_mean.copy_(torch.from_numpy(mean))
    model.motion_scale.copy_(torch.from_numpy(deviation))
    if isinstance(model, Timar) and model.config.head == "joint":
        _set_joint_statistics(model, folder, chosen)


def _set_joint_statistics(model: Timar, folder: DualTalkFolder, clips: list[Clip]) -> None:
    """Statistics of a turn's movement and of people's liveliness, for the joint head."""
    poses = torch.from_numpy(np.stack([np.array(folder.load(clip)["agent_motion"][:, HEAD]) for clip in clips]))
    poses = (poses - model.motion_mean[HEAD].cpu()) / model.motion_scale[HEAD].cpu()
    frames = model.config.turn_frames
    turns = poses[:, : poses.shape[1] // frames * frames].unflatten(1, (-1, frames))
    shown = shown_before(turns)[:, 1:].flatten(0, 1)
    codes = model.joint_head.encode(turns[:, 1:].flatten(0, 1), shown[:, -1], torch.ones(3))
    model.joint_scale.copy_(codes.std(0).clamp(min=1e-4).view(-1, 3))
    styles = np.array([head_style(clip.pair.npz(clip.agent)) for clip in clips])
    model.joint_style.copy_(torch.tensor([styles.mean(), max(float(styles.std()), 1e-2)]))


def save_model(
    model: Timar | DualTalk, folder: Path, config: TrainConfig, dtype: str | None = None, **notes: Any
) -> None:
    """Write a trained model's folder: config.json (``trained: true``, how it was trained) and model.safetensors."""
    notes = {"training": {"config": config.to_dict(), **notes}}
    if isinstance(model, DualTalk):
        save_dualtalk(model, folder, name=config.name, dtype=dtype, **notes)
        return
    before, model.trained = model.trained, True
    try:
        save_timar(model, folder, name=config.name, dtype=dtype, **notes)
    finally:
        model.trained = before
