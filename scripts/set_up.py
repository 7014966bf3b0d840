"""Create the environment of ``make``: ROS 2 from PyPI wheels, torch, the libraries, this package.

The Makefile runs this script with any Python 3.10 or newer; it imports only the standard library. It installs packages
with uv, which keeps them in the user's cache, so that the next environment takes seconds. A complete stage writes the
hash of its inputs into the environment. The script skips a stage while its inputs stay the same, and repeats it when
they change or when it was interrupted. docs/installation.md explains the options.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CONSTRAINTS = HERE / "constraints.txt"
LOCK = REPOSITORY / "requirements" / "run.txt"
LOCKED_FOR = ("3.11", "linux", "x86_64", "jazzy")
"""Python, system, machine and ROS 2 release of the lock."""

# Wheels of ROS 2, without the prefix ros-DISTRO-. The generators' wheels do not declare all requirements.
ROS_WHEELS = [
    *("rclpy[fastrtps]", "common-interfaces", "rosidl-default-generators", "rosidl-core-generators"),
    *("ament-cmake", "ament-package", "ament-cmake-ros", "ament-cmake-include-directories"),
    *("ament-cmake-gmock", "ament-cmake-gtest", "ament-cmake-pytest"),
]
ROS_WHEELS_OF = {"jazzy": ["python-cmake-module"], "kilted": ["ament-cmake-ros-core"]}
ROS_TOOLS = ["catkin_pkg", "empy", "lark", "setuptools", "wheel", "numpy"]

# Requirements outside package indexes: Debian's names, each with alternative programs. docker/Dockerfile has them.
DEBIAN_PACKAGES = {"cmake": ["cmake"], "make": ["make", "ninja"], "g++": ["c++", "g++", "clang++"]}

# uv reads none of pip's settings (a company's index, a folder of wheels): the script sets these variables instead.
PIP_SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
}

# Requirements of the Makefile's targets beyond the package's own: extras of setup.cfg, and packages.
GROUPS: dict[str, tuple[list[str], list[str]]] = {
    "run": (["all"], []),
    "test": (["test"], []),
    "lint": (["lint"], []),
    "docs": (["docs"], []),
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
    """Exit with one clear line."""
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
        """A stage that is skipped when it was completed with the same inputs."""
        return Stage(self, name, hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(), say)

    def run(self, *command: str | Path, variables: dict[str, str] | None = None) -> None:
        """Run a command with its output in the log; when it fails, print the last lines and exit."""
        with self.log.open("a") as log:
            print("$", *command, file=log, flush=True)
            result = subprocess.run(
                [*map(str, command)],
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=REPOSITORY,
                env={**os.environ, **(variables or {})},
            )
        if result.returncode:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
            stop(f"a command failed (all of its output: {self.log})\n{tail}")

    def uv_program(self) -> str:
        """The uv on PATH or in the environment; pip installs it there when both lack it."""
        found = shutil.which("uv", path=f"{os.environ.get('PATH', '')}:{self.folder / 'bin'}")
        if found is None:
            self.run(self.python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "uv")
            found = str(self.folder / "bin" / "uv")
        return found

    def uv_variables(self) -> dict[str, str]:
        """The settings of pip under uv's names; a variable of uv that is set stays as it is."""
        command = [str(self.python), "-m", "pip", "config", "list"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return uv_settings(answer, os.environ)

    def install(self, *arguments: str | Path, constrained: bool = True) -> None:
        """Install with uv, which chooses among all indexes as pip does; ``constrained``: by the user's constraints."""
        settings = self.uv_variables()
        if not constrained:
            settings.pop("UV_CONSTRAINT", None)
        self.run(
            *(self.uv_program(), "pip", "install", "-q", "--python", self.python),
            *("--index-strategy", "unsafe-best-match", *arguments),
            variables=settings,
        )

    def resolved(self, *arguments: str, seconds: int = 120) -> str | None:
        """The packages that uv would install, as a pylock.toml; None when an index does not answer or lacks one."""
        command = [self.uv_program(), "pip", "compile", "-q", "--python", str(self.python), "--format", "pylock.toml"]
        *options, requirement = arguments
        answer = subprocess.run(
            [*command, "--index-strategy", "unsafe-best-match", *options, "-"],
            input=requirement,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **self.uv_variables(), "UV_HTTP_TIMEOUT": str(seconds), "UV_HTTP_RETRIES": "1"},
        )
        with self.log.open("a") as log:
            print("$", *command, *options, requirement, answer.stdout, answer.stderr, sep="\n", file=log)
        return answer.stdout if answer.returncode == 0 else None


def uv_settings(pip_config: str, present: Mapping[str, str]) -> dict[str, str]:
    """Variables of uv for the settings that ``pip config list`` printed.

    A variable ``PIP_…`` overrides the same setting of a file, as in pip.
    """
    found: dict[str, tuple[bool, str]] = {}
    for line in pip_config.splitlines():
        scope, _, value = line.partition("=")
        section, _, key = scope.rpartition(".")
        name = PIP_SETTINGS.get(key)
        if name is None or name in present:
            continue
        of_environment = section == ":env:"
        if name not in found or of_environment >= found[name][0]:
            found[name] = of_environment, ast.literal_eval(value)
    separators = {"UV_FIND_LINKS": ","}
    return {name: separators.get(name, " ").join(value.split()) for name, (_, value) in found.items()}


class Stage:
    """``with stage as needed: if needed: ...``: measures the work, and writes the stamp only after success."""

    def __init__(self, environment: Environment, name: str, digest: str, say: str) -> None:
        self.environment, self.name, self.digest, self.say = environment, name, digest, say

    def __enter__(self) -> bool:
        self.started = time.monotonic()
        self.needed = self.environment.stamps.get(self.name) != self.digest
        if self.needed:
            self.environment.stamps.pop(self.name, None)
            print(f"set-up: {self.say} ...", flush=True)
        return self.needed

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.needed or kind is not None:
            return
        self.environment.stamps[self.name] = self.digest
        new_file = self.environment.stamps_file.with_suffix(".new")
        new_file.write_text(json.dumps(self.environment.stamps, indent=1))
        new_file.replace(self.environment.stamps_file)
        print(f"set-up: {self.say}: {time.monotonic() - self.started:.0f} s", flush=True)


def requirements() -> tuple[list[str], dict[str, list[str]]]:
    """The package's requirements and its extras (references to other extras resolved), from setup.cfg."""
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
    """Requirements of groups; "run" is the package with all requirements of a robot."""
    base, extras = requirements()
    wanted = base if "run" in groups else []
    wanted += [r for group in groups for extra in GROUPS[group][0] for r in extras[extra]]
    return list(dict.fromkeys(wanted + [r for group in groups for r in GROUPS[group][1]]))


def check_machine() -> None:
    """Stop with one line that names all missing programs that no package index has."""
    if sys.version_info < (3, 10):  # noqa: UP036 (this line is for older versions)
        stop(f"Python {sys.version.split()[0]} is too old: timar_ros needs 3.10 or newer (make PYTHON=python3.12 ...)")
    missing = [deb for deb, names in DEBIAN_PACKAGES.items() if not any(map(shutil.which, names))]
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing.append(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")
    if missing:
        stop(f"this machine lacks {', '.join(missing)}: run 'apt-get install {' '.join(missing)}' as root, then again")


def make_venv(environment: Environment, distro: str) -> None:
    """Create the environment; replace one of another Python or ROS 2, or a broken one."""
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
    """Version of the environment's torch; empty without torch."""
    code = "import importlib.metadata as m; print(m.version('torch'))"
    answer = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def choose_torch(environment: Environment, torch: str) -> list[str]:
    """Options of uv that choose the build of torch.

    PyTorch's own index has small CPU builds (0.2 GB) and one for each CUDA release; uv knows its address and chooses by
    the machine's driver. On Linux, PyPI's build needs several gigabytes of CUDA libraries: the script uses it if
    PyTorch's index does not answer, and prints its size first.
    """
    if indexes := os.environ.get("TORCH_INDEX", "").split():
        return [option for index in indexes for option in ("--extra-index-url", index)]
    backend = ["--torch-backend", os.environ.get("TORCH_BACKEND") or "auto"]
    if environment.resolved(*backend, torch, seconds=15) is not None:
        return backend
    size, large = size_of(environment.resolved(torch) or "")
    of_cuda = ", nearly all of it CUDA libraries" if large else ""
    print(
        f"set-up: PyTorch's own package index does not answer, so {torch} comes from yours: {size / 1e9:.1f} GB to "
        f"download{of_cuda}, kept in uv's cache (docs/installation.md, 'torch')",
        flush=True,
    )
    return []


def size_of(lock: str) -> tuple[int, bool]:
    """Size in bytes of the wheels in a pylock.toml, and whether CUDA's libraries are among them."""
    sizes = [int(size) for size in re.findall(r"^wheels = .*?\bsize = (\d+)", lock, re.MULTILINE)]
    files = [Path(name) for name in re.findall(r'^wheels = .*?"file://([^"]+\.whl)"', lock, re.MULTILINE)]
    sizes += [file.stat().st_size for file in map(Path, map(unquote, map(str, files))) if file.is_file()]
    return sum(sizes), re.search(r'^name = "(nvidia|cuda)-', lock, re.MULTILINE) is not None


def repair_cmake_files(environment: Environment) -> None:
    """Replace the include paths of the build machine in the wheels' CMake files by this machine's paths."""
    code = "import numpy, sysconfig; print(sysconfig.get_path('include')); print(numpy.get_include())"
    answer = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    python_include, numpy_include = answer.stdout.split("\n")[:2]
    for path in environment.folder.glob("share/*/cmake/*.cmake"):
        text = path.read_text()
        mended = re.sub(r'/opt/[^;"\s]*/site-packages/numpy/(?:_core|core)/include', numpy_include, text)
        mended = re.sub(r'/opt/[^;"\s]*/include/python[0-9.]+', python_include, mended)
        if mended != text:
            # Replace the file: the old one may be a hard link into uv's cache, shared with other environments.
            fresh = path.with_suffix(".new")
            fresh.write_text(mended)
            fresh.replace(path)


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


def locked_versions(distro: str) -> list[str]:
    """The packages of the lock, each as name==version. Stops where the lock is for another Python or machine."""
    here = ("{}.{}".format(*sys.version_info), sys.platform, platform.machine(), distro)
    if here != LOCKED_FOR:
        stop(f"the lock is for Python {', '.join(LOCKED_FOR)}, not {', '.join(here)}: leave LOCKED=1 out")
    return [line.split()[0] for line in LOCK.read_text().splitlines() if line and line[0] not in "# "]


def install_libraries(environment: Environment, distro: str, groups: list[str], locked: bool = False) -> None:
    """Install ROS 2's wheels and the libraries of the package and of each group.

    ``locked``: those of a run only as requirements/run.txt has them, file by file; torch is chosen as always.
    """
    constraints = [line for line in CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    torch = next(line for line in constraints if line.startswith("torch"))
    if locked:
        constraints += locked_versions(distro)

    for group in dict.fromkeys(["run", *groups]):
        wanted = wanted_by(group)
        if group == "run":
            ros = [*ROS_WHEELS, *ROS_WHEELS_OF[distro]]
            wanted += [f"ros-{distro}-{name}" for name in ros] + ROS_TOOLS
            say = f"ROS 2 {distro} wheels, torch and the other libraries (a minute or two)"
        else:
            say = f"further libraries of '{group}'"
        inputs = [wanted, constraints, *([LOCK.read_text()] if locked else [])]
        with environment.stage(f"libraries for {group}", inputs, say) as needed:
            if not needed:
                continue
            kept = installed_torch(environment)
            options = [] if kept else choose_torch(environment, torch)
            file = environment.folder / "constraints.txt"
            file.write_text("\n".join(f"torch=={kept}" if kept and c == torch else c for c in constraints) + "\n")
            if locked and group == "run":
                environment.install("-c", file, *options, torch)
                # A constraint of the user has no hash, and then uv refuses all.
                environment.install("--no-deps", "--require-hashes", "-r", LOCK, constrained=False)
            else:
                environment.install("-c", file, *options, *wanted)
            # Every installation may contain wheels with foreign paths.
            repair_cmake_files(environment)
            write_activation(environment, distro)


def install_package(environment: Environment) -> None:
    """Build the interfaces and install this checkout, editable: changes of Python files take effect at once."""
    files = [
        *REPOSITORY.glob("msg/*.msg"),
        *REPOSITORY.glob("srv/*.srv"),
        *(REPOSITORY / name for name in ("setup.py", "setup.cfg", "CMakeLists.txt")),
    ]
    files += [REPOSITORY / "package.xml", REPOSITORY / "resource" / "executable.in"]
    inputs = [str(REPOSITORY), {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}]
    with environment.stage("package", inputs, "interfaces of timar_ros (CMake)") as needed:
        if needed:
            # uv would use an earlier build of the same folder from its cache, even after changes in msg/.
            again = ("--reinstall-package", "timar_ros", "--refresh-package", "timar_ros")
            environment.install("--no-build-isolation", "--no-deps", *again, "-e", REPOSITORY)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("venv", type=Path, nargs="?", default=REPOSITORY / ".venv", help="folder of the environment")
    parser.add_argument(
        "--distro", choices=sorted(ROS_WHEELS_OF), help="ROS 2 release; default: the installed one, or jazzy"
    )
    parser.add_argument("--locked", action="store_true", help="a run's libraries exactly as requirements/ has them")
    parser.add_argument("--for", dest="groups", action="append", default=[], choices=sorted(GROUPS), help="a group")
    parser.add_argument(
        "--requirements", nargs="+", metavar="GROUP", choices=sorted(GROUPS),
        help="only print these groups' requirements, as a requirements file (without the ROS 2 wheels)",
    )  # fmt: skip
    args = parser.parse_args()

    if args.requirements:
        print(*wanted_by(*args.requirements), sep="\n")
        return
    started = time.monotonic()
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
        install_libraries(environment, distro, args.groups, args.locked)
        install_package(environment)
    if environment.stamps != before:
        print(f"set-up: done in {time.monotonic() - started:.0f} s; by hand: . {args.venv}/setup.bash", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("interrupted; the next run continues from here")
