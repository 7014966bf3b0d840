"""The documents: the quickstart's commands run as written, pages are short enough, container and set-up agree."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_every_command_of_the_quickstart_runs(tmp_path: Path) -> None:
    """What make does has tests of its own: of it only the targets are looked up."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    blocks = BLOCK.findall((ROOT / "docs" / "quickstart.md").read_text())
    assert {language for language, _ in blocks} == {"bash", "python"}
    run = 0
    for language, text in blocks:
        if language == "python":
            commands = [[sys.executable, "-c", text]]
        else:
            lines = text.strip().splitlines()
            commands = [["bash", "-ec", line] for line in lines if line.startswith("timar ")]
            targets = [line.removeprefix("make ") for line in lines if line.startswith("make ")]
            for target in targets:
                subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)
            others = [line for line in lines if not line.startswith(("timar ", "make "))]
            assert others in ([], [". .venv/setup.bash"])
        for command in commands:
            answer = subprocess.run(
                command,
                cwd=tmp_path,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert answer.returncode == 0, f"{command}\n{answer.stderr[-2000:]}"
            run += 1
    assert run >= 6
    for name in ("motion.npz", "motion.html", "joints.csv"):
        assert (tmp_path / name).stat().st_size > 1000


def test_the_readme_takes_two_minutes() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 850


def test_every_page_is_in_the_sites_menu() -> None:
    listed = set(re.findall(r"^([\w-]+)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE))
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} <= listed


def test_the_container_installs_what_the_set_up_asks_for() -> None:
    packages = set(script("set_up").DEBIAN_PACKAGES)
    text = (ROOT / "docker" / "Dockerfile").read_text()
    installed = re.search(r"apt-get install -y --no-install-recommends(.*?)&&", text, re.DOTALL)
    assert installed
    names = set(installed[1].replace("\\", " ").split())
    assert packages | {"git", "python3-venv"} <= names
    assert re.search(r"^RUN make setup", text, re.MULTILINE)


def test_the_devcontainer_is_built_from_the_same_file() -> None:
    import json

    described = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / described["build"]["dockerfile"]).resolve() == ROOT / "docker" / "Dockerfile"
    assert (ROOT / ".devcontainer" / described["build"]["context"]).resolve() == ROOT


@pytest.mark.parametrize("path", [*ROOT.glob(".github/**/*.yml"), ROOT / "CITATION.cff", ROOT / "rosdoc2.yaml"])
def test_forms_and_metadata_are_valid_yaml(path: Path) -> None:
    assert all(isinstance(part, dict) for part in yaml.safe_load_all(path.read_text()))


def test_the_citation_has_the_packages_version() -> None:
    import timar_ros

    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == timar_ros.__version__
