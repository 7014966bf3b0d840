"""The paper's table: a model's metrics next to the published ones, for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Column of the printed table -> (metric, factor); lower is better, except for SID.
COLUMNS: dict[str, tuple[str, float]] = {
    "FD exp": ("fid_exp", 1.0),
    "FD jaw 1e3": ("fid_jaw", 1e3),
    "FD pose 1e2": ("fid_pose", 1e2),
    "P-FD exp": ("p_fid_exp", 1.0),
    "P-FD jaw 1e3": ("p_fid_jaw", 1e3),
    "P-FD pose 1e2": ("p_fid_pose", 1e2),
    "MSE exp 1e1": ("mse_exp", 1e1),
    "MSE jaw 1e3": ("mse_jaw", 1e3),
    "MSE pose 1e2": ("mse_pose", 1e2),
    "SID exp": ("sid_exp", 1.0),
    "SID jaw": ("sid_jaw", 1.0),
    "SID pose": ("sid_pose", 1.0),
    "rPCC exp 1e2": ("rpcc_exp", 1e2),
    "rPCC jaw 1e1": ("rpcc_jaw", 1e1),
    "rPCC pose 1e1": ("rpcc_pose", 1e1),
}
# The reverse index has its own columns in Markdown and JSON: the paper does not say which index it prints.
REVERSED = {
    "rSID exp": ("reverse_sid_exp", 1.0),
    "rSID jaw": ("reverse_sid_jaw", 1.0),
    "rSID pose": ("reverse_sid_pose", 1.0),
}

# arXiv 2512.15340, tables 1 and 2: DualTalk's data, real people.
_PUBLISHED: dict[tuple[str, str], str] = {
    ("test", "DualTalk (published)"): "14.16 1.98 3.63 15.59 2.10 3.91 5.34 1.49 2.36 2.95 2.14 1.66 5.97 1.34 2.28",
    ("test", "TIMAR n=0 (published)"): "9.61 1.51 2.98 10.91 1.63 3.27 3.94 1.15 1.73 3.42 2.33 1.84 4.51 1.19 2.26",
    ("test", "TIMAR n=3 (published)"): "9.11 1.57 3.06 10.13 1.66 3.28 3.61 1.09 1.63 3.51 2.34 1.86 4.19 1.19 2.19",
    ("test", "TIMAR n=7 (published)"): "8.97 1.57 3.08 9.93 1.65 3.28 3.58 1.07 1.61 3.53 2.35 1.85 4.12 1.22 2.18",
    ("ood", "DualTalk (published)"): "22.73 2.71 4.82 24.22 2.81 5.12 7.28 1.77 2.83 2.64 1.98 1.45 7.11 1.55 2.98",
    ("ood", "TIMAR n=0 (published)"): "20.62 2.50 4.31 22.10 2.62 4.62 6.46 1.56 2.29 2.85 2.03 1.55 6.76 1.55 2.77",
    ("ood", "TIMAR n=3 (published)"): "20.21 2.49 4.36 21.38 2.60 4.60 6.16 1.49 2.19 2.90 2.03 1.54 6.47 1.56 2.70",
    ("ood", "TIMAR n=7 (published)"): "20.23 2.56 4.50 21.34 2.66 4.72 6.17 1.48 2.18 2.93 2.04 1.52 6.26 1.57 2.77",
}


@dataclass(frozen=True)
class Row:
    """One line of a table: ``values`` are metrics by name, in their own units (not multiplied)."""

    label: str
    split: str
    values: Mapping[str, float]
    clips: int = 0
    published: bool = False
    note: Mapping[str, object] = field(default_factory=dict)


def published(split: str) -> list[Row]:
    """The paper's lines for ``test`` or ``ood`` (none for other splits)."""
    rows = []
    for (of_split, label), figures in _PUBLISHED.items():
        if of_split == split:
            numbers = (float(figure) for figure in figures.split())
            values = {name: n / factor for (name, factor), n in zip(COLUMNS.values(), numbers, strict=True)}
            rows.append(Row(label, split, values, published=True))
    return rows


def cells(row: Row, columns: Mapping[str, tuple[str, float]] = COLUMNS) -> list[str]:
    """A row's numbers in the paper's format; an empty cell for a missing metric."""
    return [_printed(row.values.get(name), factor) for name, factor in columns.values()]


def _printed(value: float | None, factor: float) -> str:
    if value is None or math.isnan(value):
        return ""
    text = f"{value * factor:.2f}"
    return "0.00" if text == "-0.00" else text


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table for each split."""
    columns = COLUMNS | REVERSED
    parts = []
    for split in dict.fromkeys(row.split for row in rows):
        lines = [f"### {split}", "", "| model | clips | " + " | ".join(columns) + " |"]
        lines.append("|---|" + "---:|" * (len(columns) + 1))
        of_split = [row for row in rows if row.split == split]
        lines += [f"| {row.label} | {row.clips or ''} | {' | '.join(cells(row, columns))} |" for row in of_split]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Plain values: every metric, in its own units."""
    return [
        {
            "label": row.label,
            "split": row.split,
            "clips": row.clips,
            "published": row.published,
            **row.note,
            "metrics": {name: value for name, value in row.values.items() if not math.isnan(value)},
        }
        for row in rows
    ]
