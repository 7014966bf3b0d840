"""Score a folder of predictions against a data set, on several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from timar_ros.data.dualtalk_folder import DualTalkFolder, Pair, load_truth
from timar_ros.data.motion_files import dualtalk_pose, read_motion
from timar_ros.errors import UserError
from timar_ros.evaluation.metrics.paper_metrics import compute_metrics
from timar_ros.motion import EXPRESSION
from timar_ros.parallel import run_all


@dataclass(frozen=True)
class Task:
    """One prediction to score: its file, and the predicted speaker (``agent`` 1 or 2 of the pair)."""

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
    """Match files ``X_speaker1|2.npy|npz|pt`` with the conversations of a data set.

    :returns: the tasks in order of name, and a line for each file that belongs to no conversation.
    :raises UserError: no such folder, or nothing in it belongs to the data.
    """
    folder = Path(predictions)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of predictions")
    pairs = {pair.name: pair for pair in data.pairs}
    tasks, strangers = [], []
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".npy", ".npz", ".pt")):
        name, _, speaker = path.stem.rpartition("_speaker")
        if name in pairs and speaker in ("1", "2"):
            tasks.append(Task(path, pairs[name], int(speaker)))
        else:
            strangers.append(f"{path}: names no conversation of the data (X_speaker1 or X_speaker2 is needed)")
    if not tasks:
        raise UserError(f"{folder}: no X_speaker1|2.npy, .npz or .pt for the {len(pairs)} conversations of the data")
    return tasks, strangers


def score(task: Task) -> Score:
    """Score one prediction; truth and partner are cropped to its frames."""
    guess = read_motion(task.prediction)
    truth, partner = load_truth(task.pair.npz(task.agent)), load_truth(task.pair.npz(3 - task.agent))
    # A prediction of whole turns may be longer than the truth by less than a turn.
    frames = min(len(guess), len(truth), len(partner))
    if len(guess) - frames > 50:
        raise UserError(f"{task.prediction}: {len(guess)} frames for a clip of {frames}")
    try:
        metrics = compute_metrics(
            guess[:frames],
            truth[:, EXPRESSION],
            dualtalk_pose(truth),
            partner[:, EXPRESSION],
            dualtalk_pose(partner),
        )
    except UserError as error:
        raise UserError(f"{task.prediction}: {error}") from error
    return Score(task.name, metrics)


def score_all(tasks: Iterable[Task], jobs: int = 1, progress: Callable[[int, int], None] | None = None) -> list[Score]:
    """Score predictions, in the order of the tasks for any number of processes.

    :param progress: called with (done, total) after each clip.
    """
    return run_all(score, list(tasks), jobs, progress)
