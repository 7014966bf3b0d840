"""The set-up script: skipped when done, gone on with when interrupted, careful with what is not its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def set_up() -> ModuleType:
    spec = importlib.util.spec_from_file_location("set_up", ROOT / "scripts" / "set_up.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["set_up"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environment(set_up: ModuleType, tmp_path: Path) -> Any:
    """An environment's folder that runs this interpreter."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return set_up.Environment(tmp_path)


def test_a_stage_is_skipped_only_while_its_inputs_stay(set_up: ModuleType, environment: Any) -> None:
    def needed(inputs: object) -> bool:
        with set_up.Environment(environment.folder).stage("libraries", inputs, "say") as answer:
            return answer

    assert needed([1])
    assert not needed([1])
    assert needed([1, 2])
    assert not needed([1, 2])
    assert needed([1])


def test_an_interrupted_stage_is_done_again(set_up: ModuleType, environment: Any) -> None:
    with environment.stage("package", "old", "say"):
        pass
    with pytest.raises(KeyboardInterrupt), environment.stage("package", "new", "say"):
        raise KeyboardInterrupt
    again = set_up.Environment(environment.folder)
    for inputs in "new", "old":  # the old state was partly overwritten
        with again.stage("package", inputs, "say") as needed:
            assert needed
        again = set_up.Environment(environment.folder)


def test_unreadable_stamps_mean_nothing_is_done(set_up: ModuleType, environment: Any) -> None:
    environment.stamps_file.write_text('{"package": "abc')
    assert set_up.Environment(environment.folder).stamps == {}


def test_extras_that_name_extras_are_spelled_out(set_up: ModuleType) -> None:
    base, extras = set_up.requirements()
    assert any(line.startswith("numpy") for line in base)
    everything = " ".join(extras["all"])
    assert "timar_ros" not in everything
    for name in "torch", "mujoco", "accelerate", "sounddevice":
        assert name in everything
    assert len(extras["all"]) == len(set(extras["all"]))


def test_requirements_can_be_printed_for_a_real_ros(capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run([sys.executable, ROOT / "scripts/set_up.py", "--requirements", "run", "test"], check=True)
    lines = capfd.readouterr().out.splitlines()
    assert any(line.startswith("numpy") for line in lines)
    assert any(line.startswith("hypothesis") for line in lines)
    assert not any(line.startswith("ros-") for line in lines)


@pytest.mark.parametrize(
    ("brought", "refused"),
    [(["torch", "sympy"], False), (["torch", "nvidia-cublas"], True), (["torch", "cuda-toolkit"], True)],
)
def test_gigabytes_of_cuda_are_refused_with_the_way_out(
    set_up: ModuleType, environment: Any, monkeypatch: pytest.MonkeyPatch, brought: list[str], refused: bool
) -> None:
    def dry_run(*arguments: object) -> None:
        report = arguments[arguments.index("--report") + 1]
        report.write_text(json.dumps({"install": [{"metadata": {"name": name}} for name in brought]}))

    monkeypatch.setattr(environment, "pip", dry_run)
    if refused:
        with pytest.raises(SystemExit, match=r"TORCH_INDEX=.*TORCH_CUDA=1"):
            set_up.refuse_cuda(environment, "torch", [])
    else:
        set_up.refuse_cuda(environment, "torch", [])


def test_foreign_include_paths_are_repaired(set_up: ModuleType, environment: Any) -> None:
    import sysconfig

    import numpy

    cmake = environment.folder / "share" / "std_msgs" / "cmake"
    cmake.mkdir(parents=True)
    root = "/opt/python/cp311-cp311"
    numpy_include = f"{root}/lib/python3.11/site-packages/numpy/_core/include"
    (cmake / "a.cmake").write_text(f'INTERFACE "{root}/include/python3.11;{numpy_include}"')
    (cmake / "b.cmake").write_text("nothing foreign")
    set_up.repair_cmake_files(environment)
    expected = f'INTERFACE "{sysconfig.get_path("include")};{numpy.get_include()}"'
    assert (cmake / "a.cmake").read_text() == expected
    set_up.repair_cmake_files(environment)
    assert (cmake / "a.cmake").read_text() == expected
    assert (cmake / "b.cmake").read_text() == "nothing foreign"


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_environment_can_be_sourced_twice_and_before_others(
    set_up: ModuleType, environment: Any, shell: str
) -> None:
    set_up.write_activation(environment, "jazzy")
    folder = environment.folder
    script = f'set -eu; . "{folder}/setup.sh"; . "{folder}/setup.sh"; echo "$AMENT_PREFIX_PATH|$ROS_DISTRO|$PATH"'
    answer = subprocess.run(
        [shell, "-c", script],
        env={"PATH": os.environ["PATH"], "AMENT_PREFIX_PATH": "/opt/ros/x"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.stdout.strip() == f"{folder}:/opt/ros/x|jazzy|{folder}/bin:{os.environ['PATH']}"


def test_a_foreign_folder_is_never_overwritten(set_up: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="was not made by this set-up"):
        set_up.make_venv(set_up.Environment(tmp_path), "jazzy")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_environment_that_fits_is_kept(set_up: ModuleType, environment: Any) -> None:
    """A user's own environment, with a CUDA torch in it, say."""
    (environment.folder / "mine.txt").touch()
    set_up.make_venv(environment, "jazzy")
    assert (environment.folder / "mine.txt").exists()


def test_what_the_machine_lacks_is_said_in_one_line(set_up: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_up.shutil, "which", lambda name: None if name == "cmake" else f"/usr/bin/{name}")
    with pytest.raises(
        SystemExit, match=r"^set-up: this machine lacks cmake: run 'apt-get install cmake' as root[^\n]*$"
    ):
        set_up.check_machine()


def test_a_failed_command_shows_its_last_lines(environment: Any) -> None:
    with pytest.raises(SystemExit, match="no such option"):
        environment.run(sys.executable, "-c", "import sys; sys.exit('no such option')")
