"""Analysis of a study's ratings: means by system with intervals, and differences of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError
from timar_ros.files.reading import read_json

DRAWS = 4000


@dataclass(frozen=True)
class Estimate:
    """A mean over people and its interval of 95 %."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Findings:
    """Results by system and by pair of systems (first minus second), and numbers of counted and excluded people."""

    people: int
    inattentive: int
    systems: dict[str, dict[str, Estimate]]
    pairs: dict[str, dict[tuple[str, str], Estimate]]


def analyse(files: Sequence[Path], key_file: Path, seed: int = 0) -> Findings:
    """The findings from people's ratings; people who missed the attention check are excluded.

    Intervals are percentiles of bootstrap means over people.

    :raises UserError: a file of another study, a file given twice, or nobody who counts.
    """
    key = _read(key_file, "timar study key 1")
    trials = key["trials"]
    everybody: dict[str, dict[str, dict[str, list[float]]]] = {}
    inattentive = 0
    for file in files:
        ratings = _read(file, "timar study 1")
        if ratings["study"] != key["study"]:
            raise UserError(f"{file}: ratings of another study than {key_file}'s")
        person = str(ratings["participant"])
        if person in everybody:
            raise UserError(f"{file}: this person's ratings were given twice")
        try:
            checks = [answer for answer in ratings["answers"] if "check" in answer]
            if not checks or any(value != each["check"] for each in checks for value in each["ratings"].values()):
                inattentive += 1
                continue
            own: dict[str, dict[str, list[float]]] = {}
            for answer in ratings["answers"]:
                if "check" not in answer:
                    system = trials[answer["trial"]]["system"]
                    for question, value in answer["ratings"].items():
                        own.setdefault(question, {}).setdefault(system, []).append(float(value))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{file}: damaged ratings ({error})") from error
        everybody[person] = own
    if not everybody:
        raise UserError(f"nobody's ratings count ({inattentive} missed the attention check): collect more")
    return _found(everybody, sorted({trial["system"] for trial in trials.values()}), inattentive, seed)


def _found(
    everybody: dict[str, dict[str, dict[str, list[float]]]], systems: list[str], inattentive: int, seed: int
) -> Findings:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(everybody), size=(DRAWS, len(everybody)))
    questions = sorted({question for own in everybody.values() for question in own})
    means: dict[str, dict[str, Estimate]] = {}
    pairs: dict[str, dict[tuple[str, str], Estimate]] = {}
    for question in questions:
        table = np.array(
            [[np.mean(own.get(question, {}).get(s, [np.nan])) for s in systems] for own in everybody.values()]
        )
        means[question] = {s: _estimate(table[:, i], drawn) for i, s in enumerate(systems)}
        pairs[question] = {
            (systems[i], systems[j]): _estimate(table[:, i] - table[:, j], drawn)
            for i, j in combinations(range(len(systems)), 2)
        }
    return Findings(len(everybody), inattentive, means, pairs)


def _estimate(values: NDArray[Any], drawn: NDArray[np.int64]) -> Estimate:
    known = np.isfinite(values)
    if not known.any():
        return Estimate(float("nan"), float("nan"), float("nan"))
    sums = np.where(known, values, 0.0)[drawn].sum(1)
    counts = known[drawn].sum(1)
    low, high = np.percentile((sums / np.maximum(counts, 1))[counts > 0], (2.5, 97.5))
    return Estimate(float(values[known].mean()), float(low), float(high))


def _read(file: Path, form: str) -> Any:
    content = read_json(file, "study file")
    if not isinstance(content, dict) or content.get("format") != form:
        raise UserError(f"{file}: is no file of format '{form}'")
    return content
