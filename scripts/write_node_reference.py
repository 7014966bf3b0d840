"""Write the parameter lists of docs/nodes.md from the nodes' own tables (a test compares the two)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "nodes.md"
BLOCK = re.compile(r"(<!-- parameters of (\w+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def written(page: str) -> str:
    """The page with every block between markers replaced by the node's current list."""
    from timar_ros.graph.parameter_reference import as_markdown, listed
    from timar_ros.ros.endpoints import COMMON

    def filled(block: re.Match[str]) -> str:
        return block[1] + (listed(COMMON) if block[2] == "all_nodes" else as_markdown(block[2])) + "\n"

    return BLOCK.sub(filled, page)


def main() -> int:
    PAGE.write_text(written(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
