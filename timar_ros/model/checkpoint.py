"""Reading and writing TIMAR models: our folders, bare safetensors, the authors' checkpoint. Never an open pickle."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from timar_ros.errors import UserError, require
from timar_ros.files.reading import READ_ERRORS, existing_file, first_line, read_json
from timar_ros.model.config import TimarConfig
from timar_ros.model.packing import is_packed, packed
from timar_ros.model.precision import INT8, pick_device, pick_dtype
from timar_ros.model.speech_encoder import (
    DEFAULT_SPEECH,
    FAMILIES,
    build_speech_encoder,
    default_speech_config,
    speech_encoder_config,
)
from timar_ros.model.timar import Timar, initialise

FORMAT = "timar_ros 1"
_SPEECH = "speech_encoder."
_LISTED = 8

SpeechSource = str | Path | tuple[str | Path, Mapping[str, Any]]


def create_timar(
    config: TimarConfig, speech: Mapping[str, Any] | None = None, seed: int = 0, *, zero_head: bool = True
) -> Timar:
    """A model with random weights (``trained`` is False), the same for the same seed.

    :param speech: arguments of the speech encoder's configuration; None picks one by ``config.speech_width``.
    :param zero_head: see :func:`timar_ros.model.timar.initialise`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_speech_encoder(default_speech_config(config.speech_width) if speech is None else speech)
        model = Timar(config, encoder)
        initialise(model, zero_head)
    _check_speech_width(model)
    model.name = f"untrained-{seed}"
    model.sha256 = weights_sha256(model)
    return model.eval()


def save_timar(
    model: Timar, folder: str | Path, *, name: str | None = None, dtype: str | None = None, **notes: Any
) -> None:
    """Write ``config.json`` and ``model.safetensors`` into a folder, each by rename, so that nobody reads half a file.

    :param name: the model's name; default: the folder's.
    :param dtype: store weights as ``float16`` or ``bfloat16`` (the loader chooses the type for computing).
    :param notes: further entries of config.json, such as how the model was trained.
    """
    if is_packed(model):
        raise UserError("this copy of the model is packed for inference: save the model that it was made from")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = None if dtype is None else pick_dtype(dtype, model.device)
    exact = {key for key, _ in model.named_buffers(recurse=False)}
    state = {
        key: value.detach().cpu().to(value.dtype if stored is None or key in exact else stored).contiguous()
        for key, value in model.state_dict().items()
        if model.speech_source is None or not key.startswith(_SPEECH)
    }
    description = {
        "format": FORMAT,
        "name": name or folder.name,
        "trained": model.trained,
        "model": model.config.to_dict(),
        "speech": _portable(model.speech_source, folder) or speech_encoder_config(model.speech_encoder),
        **notes,
    }
    write_folder(folder, state, description)


def _portable(speech: str | None, folder: Path) -> str | None:
    """The speech encoder's folder as the model's folder sees it, so that both load from any directory.

    An absolute path and a hub's name stay as they are.
    """
    if not speech or Path(speech).is_absolute() or not Path(speech).is_dir():
        return speech
    return os.path.relpath(speech, folder)


def write_folder(folder: Path, state: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``config.json``, each by rename, so that a reader never sees half of one."""
    text, weights = folder / "config.json", folder / "model.safetensors"
    described = text.with_suffix(f".{os.getpid()}.part")
    described.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    part = weights.with_suffix(f".{os.getpid()}.part")
    save_tensors(state, part)
    part.replace(weights)
    described.replace(text)


def save_tensors(state: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file with default permissions; safetensors itself lets only the owner read."""
    path.touch()
    mode = path.stat().st_mode
    save_file(state, path)
    path.chmod(mode)


def folder_format(folder: str | Path) -> str | None:
    """The ``format`` in a folder's config.json; None if it is missing or unreadable."""
    try:
        described = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = described.get("format") if isinstance(described, dict) else None
    return found if isinstance(found, str) else None


def load_timar(
    path: str | Path,
    speech: SpeechSource | None = None,
    config: TimarConfig | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    inference: bool = False,
) -> Timar:
    """Load a model for inference or further training.

    :param path: a folder (config.json, model.safetensors), a bare .safetensors, or the authors' .pth (EMA weights).
    :param speech: a folder or hub name for transformers, or (weights.safetensors, speech configuration as a mapping);
        default: the encoder named in config.json, or for the other kinds of file the released model's encoder.
    :param config: default: from the folder or the checkpoint; for a bare .safetensors the released model's.
    :param device: ``cpu``, ``cuda``, ``cuda:1``, ... or ``auto`` (CUDA where there is one).
    :param dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto``: times the first two and takes the faster.
        ``int8`` quantises the transformer blocks, on a processor, for inference alone.
    :param inference: on a processor keep only weights packed for inference (Conversation would otherwise pack a second
        copy); such a model can be neither trained nor saved.
    :raises UserError: when a file is missing or invalid, or its keys do not fit the configuration.
    """
    path = Path(path)
    trained, name, notes = True, path.stem, {}
    if path.is_dir():
        notes = _read_description(path)
        trained, name = bool(notes["trained"]), str(notes["name"])
        config = config or TimarConfig.from_dict(notes["model"])
        path = path / "model.safetensors"
        state = _read_safetensors(path)
    elif path.suffix == ".safetensors":
        state = _read_safetensors(path)
    elif path.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        state, args = _read_authors_checkpoint(path)
        config = config or TimarConfig.from_authors(args)
    elif not path.exists():
        raise UserError(f"no model at {path}: give a folder with config.json, a .safetensors or the authors' .pth")
    else:
        raise UserError(f"{path} is no model: give a folder with config.json, a .safetensors or the authors' .pth")
    config = config or TimarConfig()
    own_speech = {key.removeprefix(_SPEECH): state.pop(key) for key in list(state) if key.startswith(_SPEECH)}
    encoder, source = _load_speech(speech, notes.get("speech"), own_speech, path)
    try:
        with torch.device("meta"):
            model = Timar(config, nn.Identity())
    except READ_ERRORS as error:
        raise UserError(f"{path}: no model can be made of its configuration: {first_line(error)}") from error
    _cut_positions(model, state)
    _load_state(model, state, f"{path}")
    model.speech_encoder = encoder
    _check_speech_width(model)
    model.speech_source, model.trained, model.name = source, trained, name
    model.sha256 = file_sha256(path)
    model.requires_grad_(True)
    if source is not None:
        encoder.requires_grad_(False)
    return place_timar(model, device, dtype, inference)


def place_timar(
    model: Timar, device: str | torch.device = "cpu", dtype: str = "float32", inference: bool = False
) -> Timar:
    """A model moved to a device and a type; see :func:`load_timar` for the arguments.

    The given model changes too; after packing its weights, do not use it any more.
    """
    target = pick_device(device)
    statistics = {key: value.float() for key, value in model.named_buffers(recurse=False)}
    model = model.to(target, pick_dtype(dtype, target, model.config)).eval()
    for key, value in statistics.items():  # motion's statistics stay exact
        setattr(model, key, value.to(target))
    if dtype == INT8 or (inference and target.type == "cpu"):
        model = packed(model, int8=dtype == INT8)
    return model


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over a model's tensors in order of name, for weights without a file."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"no model in {folder}: it has no config.json")
    values = read_json(path, "model description")
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise UserError(f"{path}: format '{found}' is not '{FORMAT}': not a model of this package, or of a newer one")
    missing = [key for key in ("name", "trained", "model", "speech") if key not in values]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}")
    return values


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if path.exists():
        existing_file(path, "weights")
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"no weights at {path}") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path} as safetensors: {error}") from error


def _read_authors_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """EMA weights and arguments of the authors' ``torch.save`` file, which may hold argparse.Namespace alone."""
    if path.exists():
        existing_file(path, "checkpoint")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint at {path}") from None
    except pickle.UnpicklingError as error:
        wanted = re.search(r"Unsupported (?:global|class|operand)[^\n.]*(?:\.\w+)*", str(error))
        reason = wanted.group(0) if wanted else "it asks for more than tensors and argparse.Namespace"
        raise UserError(
            f"refused to load {path}: a pickle that could run code ({reason}); convert it to safetensors"
        ) from None
    except READ_ERRORS as error:
        raise UserError(f"cannot read {path} as a checkpoint: {first_line(error)}") from error
    if not isinstance(values, dict) or not isinstance(values.get("model_ema"), dict):
        raise UserError(f"{path} is no TIMAR checkpoint: it has no 'model_ema' entry")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in values["model_ema"].items()):
        raise UserError(f"{path} is no TIMAR checkpoint: its 'model_ema' holds something else than named tensors")
    args = values.get("args")
    if isinstance(args, argparse.Namespace):
        args = vars(args)
    if args is not None and not isinstance(args, dict):
        raise UserError(f"{path}: its 'args' are {type(args).__name__}, not the options of a training")
    return values["model_ema"], args or {}


def _load_speech(
    source: SpeechSource | None, described: object, own: dict[str, Tensor], path: Path
) -> tuple[nn.Module, str | None]:
    """The speech encoder with its weights, and its source (None when the weights are part of the model)."""
    if source is None:
        if isinstance(described, dict):
            return _speech_from_state(described, own, str(path)), None
        source = str(described) if described else DEFAULT_SPEECH
        local_folder = path.parent / source
        if described and local_folder.is_dir():  # relative to the model's folder; earlier versions: to the save place
            source = str(local_folder)
    if isinstance(source, tuple):
        return _speech_from_state(source[1], _read_safetensors(Path(source[0])), str(source[0])), None
    transformers = require("transformers", "pip install 'transformers>=4.45'", "the speech encoder")
    try:
        encoder = transformers.AutoModel.from_pretrained(str(source), dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise UserError(
            f"cannot load the speech encoder '{source}' ({reason}): give its folder (--speech; in Python speech=)"
        ) from error
    if encoder.config.model_type not in FAMILIES:
        raise UserError(
            f"speech encoder '{source}' is of type '{encoder.config.model_type}': use one of {', '.join(FAMILIES)}"
        )
    return encoder, str(source)


def _speech_from_state(config: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> nn.Module:
    encoder = build_speech_encoder(config)
    names = {}
    for key, value in state.items():
        key = re.sub(r"^(wav2vec2|hubert|wavlm)\.", "", key)
        # Hub checkpoints from before torch's parametrizations call a weight norm's parts weight_g and weight_v.
        key = key.replace("conv.weight_g", "conv.parametrizations.weight.original0")
        key = key.replace("conv.weight_v", "conv.parametrizations.weight.original1")
        if not key.startswith(("lm_head.", "masked_spec_embed")):
            names[key] = value
    _load_state(encoder, names, f"speech encoder {where}", assign=False)
    return encoder


def _load_state(model: nn.Module, state: Mapping[str, Tensor], where: str, assign: bool = True) -> None:
    """Fill a model; the error names every missing, unknown or misshapen key."""
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    misshapen = [
        f"{key} is {list(state[key].shape)} and should be {list(shape)}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    problems = [
        f"{kind} {len(keys)}: {', '.join(keys[:_LISTED])}{', ...' if len(keys) > _LISTED else ''}"
        for kind, keys in (
            ("missing", sorted(set(expected) - set(state))),
            ("unknown", sorted(set(state) - set(expected))),
            ("misshapen", misshapen),
        )
        if keys
    ]
    if problems:
        told = "; ".join(problems).encode("unicode_escape").decode()  # names of tensors may be any text
        raise UserError(f"{where}: weights do not fit the configuration; {told}")
    model.load_state_dict({key: value.float() for key, value in state.items()}, assign=assign)


def _cut_positions(model: Timar, state: dict[str, Tensor]) -> None:
    """Drop learned positions that no turn of the window reaches.

    The authors' tables have ``max_context_time`` x (tokens per turn) rows; with turns longer than 1 s the window uses
    fewer.
    """
    for key, value in model.state_dict().items():
        table = state.get(key)
        if (
            key.endswith("_pos_embed_learned")
            and table is not None
            and table.ndim == 3
            and table.shape[1] > value.shape[1]
        ):
            state[key] = table[:, : value.shape[1]]


def _check_speech_width(model: Timar) -> None:
    encoder: Any = model.speech_encoder
    width = encoder.config.hidden_size
    if width != model.config.speech_width:
        raise UserError(
            f"the speech encoder's width {width} is not the model's speech_width {model.config.speech_width}"
        )
