"""A model's motion for every conversation of a data set, on several processes; an interrupted run resumes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from timar_ros.baselines.naive import MeanPose, RandomClip
from timar_ros.data.dualtalk_folder import Clip, DualTalkFolder
from timar_ros.distributed import process_count, process_index
from timar_ros.errors import UserError, require
from timar_ros.files import atomic_path
from timar_ros.motion import MOTION_RATE
from timar_ros.streaming.sampling_options import LARGEST_SEED, PipelineOptions

Array = NDArray[np.float32]
NAIVE = ("mean-pose", "random-clip")
# Version of the prediction method beyond the recipe; a new version does not reuse older predictions.
# 2: every conversation has its own noise.
VERSION = 2


@dataclass(frozen=True)
class Recipe:
    """The definition of a set of predictions, stored with them, so that sets never mix."""

    model: str
    """A model's name or folder (TIMAR or DualTalk), or ``mean-pose`` or ``random-clip``."""
    data: str
    split: str
    options: dict[str, Any] = field(default_factory=dict)
    """Options of :class:`~timar_ros.streaming.PipelineOptions`; baselines take none."""
    weights: str = ""
    """SHA-256 of the weights and of the configuration, so that neither a retrained model nor one with another
    configuration inherits predictions."""
    device: str = "cpu"
    """``cpu``, ``cuda``, ``cuda:N``, or ``auto``: each process of a launcher its own GPU."""
    dtype: str = "float32"

    @property
    def key(self) -> str:
        """A short name of the recipe, fit for a folder."""
        described = asdict(self) | {"version": VERSION}
        del described["device"]
        if self.dtype == "float32":
            del described["dtype"]
        text = json.dumps(described, sort_keys=True)
        return f"{Path(self.model).name}-{self.split}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


class Predictor(Protocol):
    """Motion for one whole conversation."""

    def __call__(self, clip: Clip) -> Array:
        """``[T, 56]`` for the clip's frames."""


def make_recipe(
    model: str, data: str | Path, split: str, *, device: str = "cpu", dtype: str = "float32", **options: Any
) -> Recipe:
    """A recipe with the weights' hash.

    :raises UserError: there is no such model, or the options are not allowed.
    """
    weights = ""
    if model in NAIVE:
        options = {"seed": options.get("seed", 0)} if model == "random-clip" else {}
    elif _is_dualtalk(model):
        options, weights = {}, _sha256(Path(model) / "model.safetensors")
    else:
        loaded = _timar(model, device, dtype)
        PipelineOptions(**options).context_turns(loaded.config)
        described = json.dumps(loaded.config.to_dict(), sort_keys=True)
        weights = f"{loaded.sha256}-{hashlib.sha256(described.encode()).hexdigest()[:8]}"
    return Recipe(model, str(data), split, options, weights, device, dtype)


def predict(
    recipe: Recipe,
    out: str | Path,
    jobs: int = 1,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``X_speaker1|2.npy [T, 56]`` for every conversation and role into ``out/KEY/``, except existing ones.

    Under ``accelerate launch`` or torchrun each process makes its share; call it in all of them, then wait for all.

    :param limit: only this many conversations and roles, evenly chosen.
    :param progress: called with (done, total).
    :returns: the folder.
    """
    folder = Path(out) / recipe.key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")
    # Choose shares before the check for existing files: files that other processes finish must not move the shares.
    clips = chosen_clips(recipe, limit)[process_index() :: process_count()]
    missing = [clip for clip in clips if not _file(folder, clip).exists()]
    done, total = len(clips) - len(missing), len(clips)
    if progress is not None:
        progress(done, total)
    if jobs <= 1 or len(missing) < 2:
        for clip in missing:
            predict_one(recipe, folder, clip)
            done += 1
            if progress is not None:
                progress(done, total)
        return folder
    with ProcessPoolExecutor(min(jobs, len(missing)), mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        running = [pool.submit(predict_one, recipe, folder, clip) for clip in missing]
        try:
            for future in as_completed(running):
                future.result()
                done += 1
                if progress is not None:
                    progress(done, total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return folder


def chosen_clips(recipe: Recipe, limit: int | None) -> list[Clip]:
    """The conversations and roles to predict, in order of name."""
    clips = DualTalkFolder(recipe.data, recipe.split).clips(None)
    if limit is not None and limit < len(clips):
        clips = [clips[i] for i in np.linspace(0, len(clips) - 1, limit).astype(int)]
    return clips


def predict_one(recipe: Recipe, folder: Path, clip: Clip) -> None:
    """Make and write one prediction."""
    motion = _predictor(recipe)(clip)
    with atomic_path(_file(folder, clip)) as temporary:
        np.save(temporary, motion.astype(np.float32))


def _file(folder: Path, clip: Clip) -> Path:
    return folder / f"{clip.pair.name}_speaker{clip.agent}.npy"


def _one_thread() -> None:
    """Use one thread: the processes already fill the cores."""
    import torch

    torch.set_num_threads(1)


@lru_cache(maxsize=2)
def _timar(model: str, device: str, dtype: str) -> Any:
    import torch

    from timar_ros.streaming.offline import resolve_model

    if device == "auto":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return resolve_model(model, device=device, dtype=dtype)


def _predictor(recipe: Recipe) -> Predictor:
    return _cached_predictor(json.dumps(asdict(recipe)))


@lru_cache(maxsize=2)
def _cached_predictor(described: str) -> Predictor:
    recipe = Recipe(**json.loads(described))
    folder = DualTalkFolder(recipe.data, recipe.split, normalise=False)
    if recipe.model in NAIVE:
        training = DualTalkFolder(recipe.data, "train")
        mean = MeanPose(training) if recipe.model == "mean-pose" else None

        def naive(clip: Clip) -> Array:
            if mean is not None:
                return mean.generate(clip.frames)
            return RandomClip(training, _seed(clip, recipe.options["seed"])).generate(clip.frames)

        return naive
    if _is_dualtalk(recipe.model):
        return _DualTalkPredictor(recipe)
    model, options = _timar(recipe.model, recipe.device, recipe.dtype), PipelineOptions(**recipe.options)
    from timar_ros.streaming.offline import generate

    def timar(clip: Clip) -> Array:
        item = folder.load(clip)
        own = replace(options, seed=_seed(clip, options.seed))
        return generate(model, own, item["user_speech"], item["agent_speech"], item["user_motion"])

    return timar


def _seed(clip: Clip, seed: int) -> int:
    """A conversation's own seed, by its name: earlier predictions change nothing, and chance averages out.

    With one seed for all, slow noise turns all heads the same way at the same time, and means over conversations
    contain a single draw.
    """
    return (int(hashlib.sha256(clip.name.encode()).hexdigest()[:8], 16) + seed) % (LARGEST_SEED + 1)


class _DualTalkPredictor:
    """The baseline takes a whole conversation, in pieces of at most a minute."""

    PIECE = round(60 * MOTION_RATE)

    def __init__(self, recipe: Recipe) -> None:
        from timar_ros.baselines.dualtalk_checkpoint import load_dualtalk

        self.model = load_dualtalk(recipe.model)
        self.folder = DualTalkFolder(recipe.data, recipe.split)

    def __call__(self, clip: Clip) -> Array:
        torch = require("torch", "pip install 'torch>=2.4'", "the baseline")
        motions = []
        for first in range(0, clip.frames, self.PIECE):
            frames = min(self.PIECE, clip.frames - first)
            item = self.folder.load(Clip(clip.pair, clip.agent, clip.start + first, frames))
            inputs = (item["agent_speech"], item["user_speech"], np.array(item["user_motion"]))
            with torch.inference_mode():
                motions.append(self.model(*(torch.from_numpy(x)[None] for x in inputs))[0].numpy())
        return np.concatenate(motions)


def _is_dualtalk(model: str) -> bool:
    from timar_ros.baselines.dualtalk_checkpoint import is_dualtalk

    return Path(model).is_dir() and is_dualtalk(model)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
