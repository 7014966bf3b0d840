"""Make the environment that ``make`` works in: ROS 2 from PyPI wheels, torch, the libraries, this package.

Run by the Makefile with any Python 3.10 or newer and nothing but the standard library. Every stage leaves the hash of
its inputs in the environment when it is complete: it is skipped while they stay the same, and made again when they
change or when it was interrupted. docs/installation.md explains the options.
"""

from __future__ import annotations

import argparse
import configparser
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CONSTRAINTS = HERE / "constraints.txt"

# Wheels of ROS 2, without the prefix ros-DISTRO-. The generators' wheels do not declare all that they need.
ROS_WHEELS = [
    *("rclpy[fastrtps]", "common-interfaces", "rosidl-default-generators", "rosidl-core-generators"),
    *("ament-cmake", "ament-package", "ament-cmake-ros", "ament-cmake-include-directories"),
    *("ament-cmake-gmock", "ament-cmake-gtest", "ament-cmake-pytest"),
]
ROS_WHEELS_OF = {"jazzy": ["python-cmake-module"], "kilted": ["ament-cmake-ros-core"]}
ROS_TOOLS = ["catkin_pkg", "empy", "lark", "setuptools", "wheel", "numpy"]

# What the targets of the Makefile need beyond the package's own requirements: extras of setup.cfg, and packages.
GROUPS: dict[str, tuple[list[str], list[str]]] = {
    "run": (["all"], []),
    "test": (["test"], []),
    "lint": (["lint"], []),
    "colcon": ([], ["colcon-common-extensions"]),
}

ACTIVATION = """\
# Made by scripts/set_up.py: ROS 2 {distro} from PyPI wheels, as an underlay (also for colcon's chain of prefixes).
_timar_put() {{
  eval "_timar_old=\\${{$1:-}}"
  case ":$_timar_old:" in
    *":$2:"*) ;;
    *) eval "export $1=\\"\\$2\\${{_timar_old:+:\\$_timar_old}}\\"" ;;
  esac
}}
{lines}
unset -f _timar_put
unset _timar_old
# The search path of libraries is set above: the wheels' own way would start every Python twice.
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1 ROS_DISTRO={distro} ROS_VERSION=2 ROS_PYTHON_VERSION=3
"""


def stop(message: str) -> None:
    """End with one clear line."""
    sys.exit(f"set-up: {message}")


class Environment:
    """A virtual environment with the stamps of the stages that are complete."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.log = folder / "set-up.log"
        self.stamps_file = folder / "set-up.json"
        try:
            self.stamps: dict[str, str] = json.loads(self.stamps_file.read_text())
        except (OSError, ValueError):
            self.stamps = {}

    def stage(self, name: str, inputs: object, say: str) -> Stage:
        """A stage that is done when it was completed with the same inputs."""
        return Stage(self, name, hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(), say)

    def run(self, *command: str | Path) -> None:
        """Run a command with its output in the log; its last lines are shown when it fails."""
        with self.log.open("a") as log:
            print("$", *command, file=log, flush=True)
            result = subprocess.run(
                [*map(str, command)], stdout=log, stderr=subprocess.STDOUT, check=False, cwd=REPOSITORY
            )
        if result.returncode:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
            stop(f"a command failed (all of its output: {self.log})\n{tail}")

    def pip(self, *arguments: str | Path) -> None:
        """Install with pip."""
        self.run(self.python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments)


class Stage:
    """``with stage as needed: if needed: ...``: times the work, and leaves the stamp only when it went through."""

    def __init__(self, environment: Environment, name: str, digest: str, say: str) -> None:
        self.environment, self.name, self.digest, self.say = environment, name, digest, say

    def __enter__(self) -> bool:
        self.began = time.monotonic()
        self.needed = self.environment.stamps.get(self.name) != self.digest
        if self.needed:
            self.environment.stamps.pop(self.name, None)
            print(f"set-up: {self.say} ...", flush=True)
        return self.needed

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.needed or kind is not None:
            return
        self.environment.stamps[self.name] = self.digest
        made = self.environment.stamps_file.with_suffix(".new")
        made.write_text(json.dumps(self.environment.stamps, indent=1))
        made.replace(self.environment.stamps_file)
        print(f"set-up: {self.say}: {time.monotonic() - self.began:.0f} s", flush=True)


def requirements() -> tuple[list[str], dict[str, list[str]]]:
    """The package's requirements and its extras (those that name other extras spelled out), from setup.cfg."""
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    name = config["metadata"]["name"]
    written = {key: value.split("\n")[1:] for key, value in config["options.extras_require"].items()}

    def spelled(extra: str) -> list[str]:
        found: list[str] = []
        for line in written[extra]:
            inner = re.fullmatch(rf"{name}\[(.+)\]", line)
            found += [r for other in inner[1].split(",") for r in spelled(other)] if inner else [line]
        return list(dict.fromkeys(found))

    return config["options"]["install_requires"].strip().split("\n"), {extra: spelled(extra) for extra in written}


def wanted_by(*groups: str) -> list[str]:
    """Requirements of groups; "run" stands for the package with all that a robot needs."""
    base, extras = requirements()
    wanted = base if "run" in groups else []
    wanted += [r for group in groups for extra in GROUPS[group][0] for r in extras[extra]]
    return list(dict.fromkeys(wanted + [r for group in groups for r in GROUPS[group][1]]))


def check_machine() -> None:
    """Everything that pip cannot bring, in one line."""
    if sys.version_info < (3, 10):  # noqa: UP036 (an older one is what this line is for)
        stop(f"Python {sys.version.split()[0]} is too old: timar_ros needs 3.10 or newer (make PYTHON=python3.12 ...)")
    debs = {"cmake": ["cmake"], "make": ["make", "ninja"], "g++": ["c++", "g++", "clang++"]}
    missing = [deb for deb, names in debs.items() if not any(map(shutil.which, names))]
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing.append(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")
    if missing:
        stop(f"this machine lacks {', '.join(missing)}: run 'apt-get install {' '.join(missing)}' as root, then again")


def make_venv(environment: Environment, distro: str) -> None:
    """Create the environment; one of another Python or ROS 2, or a broken one, is made anew."""
    folder = environment.folder
    version = "{}.{}".format(*sys.version_info)
    with environment.stage("venv", [version, distro], f"Python {version} environment in {folder}") as needed:
        if not needed:
            return
        probe = [str(environment.python), "-c", "import pip, sys; print('{}.{}'.format(*sys.version_info))"]
        try:
            found = subprocess.run(probe, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:
            found = ""
        other_distro = any(folder.glob("share/rclpy")) and not any(folder.glob(f"lib/*/*/ros_{distro}_rclpy-*"))
        if found == version and not other_distro:
            return
        if folder.exists() and not environment.stamps_file.exists() and any(folder.iterdir()):
            stop(f"{folder} was not made by this set-up and does not fit: remove it, or choose another (make VENV=...)")
        environment.stamps.clear()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        environment.stamps_file.write_text("{}")
        environment.run(sys.executable, "-m", "venv", folder)


def installed_torch(environment: Environment) -> str:
    """Version of a torch that is in the environment already; empty when there is none."""
    code = "import importlib.metadata as m; print(m.version('torch'))"
    answer = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def refuse_cuda(environment: Environment, torch: str, options: list[str]) -> None:
    """Ask pip what it would install, and stop before gigabytes of CUDA libraries that nobody asked for."""
    report = environment.folder / "torch-report.json"
    environment.pip("--dry-run", "--report", report, torch, *options)
    names = [item["metadata"]["name"].lower() for item in json.loads(report.read_text())["install"]]
    if any(name.startswith(("nvidia-", "cuda-")) for name in names):
        stop(
            f"your package index has only the CUDA build of {torch} (several gigabytes). Run again with TORCH_INDEX="
            "<address of PyTorch's CPU wheels> (docs/installation.md tells where it stands), or TORCH_CUDA=1 to take it"
        )


def repair_cmake_files(environment: Environment) -> None:
    """The wheels' CMake files carry include paths of the machine that they were built on; put ours in their place."""
    code = "import numpy, sysconfig; print(sysconfig.get_path('include')); print(numpy.get_include())"
    answer = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    python_include, numpy_include = answer.stdout.split("\n")[:2]
    for path in environment.folder.glob("share/*/cmake/*.cmake"):
        text = path.read_text()
        mended = re.sub(r'/opt/[^;"\s]*/site-packages/numpy/(?:_core|core)/include', numpy_include, text)
        mended = re.sub(r'/opt/[^;"\s]*/include/python[0-9.]+', python_include, mended)
        if mended != text:
            path.write_text(mended)


def write_activation(environment: Environment, distro: str) -> None:
    """``. .venv/setup.bash`` makes the environment an underlay, as /opt/ros/DISTRO/setup.bash does."""
    folder = environment.folder
    libraries = [*sorted(folder.glob("lib/python3*/site-packages/ros_*.libs")), folder / "lib"]
    pairs = [("AMENT_PREFIX_PATH", folder), ("CMAKE_PREFIX_PATH", folder), ("PATH", folder / "bin")]
    pairs += [("LD_LIBRARY_PATH", library) for library in libraries]
    lines = "\n".join(f'_timar_put {name} "{path}"' for name, path in pairs)
    (folder / "local_setup.sh").write_text(ACTIVATION.format(distro=distro, lines=lines))
    for name in "setup.sh", "setup.bash", "local_setup.bash":
        (folder / name).write_text(f'. "{folder}/local_setup.sh"\n')


def install_libraries(environment: Environment, distro: str, groups: list[str]) -> None:
    """ROS 2's wheels and the libraries of the package and of each group, torch first of all."""
    options = [f for index in os.environ.get("TORCH_INDEX", "").split() for f in ("--extra-index-url", index)]
    constraints = [line for line in CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    torch = next(line for line in constraints if line.startswith("torch"))

    for group in dict.fromkeys(["run", *groups]):
        wanted = wanted_by(group)
        if group == "run":
            ros = [*ROS_WHEELS, *ROS_WHEELS_OF[distro]]
            wanted += [f"ros-{distro}-{name}" for name in ros] + ROS_TOOLS
            say = f"ROS 2 {distro} wheels, torch and the other libraries (a minute or two)"
        else:
            say = f"what '{group}' needs beyond"
        with environment.stage(f"libraries for {group}", [wanted, constraints], say) as needed:
            if not needed:
                continue
            kept = installed_torch(environment)
            if group == "run" and not kept and not os.environ.get("TORCH_CUDA"):
                refuse_cuda(environment, torch, options)
            file = environment.folder / "constraints.txt"
            file.write_text("\n".join(f"torch=={kept}" if kept and c == torch else c for c in constraints) + "\n")
            environment.pip("-c", file, *options, *wanted)
            # Every installation may have brought wheels with foreign paths.
            repair_cmake_files(environment)
            write_activation(environment, distro)


def install_package(environment: Environment) -> None:
    """Build the interfaces and install this checkout, editable: a change of a Python file counts at once."""
    files = [
        *REPOSITORY.glob("msg/*.msg"),
        *(REPOSITORY / name for name in ("setup.py", "setup.cfg", "CMakeLists.txt")),
    ]
    files += [REPOSITORY / "package.xml", REPOSITORY / "resource" / "executable.in"]
    inputs = [str(REPOSITORY), {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}]
    with environment.stage("package", inputs, "interfaces of timar_ros (CMake)") as needed:
        if needed:
            environment.pip("--no-build-isolation", "--no-deps", "-e", REPOSITORY)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("venv", type=Path, nargs="?", default=REPOSITORY / ".venv", help="folder of the environment")
    parser.add_argument(
        "--distro", choices=sorted(ROS_WHEELS_OF), help="ROS 2 release; default: the one there, or jazzy"
    )
    parser.add_argument("--for", dest="groups", action="append", default=[], choices=sorted(GROUPS), help="a group")
    parser.add_argument(
        "--requirements", nargs="+", metavar="GROUP", choices=sorted(GROUPS),
        help="only print what pip would install for these groups, as a requirements file (without the ROS 2 wheels)",
    )  # fmt: skip
    args = parser.parse_args()

    if args.requirements:
        print(*wanted_by(*args.requirements), sep="\n")
        return
    began = time.monotonic()
    check_machine()
    folder = args.venv.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"set-up: waiting for another set-up of {folder}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        environment = Environment(folder)
        before = dict(environment.stamps)
        distro = args.distro or before.get("distro", "jazzy")
        make_venv(environment, distro)
        environment.stamps["distro"] = distro
        install_libraries(environment, distro, args.groups)
        install_package(environment)
    if environment.stamps != before:
        print(f"set-up: done in {time.monotonic() - began:.0f} s; by hand: . {args.venv}/setup.bash", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("interrupted; the next run goes on from here")
