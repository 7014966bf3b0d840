"""The wheel that pip builds holds all that a user needs: sources, interfaces, executables, shared files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = ("config", "launch", "models", "msg", "resource", "samples", "srv", "timar_ros", "urdf")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources: building leaves traces, and must not take up old ones."""
    copy = tmp_path_factory.mktemp("sources") / "timar_ros"
    copy.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    if not Path(sys.prefix, "share", "rosidl_cmake").is_dir() or shutil.which("cmake") is None:
        pytest.skip("needs cmake and the ROS 2 wheels in this environment")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", out, sources]
    built = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PIP_QUIET": "0"})
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    [path] = out.glob("timar_ros-*.whl")
    return zipfile.ZipFile(path)


def files_under(root: Path, *folders: str) -> set[str]:
    return {str(p.relative_to(root)) for folder in folders for p in (root / folder).rglob("*") if p.is_file()}


def test_all_sources_and_their_data(wheel: zipfile.ZipFile, sources: Path) -> None:
    assert files_under(sources, "timar_ros") <= set(wheel.namelist())


def test_interfaces_and_their_libraries(wheel: zipfile.ZipFile, sources: Path) -> None:
    names = {name.split(".data/data/")[-1] for name in wheel.namelist()}
    assert {f"share/timar_ros/{name}" for name in files_under(sources, "msg", "srv")} <= names
    assert "lib/libtimar_ros__rosidl_typesupport_c.so" in names
    assert any(name.endswith("site-packages/timar_ros/msg/_turn.py") for name in names)
    assert "share/ament_index/resource_index/packages/timar_ros" in names
    assert not [name for name in names if "site-packages" in name and name.endswith((".pyc", ".c"))]


def test_shared_files(wheel: zipfile.ZipFile, sources: Path) -> None:
    names = {name.split(".data/data/")[-1] for name in wheel.namelist()}
    shared = {
        f"share/timar_ros/{name}" for name in files_under(sources, "launch", "config", "urdf", "models", "samples")
    }
    assert shared | {"share/timar_ros/package.xml"} <= names


def test_executables_and_command(wheel: zipfile.ZipFile) -> None:
    executables = [info for info in wheel.infolist() if "/lib/timar_ros/" in info.filename]
    assert {Path(info.filename).name for info in executables} >= {"audio_source", "timar_inference", "retarget"}
    assert all(info.external_attr >> 16 & 0o111 for info in executables)
    [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "timar = timar_ros.cli.main:main" in wheel.read(entry_points).decode()


def test_no_second_package_file_beside_the_sources(wheel: zipfile.ZipFile) -> None:
    assert [name for name in wheel.namelist() if name.endswith("timar_ros/__init__.py")] == ["timar_ros/__init__.py"]
