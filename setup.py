"""Build script for ``pip install [-e] .`` in an environment with ROS 2 (colcon reads only CMakeLists.txt).

CMakeLists.txt is the single description of the installation: it builds the interfaces and installs all files except the
Python sources into a staging folder. Its files become data files of the wheel, with the same paths under the
environment's root as under a colcon prefix.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Distribution, setup

# setuptools' own copy, which replaces the standard library's distutils.
from distutils.command.install_data import install_data  # isort: skip

NAME = "timar_ros"
HERE = Path(__file__).resolve().parent
# One CMake cache per environment: it stores the dependencies' paths.
BUILD = HERE / "build" / f"pip-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]}"


def build_environment() -> dict[str, str]:
    """Environment variables for CMake and the interface generators, with or without a sourced setup.bash."""
    environment = dict(os.environ)
    prefix = Path(sys.prefix)

    def put(name: str, paths: list[Path], *, first: bool) -> None:
        own = [str(path) for path in paths]
        rest = [p for p in environment.get(name, "").split(":") if p and p not in own and "pip-build-env" not in p]
        environment[name] = ":".join(own + rest if first else rest + own)

    # A sourced overlay or an apt installation comes first, as its user expects.
    put("AMENT_PREFIX_PATH", [prefix], first=False)
    put("CMAKE_PREFIX_PATH", [prefix], first=False)
    # pip's isolated build comes first in these two variables and hides the packages that the generators import.
    put("PATH", [prefix / "bin"], first=True)
    put("PYTHONPATH", [], first=True)
    environment.pop("PYTHONNOUSERSITE", None)
    libraries = [prefix / "lib", *sorted(prefix.glob("lib/python3*/site-packages/ros_*.libs"))]
    put("LD_LIBRARY_PATH", libraries, first=True)
    return environment


def kept_interfaces() -> Path | None:
    """Cache folder of these sources' built interfaces; None when ROS 2 is outside this prefix.

    The folder's name is a hash of the build's inputs: the sources, the interpreter, the machine and the versions of
    ROS 2's wheels and of numpy.
    """
    others = {path for path in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if path} - {sys.prefix}
    wheels = sorted(path.name for path in Path(sysconfig.get_path("purelib")).glob("*.dist-info"))
    wheels = [name for name in wheels if name.startswith(("ros_", "numpy-"))]
    if others or not any(name.startswith("ros_") for name in wheels):
        return None
    digest = hashlib.sha256(repr((sys.version, platform.machine(), platform.libc_ver(), wheels)).encode())
    sources = [*sorted(HERE.glob("msg/*")), *sorted(HERE.glob("srv/*")), HERE / "CMakeLists.txt", HERE / "package.xml"]
    for path in sources:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, NAME, f"interfaces-{digest.hexdigest()[:16]}")


def keep_interfaces(built: Path, folder: Path) -> None:
    """Copy the built interfaces of msg/ and srv/ into the cache; an unwritable cache is no error."""
    own = [HERE / name for name in ("launch", "config", "urdf", "models", "samples")]
    shared = {str(built / "share" / NAME / path.name) for path in own} | {str(built / "lib" / NAME)}
    new = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        shutil.copytree(
            built,
            new,
            symlinks=True,
            ignore=lambda parent, names: [name for name in names if str(Path(parent, name)) in shared],
        )
        new.rename(folder)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)


def stage() -> Path:
    """Build and install by CMake; returns the installation's root."""
    if shutil.which("cmake") is None:
        sys.exit("timar_ros: cmake was not found: install cmake and a C++ compiler (apt-get install cmake g++ make)")
    root = BUILD / "stage"
    environment = build_environment()
    kept = kept_interfaces()
    ready = kept is not None and kept.is_dir()
    tree = BUILD / ("ready" if ready else "cmake")

    def cmake(*arguments: str | Path) -> None:
        subprocess.run(["cmake", *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)

    cmake(
        *("-S", HERE, "-B", tree, "-DTIMAR_PIP=ON", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release"),
        *(f"-DCMAKE_INSTALL_PREFIX={root}", f"-DPython3_EXECUTABLE={sys.executable}"),
        *([f"-DTIMAR_INTERFACES={kept}"] if ready else []),
    )
    if not ready:
        cmake("--build", tree, "-j", str(os.cpu_count() or 1))
    shutil.rmtree(root, ignore_errors=True)
    cmake("--install", tree)
    if kept is not None and not ready:
        keep_interfaces(root, kept)
    [site] = root.glob("lib/python*/*-packages")
    for path in [
        *site.glob("*.egg-info"),  # pip writes its own metadata
        site / NAME / "__init__.py",  # generated and empty; the real one comes with the sources
        *site.rglob("*.c"),
        *site.rglob("*.pyc"),
    ]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return root


class InstallData(install_data):
    """Build, then install the staged files."""

    def run(self) -> None:
        root = stage()
        if "editable_wheel" in self.distribution.command_obj:
            # The generated part is in site-packages without an __init__.py. This line makes Python find the checkout
            # first; setuptools' own finder would come too late, after that namespace portion.
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
        """editable_wheel calls this and skips install_data without it."""
        return True


# data_files only prevents that the command is skipped; InstallData sets the real list.
setup(distclass=Platform, cmdclass={"install_data": InstallData}, data_files=[(f"share/{NAME}", ["package.xml"])])
