"""The page of `timar evaluate --robustness --plot`: metric against severity, one plot per disturbance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from timar_ros.evaluation.bench.robustness import COLUMNS, DISTURBANCES, LABELS, Row
from timar_ros.evaluation.report.report_block import Block
from timar_ros.evaluation.report.report_page import assemble
from timar_ros.evaluation.report.report_panels import line, panel
from timar_ros.files import atomic_path

#: Plotted metrics and their colours: all are ratios near or below one.
SHOWN = {"drift_exp": "c1", "drift_jaw": "c3", "drift_pose": "c2", "lip_correlation": "c4"}


def write_robustness_page(rows: list[Row], out: str | Path, title: str) -> Path:
    """Write the page; returns its path."""
    block = Block()
    clean = rows[0].values
    panels = []
    for name, (meaning, _) in DISTURBANCES.items():
        ladder = [row for row in rows if row.disturbance == name]
        if ladder:
            panels.append(_panel(block, name, meaning, ladder, clean))
    shown = [key for key in COLUMNS if any(key in row.values for row in rows)]
    cells = [[_name(row), *(f"{row.values.get(key, np.nan):.3f}" for key in shown)] for row in rows]
    report = {
        "title": "Robustness",
        "subtitle": title,
        "chips": [],
        "warnings": [],
        "duration": 1.0,
        "audio": [],
        "heads": [],
        "panels": panels,
        "tables": [{"title": "All figures", "note": "", "columns": ["", *(LABELS[k] for k in shown)], "rows": cells}],
        "footer": (
            "Changes are root mean square differences to the undisturbed motion, in deviations of that motion; the "
            "jaw is correlated with the voice that really sounds."
        ),
    }
    with atomic_path(out) as path:
        path.write_text(assemble(report, block), encoding="utf-8")
    return Path(out)


def _panel(block: Block, name: str, meaning: str, ladder: list[Row], clean: dict[str, float]) -> dict[str, Any]:
    chart = panel(f"robust-{name}", name.replace("_", " ").capitalize(), meaning, timed=False, half=True, height=260)
    # Evenly spaced, the undisturbed run first: severities have different units.
    ticks = ["none", *(f"{row.severity:g}" for row in ladder)]
    chart["xTicks"] = {"at": list(range(len(ticks))), "text": ticks}
    place = block.add_exact(np.arange(len(ticks)))
    for key, color in SHOWN.items():
        values = [clean.get(key, np.nan), *(row.values.get(key, np.nan) for row in ladder)]
        chart["traces"].append(line(LABELS[key], color, place, block.add_exact(values)))
    return chart


def _name(row: Row) -> str:
    return row.disturbance if row.severity is None else f"{row.disturbance.replace('_', ' ')} {row.severity:g}"
