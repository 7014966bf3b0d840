"""The page around a report's contents, and the page of `timar live`: programs, style and licences in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from timar_ros.errors import UserError
from timar_ros.evaluation.report.report_block import Block

ASSETS = Path(__file__).resolve().parent / "report_assets"


def assemble(report: dict[str, Any], block: Block, sound: list[tuple[str, str]] | None = None) -> str:
    """The page's text.

    :param report: a Report of ``report/src/payload.ts``.
    :param block: the numbers that the report refers to.
    :param sound: pairs of MIME type and base64 text.
    :raises UserError: when the package lacks the page's parts.
    """
    audio = "\n".join(
        f'<script type="text/plain" id="audio{index}">{text}</script>' for index, (_, text) in enumerate(sound or [])
    )
    parts = {
        "/*STYLE*/": _asset("report.css"),
        # A text may hold "</script>" or "<!--": escape them, so that they have no effect.
        "/*REPORT*/": json.dumps(report, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        "/*SCRIPT*/": _asset("report.js"),
        "/*BLOCK*/": block.base64(),
        "/*PLOTLY*/": _asset("plotly.js"),
        "/*AUDIO*/": audio,
    }
    return _filled(_asset("page.html"), parts)


def live_page() -> str:
    """The page of `timar live`, without contents: its server sends them.

    :raises UserError: when the package lacks the page's parts.
    """
    return _filled(_asset("live.html"), {"/*STYLE*/": _asset("live.css"), "/*SCRIPT*/": _asset("live.js")})


def _filled(page: str, parts: dict[str, str]) -> str:
    pieces = []
    # One pass from front to back: inserted parts are never searched for other marks.
    for mark, text in parts.items():
        before, page = page.split(mark, 1)
        pieces += [before, text]
    return "".join([*pieces, page, f"<!--\n{_asset('LICENSES.txt')}\n-->\n"])


def _asset(name: str) -> str:
    try:
        return (ASSETS / name).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"the report's page is not installed: no {ASSETS / name} (reinstall timar_ros)") from error
