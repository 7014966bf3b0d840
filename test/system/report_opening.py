"""How long a report takes to open in a headless Chromium: from the navigation to where one can play and sees plots.

    python test/system/report_opening.py [PAGE] [--runs 5] [--seconds 300]

Without PAGE a conversation of so many seconds is made. The times are the page's own marks: `script` runs, `data` is
read, `plots` in view are drawn, `heads` are drawn (the graphics card has finished), `sound` can play, and all of it:
`usable`. The first run is the browser's first page. Exits 1 when the median is beyond 2 s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from support import bag_factory
from support.browser import CHROMIUM, Browser

from timar_ros.evaluation.report.conversation_report import write_report

BAR = 2.0
MARKS = ("script", "data", "plots", "heads", "sound", "usable")


def measure(browser: Browser, page: Path) -> dict[str, float]:
    """Seconds from the navigation to each mark."""
    browser.open(page)
    found = browser.run("performance.getEntriesByType('mark').map((m) => [m.name, m.startTime])")
    return {name.removeprefix("timar:"): time / 1e3 for name, time in found}


def main() -> int:
    """Measure and print; 1 when it is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, help="a report (default: one is made)")
    parser.add_argument("--runs", type=int, default=5, help="how often it is opened (default: 5)")
    parser.add_argument("--seconds", type=float, default=300.0, help="length of the conversation made (default: 300)")
    args = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no Chromium on this machine (apt install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        page = args.page
        if page is None:
            bag_factory.write_bag(Path(folder) / "bag", args.seconds, chunk=0.1)
            page = write_report(Path(folder) / "bag", Path(folder) / "page.html")
        print(f"{page.name}: {page.stat().st_size / 1e6:.1f} MB")
        print("run    " + "".join(f"{name:>8}" for name in MARKS) + "   [s]")
        runs = []
        with Browser() as browser:
            for number in range(args.runs):
                runs.append(measure(browser, page))
                print(f"{number + 1:<7}" + "".join(f"{runs[-1][name]:8.2f}" for name in MARKS))
    middle = {name: statistics.median(run[name] for run in runs) for name in MARKS}
    print("median " + "".join(f"{middle[name]:8.2f}" for name in MARKS))
    return int(middle["usable"] > BAR)


if __name__ == "__main__":
    sys.exit(main())
