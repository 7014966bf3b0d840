"""requirements/: complete, with hashes, within the ranges of setup.cfg, and free of any index's address."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FILES = ("run.txt", "torch-cuda.txt")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("lock_requirements", ROOT / "scripts" / "lock_requirements.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return module


def pinned(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    found = PIN.findall(text)
    entries = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert len(found) == len(entries), "an entry has no version or no hash"
    return {canonicalize_name(package): version for package, version, _ in found}


def test_every_requirement_of_a_run_is_pinned_within_its_range(lock: ModuleType) -> None:
    versions = {package: version for name in FILES for package, version in pinned(name).items()}
    environment = {**default_environment(), "python_version": lock.PYTHON, "python_full_version": f"{lock.PYTHON}.0"}
    wrong = []
    for line in lock.wanted():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        version = versions.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            wrong.append(f"{line}: {version}")
    assert not wrong, "write it anew: python scripts/lock_requirements.py"


def test_torch_and_its_cuda_libraries_have_a_file_of_their_own(lock: ModuleType) -> None:
    run, torch = (pinned(name) for name in FILES)
    assert "torch" in torch
    assert not run.keys() & torch.keys()
    assert not [name for name in run if lock.OF_TORCH.match(name)]


def test_no_file_names_an_index_or_a_machine() -> None:
    for name in FILES:
        text = (ROOT / "requirements" / name).read_text()
        assert not re.search(r"://|--index|--extra-index|--find-links|file:|/opt/", text), name


def test_the_locks_options_forbid_what_has_no_hash() -> None:
    text = (ROOT / "docs" / "installation.md").read_text()
    assert "--no-deps --require-hashes -r requirements/run.txt" in text
