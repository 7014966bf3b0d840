"""Write requirements/: every package of a run with its version and the hashes of its files.

    python scripts/lock_requirements.py       # needs uv and a package index; with the environment active

One file for all but torch, one for torch with PyPI's build of it and the CUDA libraries which that asks for: torch's
build follows the machine (docs/installation.md). Python 3.11, Linux on x86-64, the wheels of ROS 2 Jazzy.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import set_up

FOLDER = set_up.REPOSITORY / "requirements"
PYTHON = "3.11"
PLATFORM = "x86_64-manylinux_2_31"
DISTRO = "jazzy"
HEADER = """\
# {what}, for Python {python} on Linux, x86-64. Written by `python scripts/lock_requirements.py`.
# pip install --no-deps --require-hashes -r requirements/FILE (docs/installation.md, "Locked versions").
"""
OF_TORCH = re.compile(r"(torch|triton|nvidia-|cuda-)")


def wanted() -> list[str]:
    """The requirements of a run, the wheels of ROS 2, and the constraints of `make`."""
    constraints = [line for line in set_up.CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    ros = [f"ros-{DISTRO}-{name}" for name in (*set_up.ROS_WHEELS, *set_up.ROS_WHEELS_OF[DISTRO])]
    named = {re.split(r"[\s\[<>=!~;]", line)[0] for line in (*set_up.wanted_by("run"), *set_up.ROS_TOOLS)}
    pinned = [line for line in constraints if re.split(r"[<>=]", line)[0] in named]
    return [*set_up.wanted_by("run"), *ros, *set_up.ROS_TOOLS, *pinned]


def resolve(requirements: list[str]) -> str:
    """What uv chooses, a block of lines for each package, without the address of any index."""
    command = [
        "uv", "pip", "compile", "-q", "--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header",
        "--no-emit-find-links", "--python-version", PYTHON, "--python-platform", PLATFORM,
        "--index-strategy", "unsafe-best-match", "-",
    ]  # fmt: skip
    environment = set_up.Environment(Path(sys.prefix))
    # A folder of wheels of this machine would bring builds that nobody else can get.
    own = ("UV_FIND_LINKS", "UV_CONSTRAINT")
    variables = {name: value for name, value in environment.uv_variables().items() if name not in own}
    answer = subprocess.run(
        command,
        input="\n".join(requirements),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    if answer.returncode:
        sys.exit(f"lock: {answer.stderr.strip()}")
    return answer.stdout


def blocks(text: str) -> list[str]:
    """The requirements of a lock, each with its hashes."""
    return [block for block in re.split(r"\n(?=\S)", text.strip()) if not block.startswith("#")]


def main() -> int:
    """Write both files."""
    FOLDER.mkdir(exist_ok=True)
    found = blocks(resolve(wanted()))
    for file, what, of_torch in (
        ("run.txt", "All that a run needs but torch", False),
        ("torch-cuda.txt", "PyPI's build of torch", True),
    ):
        mine = [block for block in found if bool(OF_TORCH.match(block)) is of_torch]
        text = HEADER.format(what=what, python=PYTHON).replace("FILE", file)
        (FOLDER / file).write_text(text + "\n".join(mine) + "\n")
        print(f"{FOLDER.name}/{file}: {len(mine)} packages")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
