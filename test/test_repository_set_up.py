"""The set-up script: skipped when done, gone on with when interrupted, careful with what is not its own."""

from __future__ import annotations

import importlib.util
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


LOCK = """
[[packages]]
name = "torch"
wheels = [{ url = "https://example.org/torch.whl", size = 500000000, hashes = { sha256 = "0" } }]

[[packages]]
name = "nvidia-cublas"
wheels = [{ url = "https://example.org/cublas.whl", size = 600000000, hashes = { sha256 = "0" } }]
"""


def test_a_build_from_the_users_index_is_taken_with_its_size_said_first(
    set_up: ModuleType, environment: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("TORCH_INDEX", "TORCH_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    asked = []

    def resolved(*arguments: str, seconds: int = 0) -> str | None:
        asked.append(arguments)
        return None if "--torch-backend" in arguments else LOCK

    monkeypatch.setattr(environment, "resolved", resolved)
    assert set_up.choose_torch(environment, "torch") == []
    assert asked == [("--torch-backend", "auto", "torch"), ("torch",)]
    said = capfd.readouterr().out
    assert "1.1 GB" in said
    assert "CUDA" in said


def test_pytorchs_index_is_preferred_and_a_named_one_wins(
    set_up: ModuleType, environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    monkeypatch.setenv("TORCH_BACKEND", "cpu")
    monkeypatch.setattr(environment, "resolved", lambda *_, **__: "")
    assert set_up.choose_torch(environment, "torch") == ["--torch-backend", "cpu"]
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/one https://example.org/two")
    assert set_up.choose_torch(environment, "torch").count("--extra-index-url") == 2


def test_a_wheel_in_a_folder_has_its_files_size(set_up: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "torch-1+cpu.whl"
    wheel.write_bytes(b"0" * 300)
    lock = f'name = "torch"\nwheels = [{{ url = "file://{wheel.as_posix().replace("+", "%2B")}" }}]\n'
    assert set_up.size_of(lock) == (300, False)


def test_uv_takes_pips_settings(set_up: ModuleType) -> None:
    listed = """:env:.cert='/etc/cert.pem'
global.cert='/elsewhere.pem'
global.extra-index-url='https://example.org/a https://example.org/b'
global.find-links='/wheels /more'
global.no-color='true'
"""
    assert set_up.uv_settings(listed, {}) == {
        "SSL_CERT_FILE": "/etc/cert.pem",
        "UV_INDEX": "https://example.org/a https://example.org/b",
        "UV_FIND_LINKS": "/wheels,/more",
    }
    assert "UV_INDEX" not in set_up.uv_settings(listed, {"UV_INDEX": "https://example.org/mine"})


def test_foreign_include_paths_are_repaired(set_up: ModuleType, environment: Any) -> None:
    import sysconfig

    import numpy

    cmake = environment.folder / "share" / "std_msgs" / "cmake"
    cmake.mkdir(parents=True)
    root = "/opt/python/cp311-cp311"
    numpy_include = f"{root}/lib/python3.11/site-packages/numpy/_core/include"
    (cmake / "a.cmake").write_text(f'INTERFACE "{root}/include/python3.11;{numpy_include}"')
    (cmake / "b.cmake").write_text("nothing foreign")
    cached = environment.folder / "cached.cmake"
    cached.hardlink_to(cmake / "a.cmake")
    set_up.repair_cmake_files(environment)
    assert root in cached.read_text()  # uv's cache serves other environments too
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


def test_the_lock_is_installed_by_hash_and_torch_as_always(
    set_up: ModuleType, environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_up, "LOCKED_FOR", ("{}.{}".format(*sys.version_info), "linux", "x86_64", "jazzy"))
    monkeypatch.setattr(set_up.platform, "machine", lambda: "x86_64")
    for name in ("choose_torch", "repair_cmake_files", "write_activation"):
        monkeypatch.setattr(set_up, name, lambda *_: [])
    asked: list[tuple[tuple[str, ...], bool]] = []
    monkeypatch.setattr(set_up, "installed_torch", lambda *_: "")
    monkeypatch.setattr(
        environment, "install", lambda *a, constrained=True: asked.append((tuple(map(str, a)), constrained))
    )
    set_up.install_libraries(environment, "jazzy", ["test"], locked=True)
    (torch, _), (lock, constrained), (tools, _) = asked
    assert any(part.startswith("torch==") for part in torch)
    assert lock == ("--no-deps", "--require-hashes", "-r", str(set_up.LOCK))
    assert not constrained
    # What the tests need beyond is held to the locked versions, too.
    constraints = (environment.folder / "constraints.txt").read_text()
    assert any(part.startswith("hypothesis") for part in tools)
    assert any(line.startswith("numpy==") for line in constraints.splitlines())


def test_a_lock_for_another_machine_is_refused(set_up: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_up, "LOCKED_FOR", ("2.7", "beos", "m68k", "jazzy"))
    with pytest.raises(SystemExit, match=r"the lock is for Python 2\.7"):
        set_up.locked_versions("jazzy")
