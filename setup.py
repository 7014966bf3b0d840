"""pip's way in: ``pip install [-e] .`` in an environment that has ROS 2 (colcon reads CMakeLists.txt, never this file).

CMakeLists.txt stays the one description of what is installed: it builds the interfaces and installs everything but the
Python sources into a staging folder, whose files become data files of the wheel, at the same places under the
environment's root as under a colcon prefix.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup

# setuptools' own copy: it puts itself in the place of the standard library's.
from distutils.command.install_data import install_data  # isort: skip

NAME = "timar_ros"
HERE = Path(__file__).resolve().parent
# One CMake cache an environment: it remembers where every dependency was found.
BUILD = HERE / "build" / f"pip-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]}"


def build_environment() -> dict[str, str]:
    """What CMake and the interface generators need, whether or not the environment's setup.bash was sourced."""
    environment = dict(os.environ)
    prefix = Path(sys.prefix)

    def put(name: str, ours: list[Path], *, first: bool) -> None:
        mine = [str(path) for path in ours]
        rest = [p for p in environment.get(name, "").split(":") if p and p not in mine and "pip-build-env" not in p]
        environment[name] = ":".join(mine + rest if first else rest + mine)

    # Of a sourced overlay or an apt installation the dependencies are taken first, as their user asked.
    put("AMENT_PREFIX_PATH", [prefix], first=False)
    put("CMAKE_PREFIX_PATH", [prefix], first=False)
    # pip's isolated build puts itself first in these two and hides the packages that the generators import.
    put("PATH", [prefix / "bin"], first=True)
    put("PYTHONPATH", [], first=True)
    environment.pop("PYTHONNOUSERSITE", None)
    libraries = [prefix / "lib", *sorted(prefix.glob("lib/python3*/site-packages/ros_*.libs"))]
    put("LD_LIBRARY_PATH", libraries, first=True)
    return environment


def stage() -> Path:
    """Build and install by CMake; returns the root of what was installed."""
    if shutil.which("cmake") is None:
        sys.exit("timar_ros: cmake was not found: install cmake and a C++ compiler (apt-get install cmake g++ make)")
    root = BUILD / "stage"
    environment = build_environment()

    def cmake(*arguments: str | Path) -> None:
        subprocess.run(["cmake", *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)

    cmake(
        *("-S", HERE, "-B", BUILD / "cmake", "-DTIMAR_PIP=ON", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release"),
        *(f"-DCMAKE_INSTALL_PREFIX={root}", f"-DPython3_EXECUTABLE={sys.executable}"),
    )
    cmake("--build", BUILD / "cmake", "-j", str(os.cpu_count() or 1))
    shutil.rmtree(root, ignore_errors=True)
    cmake("--install", BUILD / "cmake")
    [site] = root.glob("lib/python*/*-packages")
    for path in [
        *site.glob("*.egg-info"),  # pip writes its own metadata
        site / NAME / "__init__.py",  # generated and empty; ours comes with the sources
        *site.rglob("*.c"),
        *site.rglob("*.pyc"),
    ]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return root


class InstallData(install_data):
    """Build, then install what was staged."""

    def run(self) -> None:
        root = stage()
        if "editable_wheel" in self.distribution.command_obj:
            # The generated half lies in site-packages without an __init__.py. This line makes the checkout the package
            # that Python finds first; setuptools' own finder would come too late, after that namespace portion.
            [site] = root.glob("lib/python*/*-packages")
            (site / f"{NAME}_sources.pth").write_text(f"{HERE}\n")
        files: dict[str, list[str]] = {}
        for path in sorted(root.rglob("*")):
            if path.is_file():
                files.setdefault(str(path.parent.relative_to(root)), []).append(str(path))
        self.data_files = list(files.items())
        super().run()


class Platform(Distribution):
    """A wheel for this Python and this machine."""

    def has_ext_modules(self) -> bool:
        return True

    def has_data(self) -> bool:
        """editable_wheel asks for this and leaves install_data out where it is missing."""
        return True


# data_files only keeps the command from being skipped; InstallData puts the real list in its place.
setup(distclass=Platform, cmdclass={"install_data": InstallData}, data_files=[(f"share/{NAME}", ["package.xml"])])
