"""Score a folder of predictions against a data set, on several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from timar_ros.data.dualtalk import DualTalkFolder, Pair, load_truth
from timar_ros.data.motion import read_motion
from timar_ros.errors import UserError
from timar_ros.evaluation.metrics import compute_metrics


@dataclass(frozen=True)
class Task:
    """One prediction to score: its file, and whose motion it predicts (``agent`` 1 or 2 of the pair)."""

    prediction: Path
    pair: Pair
    agent: int

    @property
    def name(self) -> str:
        """Name of the clip: the pair and the agent."""
        return f"{self.pair.name}_speaker{self.agent}"


@dataclass(frozen=True)
class Score:
    """The metrics of one clip."""

    name: str
    metrics: dict[str, float]


def find_predictions(predictions: str | Path, data: DualTalkFolder) -> tuple[list[Task], list[str]]:
    """Match files ``X_speaker1|2.npy|npz`` with the conversations of a data set.

    :returns: the tasks in order of name, and a line for each file that belongs to no conversation.
    :raises UserError: no such folder, or nothing in it belongs to the data.
    """
    folder = Path(predictions)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of predictions")
    pairs = {pair.name: pair for pair in data.pairs}
    tasks, strangers = [], []
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".npy", ".npz")):
        name, _, speaker = path.stem.rpartition("_speaker")
        if name in pairs and speaker in ("1", "2"):
            tasks.append(Task(path, pairs[name], int(speaker)))
        else:
            strangers.append(f"{path}: names no conversation of the data (X_speaker1 or X_speaker2 is needed)")
    if not tasks:
        raise UserError(f"{folder}: no X_speaker1|2.npy or .npz for the {len(pairs)} conversations of the data")
    return tasks, strangers


def score(task: Task) -> Score:
    """Score one prediction; truth and partner are cropped to its frames."""
    guess = read_motion(task.prediction)
    truth, partner = load_truth(task.pair.npz(task.agent)), load_truth(task.pair.npz(3 - task.agent))
    # A prediction of whole turns may outlast the truth by less than a turn.
    frames = min(len(guess), len(truth), len(partner))
    if len(guess) - frames > 50:
        raise UserError(f"{task.prediction}: {len(guess)} frames for a clip of {frames}")
    try:
        metrics = compute_metrics(
            guess[:frames],
            truth[:, :50],
            np.concatenate([truth[:, 53:], truth[:, 50:53]], axis=1),
            partner[:, :50],
            np.concatenate([partner[:, 53:], partner[:, 50:53]], axis=1),
        )
    except UserError as error:
        raise UserError(f"{task.prediction}: {error}") from error
    return Score(task.name, metrics)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children started inside use one thread: the processes already fill the cores. BLAS reads these at import."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    kept = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def score_all(tasks: Iterable[Task], jobs: int = 1, progress: Callable[[int, int], None] | None = None) -> list[Score]:
    """Score predictions, in the order of the tasks whatever the number of processes.

    :param progress: called with (done, total) after each clip.
    """
    work = list(tasks)
    found: dict[int, Score] = {}

    def finished(index: int, one: Score) -> None:
        found[index] = one
        if progress is not None:
            progress(len(found), len(work))

    if jobs <= 1 or len(work) < 2:
        for index, task in enumerate(work):
            finished(index, score(task))
        return [found[index] for index in range(len(work))]
    with _one_thread_each(), ProcessPoolExecutor(min(jobs, len(work)), mp_context=get_context("spawn")) as pool:
        running = {pool.submit(score, task): index for index, task in enumerate(work)}
        try:
            for future in as_completed(running):
                finished(running[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [found[index] for index in range(len(work))]
