"""Damaged files and hostile messages for every reader, in processes of bounded memory and time.

    python scripts/fuzz.py --inputs 200000          # a night's run
    python scripts/fuzz.py --inputs 500 --only wav  # one reader

Each input must end in a result or in one line of error: no other exception, no more than --megabytes beyond what the
process had before, no more than --seconds of processor time, no crash. Inputs follow from --seed alone. A fault is
printed once for each place, with what makes its input again (`--again FILE`). Exits 1 when there was any.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "test"))

WATCH = 10.0
"""So many times --seconds without a word (wall time): the process is held to hang in a library, and is killed."""


class TooLongError(BaseException):
    """The processor time of one input is used up. No Exception: readers turn those into one line."""


def _alarm(_number: int, _frame: object) -> None:
    raise TooLongError


def _limit_memory(megabytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * os.sysconf("SC_PAGE_SIZE") + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def _work(name: str, first: int, last: int, args: argparse.Namespace, out: Any) -> None:
    """In a child: inputs ``first`` to ``last`` of a target. Each is announced before it is tried."""
    os.environ["OMP_NUM_THREADS"] = "1"
    # What libraries print about damaged files (FFmpeg, libsndfile, warnings) is not what is looked for.
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    from support.fuzzing import TARGETS, one_input, random_edits

    tempfile.tempdir = args.scratch
    target = TARGETS[name][0]()
    for seed in range(len(target.seeds)):
        fault = one_input(target, [], seed)  # loads what the reader loads once
        if fault is not None:
            out.put((first, "fault", seed, [], f"the undamaged input: {fault}"))
    signal.signal(signal.SIGPROF, _alarm)
    _limit_memory(args.megabytes)
    for number in range(first, last):
        source = random.Random(f"{args.seed} {name} {number}")  # noqa: S311 (to be the same again)
        seed, edits = source.randrange(1 << 16), random_edits(source)
        out.put((number, "begin", seed, edits, ""))
        began = time.process_time()
        try:
            signal.setitimer(signal.ITIMER_PROF, args.seconds)
            fault = one_input(target, edits, seed)
        except TooLongError:
            fault = f"more than {args.seconds:g} s"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        out.put((number, "fault" if fault else "done", seed, edits, fault or f"{time.process_time() - began} {peak}"))
    out.put((last, "end", 0, [], ""))


def run_target(name: str, inputs: int, args: argparse.Namespace) -> tuple[Counter[str], float]:
    """All inputs of a target; faults by what they are, and the longest time of an input [s]."""
    from support.fuzzing import to_json

    context = multiprocessing.get_context("spawn")
    faults: Counter[str] = Counter()
    slowest, first = 0.0, 0
    while first < inputs:
        out = context.Queue()
        child = context.Process(target=_work, args=(name, first, inputs, args, out), daemon=True)
        child.start()
        now: tuple[int, int, list[Any]] = (first, 0, [])
        heard, ended = time.monotonic(), False
        while not ended:
            try:
                number, what, seed, edits, told = out.get(timeout=0.5)
            except queue.Empty:
                # Until the first input the child imports its libraries and makes its files.
                patience = WATCH * args.seconds + (120.0 if now[2] == [] else 0.0)
                if child.is_alive() and time.monotonic() - heard < patience:
                    continue
                told = "hangs" if child.is_alive() else f"ended the process with {child.exitcode}"
                number, what, (_, seed, edits) = now[0], "crash", now
                child.kill()
            heard = time.monotonic()
            if what == "crash" and now[2] == []:
                sys.exit(f"{name}: {told} before its first input; its files or its reader cannot be made")
            if what == "begin":
                now = (number, seed, edits)
            elif what in ("fault", "crash"):
                faults[told] += 1
                if faults[told] == 1:
                    print(f"FAULT {name} {number}: {told}\n    {to_json(name, seed, edits)}", flush=True)
            elif what == "done":
                slowest = max(slowest, float(told.split()[0]))
            first = number + 1
            ended = what in ("end", "crash")
        child.join()
    return faults, slowest


def again(file: Path) -> int:
    """Read one input again, in this process, with its traceback."""
    from support.fuzzing import TARGETS

    given = json.loads(file.read_text())
    target = TARGETS[given["target"]][0]()
    with tempfile.TemporaryDirectory() as folder:
        data = target.seeds[given["seed"] % len(target.seeds)]
        print(target.read(data, [tuple(edit) for edit in given["edits"]], Path(folder)))
    return 0


def main() -> int:
    """Print a table of what was tried and what failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20000, help="how many in all, shared out among the readers")
    parser.add_argument("--only", default="", help="only readers whose name contains this")
    parser.add_argument("--seed", default="0", help="what the inputs follow from")
    parser.add_argument("--megabytes", type=int, default=1536, help="memory that one process may take beyond the start")
    parser.add_argument("--seconds", type=float, default=10.0, help="processor time that one input may take")
    parser.add_argument("--again", type=Path, metavar="FILE", help="only the input that a line of a report describes")
    args = parser.parse_args()
    if args.again is not None:
        return again(args.again)
    from support.fuzzing import TARGETS

    chosen = {name: share for name, (_, share) in TARGETS.items() if args.only in name}
    if not chosen:
        parser.error(f"no reader is called {args.only}: there are {', '.join(TARGETS)}")
    args.scratch = tempfile.mkdtemp(prefix="timar_ros-fuzz-")
    total = 0
    print("| reader | inputs | faults | slowest [s] |\n|---|---|---|---|", flush=True)
    try:
        for name, share in chosen.items():
            inputs = max(1, round(args.inputs * share / sum(chosen.values())))
            faults, slowest = run_target(name, inputs, args)
            total += sum(faults.values())
            print(f"| {name} | {inputs} | {sum(faults.values())} | {slowest:.2f} |", flush=True)
    finally:
        shutil.rmtree(args.scratch, ignore_errors=True)
    print(f"{total} faults", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    raise SystemExit(main())
