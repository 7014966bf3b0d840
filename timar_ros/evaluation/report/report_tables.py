"""The tables of a report: figures of each run, metrics against the truth, the stream's information."""

from __future__ import annotations

from typing import Any

from timar_ros.bags.recording import Recording
from timar_ros.evaluation.metrics import bag_metrics
from timar_ros.evaluation.metrics.paper_metrics import GROUPS

Table = dict[str, Any]

#: The metrics of the published tables, and their better direction.
TRUTH_LABELS = {
    "fid": "FD ↓",
    "p_fid": "P-FD ↓",
    "mse": "MSE ↓",
    "sid": "SID ↑",
    "reverse_sid": "reverse SID ↑",
    "sts": "STS ↓",
    "rpcc": "rPCC ↓",
    "variance_pre": "variance, made",
    "variance_gt": "variance, true",
}
TRUTH_COLUMNS = {"exp": "expression", "jaw": "jaw", "pose": "head"}


def tables(names: list[str], runs: list[Recording], results: list[bag_metrics.Result]) -> list[Table]:
    """All tables.

    :param names: the runs' names on the page.
    """
    truths = [
        truth(name if len(runs) > 1 else "", result["truth"])
        for name, result in zip(names, results, strict=True)
        if "truth" in result
    ]
    return [*figures(names, runs, results), *truths, *stream(runs[0])]


def figures(names: list[str], runs: list[Recording], results: list[bag_metrics.Result]) -> list[Table]:
    """Latency, behaviour and so on; a column for each run."""
    tables = []
    for group, order in bag_metrics.METRICS.items():
        if not any(group in result for result in results):
            continue
        rows = []
        for key in (key for key in order if any(key in result.get(group, {}) for result in results)):
            values = [result.get(group, {}).get(key, float("nan")) for result in results]
            rows.append([order[key].label, *(bag_metrics.shown(group, key, value) for value in values)])
        by_clock = group == "latency" and any(run.simulated for run in runs)
        note = "by the simulated clock: not what the machine took" if by_clock else ""
        tables.append(_table(bag_metrics.GROUP_TITLES[group], note, names if len(runs) > 1 else ["value"], rows))
    return tables


def truth(name: str, values: dict[str, float]) -> Table:
    """One run against the truth, by part of the face."""
    rows = [
        [label, *(f"{values[f'{metric}_{part}']:.4g}" for part in GROUPS)] for metric, label in TRUTH_LABELS.items()
    ]
    return _table("Against the truth", name, [TRUTH_COLUMNS[part] for part in GROUPS], rows)


def stream(run: Recording) -> list[Table]:
    """The graph's own information about the stream; empty if it was not recorded."""
    rows = [[str(key).replace("_", " "), _word(value)] for key, value in run.info.items() if value != ""]
    return [_table("Stream", "as the graph announced it", ["value"], rows)] if rows else []


def _table(title: str, note: str, columns: list[str], rows: list[list[str]]) -> Table:
    return {"title": title, "note": note, "columns": ["", *columns], "rows": rows}


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
