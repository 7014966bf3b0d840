"""Install ROS 2's own launch, launch_ros and ros2cli, which have no wheels, into a folder outside the checkout.

    scripts/get_ros_tools.py ~/ros-tools     # with the environment active: . .venv/setup.sh
    . ~/ros-tools/setup.sh                   # then `ros2 launch timar_ros demo.launch.py`, and the launch files' tests

The script clones the packages' public repositories (a branch for each ROS 2 release), builds the messages that they
import, and installs all into the folder. It copies nothing into this repository. A ROS 2 installation has the tools
already.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HOME = "https://github.com/ros2/{name}.git"

PACKAGES = {
    "launch": ["launch", "launch_xml", "launch_yaml"],
    "launch_ros": ["launch_ros", "ros2launch"],
    "rosidl_runtime_py": ["."],
    "ros2cli": [
        "ros2cli",
        "ros2interface",
        "ros2lifecycle",
        "ros2node",
        "ros2param",
        "ros2pkg",
        "ros2run",
        "ros2service",
        "ros2topic",
    ],
}
"""Python packages of each repository."""

INTERFACES = {"rcl_interfaces": ["composition_interfaces"]}
"""Message packages of each repository that the Python packages import and that have no wheels."""

LIBRARIES = ["osrf-pycommon", "importlib-metadata", "importlib-resources", "lark", "packaging", "psutil", "argcomplete"]
"""Further requirements of the packages, from the package index."""

SETUP = """# Adds ROS 2's tools to the environment that is active.
export AMENT_PREFIX_PATH="{prefix}${{AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}}"
export PYTHONPATH="{site}${{PYTHONPATH:+:$PYTHONPATH}}"
export LD_LIBRARY_PATH="{prefix}/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
export PATH="{prefix}/bin:$PATH"
"""


def run(*command: object, folder: Path | None = None) -> None:
    """Run a command; when it fails, print its output and exit."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{(done.stdout + done.stderr)[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the tools, outside this repository")
    parser.add_argument("--branch", default=os.environ.get("ROS_DISTRO", "jazzy"), help="ROS 2 release")
    parser.add_argument(
        "--home", default=HOME, help=f"address of the repositories, with {{name}} for the name (default: {HOME})"
    )
    args = parser.parse_args()
    prefix: Path = args.folder.resolve()
    repository = Path(__file__).resolve().parent.parent
    if prefix.is_relative_to(repository):
        sys.exit(f"{prefix} lies in this repository: choose a folder outside it")
    if missing := [program for program in ("git", "cmake") if shutil.which(program) is None]:
        sys.exit(f"{' and '.join(missing)} not found: install with the system's package manager")
    if "AMENT_PREFIX_PATH" not in os.environ:
        sys.exit("no ROS 2 environment is active: run '. .venv/setup.sh' first")

    sources = prefix / "src"
    sources.mkdir(parents=True, exist_ok=True)
    for name in {**PACKAGES, **INTERFACES}:
        if not (sources / name / ".git").is_dir():
            print(f"cloning {args.home.format(name=name)} ({args.branch})", flush=True)
            run("git", "clone", "-q", "--depth", "1", "-b", args.branch, args.home.format(name=name), sources / name)
    for repository_name, packages in INTERFACES.items():
        for package in packages:
            print(f"building {package}", flush=True)
            source, build = sources / repository_name / package, prefix / "build" / package
            options = [f"-DCMAKE_INSTALL_PREFIX={prefix}", f"-DPython3_EXECUTABLE={sys.executable}"]
            run("cmake", "-S", source, "-B", build, "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release", *options)
            run("cmake", "--build", build, "--target", "install")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--prefix", prefix]
    print("installing the Python packages", flush=True)
    run(*pip, *LIBRARIES)
    # No dependencies: the metadata use ROS package names, which pip would search in the index.
    folders = [sources / name / package for name, packages in PACKAGES.items() for package in packages]
    run(*pip, "--no-build-isolation", "--no-deps", "--ignore-installed", *folders)

    site = Path(sysconfig.get_path("purelib", vars={"base": str(prefix)}))
    (prefix / "setup.sh").write_text(SETUP.format(prefix=prefix, site=site))
    print(f"done: . {prefix}/setup.sh")


if __name__ == "__main__":
    main()
