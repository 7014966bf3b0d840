"""Write the parameter tables of docs/nodes.md from the nodes' own tables (a test holds the file to them)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "nodes.md"
BLOCK = re.compile(r"(<!-- parameters of (\w+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def written(page: str) -> str:
    """The page with every block between markers replaced by the node's table as it is now."""
    from timar_ros.nodes.endpoints import COMMON
    from timar_ros.nodes.reference import as_markdown, table

    def filled(block: re.Match[str]) -> str:
        return block[1] + (table(COMMON) if block[2] == "all_nodes" else as_markdown(block[2])) + "\n"

    return BLOCK.sub(filled, page)


def main() -> int:
    PAGE.write_text(written(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
