"""The page around a report's contents: its programs, style and licences, in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from timar_ros.errors import UserError
from timar_ros.evaluation.report_block import Block

ASSETS = Path(__file__).resolve().parent / "report_assets"


def assemble(report: dict[str, Any], block: Block, sound: list[tuple[str, str]] | None = None) -> str:
    """The page's text.

    :param report: what ``report/src/payload.ts`` calls a Report.
    :param block: the numbers that it refers to.
    :param sound: pairs of MIME type and base64 text.
    :raises UserError: when the package lacks the page's parts.
    """
    audio = "\n".join(
        f'<script type="text/plain" id="audio{index}">{text}</script>' for index, (_, text) in enumerate(sound or [])
    )
    parts = {
        "/*STYLE*/": _asset("report.css"),
        # A text may hold "</script>" or "<!--": escaped, it ends or opens nothing.
        "/*REPORT*/": json.dumps(report, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        "/*SCRIPT*/": _asset("report.js"),
        "/*BLOCK*/": block.base64(),
        "/*PLOTLY*/": _asset("plotly.js"),
        "/*AUDIO*/": audio,
    }
    page = _asset("page.html")
    pieces = []
    # One pass from front to back: what a part holds is never searched for another part's mark.
    for mark, text in parts.items():
        before, page = page.split(mark, 1)
        pieces += [before, text]
    return "".join([*pieces, page, f"<!--\n{_asset('LICENSES.txt')}\n-->\n"])


def _asset(name: str) -> str:
    try:
        return (ASSETS / name).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"the report's page is not installed: no {ASSETS / name} (reinstall timar_ros)") from error
