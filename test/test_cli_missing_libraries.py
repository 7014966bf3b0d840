"""What a user reads who has not installed everything: one clear line from every command and node, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "conversation.flac"

# Python imports a module of this name at every start, also in child processes.
HIDE = """
import os, sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in os.environ["HIDDEN"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
"""


@pytest.fixture
def hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Hides the modules named in HIDDEN from the processes that the test starts."""
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(HIDE)
    kept = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "hide"), *([kept] if kept else [])]))
    return monkeypatch


def told(command: list[str | Path], cwd: Path) -> str:
    """The line with which a command ends, with exit code 2."""
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()[-1]


def timar(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "timar_ros.cli.main", *arguments]


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("torch", ["generate", "--user", SAMPLE, "--agent", SAMPLE, "--out", "made.npz"]),
        ("transformers", ["bench", "--size", "mini"]),
        ("torch", ["bench"]),
        ("torch", ["evaluate", "--data", ".", "--model", "."]),
        ("rclpy", ["demo"]),
        ("rclpy", ["up"]),
        ("rclpy", ["record", "bag"]),
        ("yaml", ["robots", "show", "nao"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_command_says_what_to_install(
    module: str, command: list[str], hidden: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hidden.setenv("HIDDEN", module)
    line = told(timar(*command), tmp_path)
    assert line.startswith("timar")
    assert module in line.lower()
    assert "pip install" in line or "docs/installation.md" in line


def test_help_needs_neither_torch_nor_ros(hidden: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hidden.setenv("HIDDEN", "torch,transformers,safetensors,rclpy,mujoco,sounddevice,accelerate,launch,sklearn")
    shown = subprocess.run(timar("--help"), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "generate" in shown.stdout


def executable(name: str) -> Path:
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(":"), sys.prefix]
    found = [path for prefix in prefixes if (path := Path(prefix, "lib", "timar_ros", name)).is_file()]
    if not found:
        pytest.skip(f"timar_ros is not installed: no lib/timar_ros/{name}")
    return found[0]


@pytest.mark.parametrize(
    ("module", "node"),
    [("rclpy", "audio_source"), ("soxr", "turn_segmenter"), ("ruckig", "retarget"), ("yaml", "head_simulator")],
)
def test_a_node_says_what_to_install(module: str, node: str, hidden: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hidden.setenv("HIDDEN", module)
    line = told([executable(node)], tmp_path)
    assert line.startswith(f"{node}: error: ")
    assert module in line.lower()


@pytest.mark.parametrize("module", ["torch"])
def test_inference_without_torch_fails_to_configure_and_says_why(
    module: str, hidden: pytest.MonkeyPatch, tmp_path: Path, ros_domain: int
) -> None:
    rclpy = pytest.importorskip("rclpy")
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState, GetState

    hidden.setenv("HIDDEN", module)
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen([executable("timar_inference")], stdout=out, stderr=out, cwd=tmp_path)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node("asker", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    asked: list[str] = []
    try:

        def ask(kind: type, name: str, request: object) -> object:
            client = node.create_client(kind, f"timar_inference/{name}")
            until = time.monotonic() + 120
            while not client.wait_for_service(timeout_sec=0.5):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, "no service"
            # DDS may drop the answer of a server that does not know the asker yet: then the question is asked again.
            while True:
                assert time.monotonic() < until, "no answer"
                asked.append(name)
                future = client.call_async(request)
                executor.spin_until_future_complete(future, timeout_sec=20)
                if future.done():
                    return future.result()

        configure = Transition(id=Transition.TRANSITION_CONFIGURE)
        assert not ask(ChangeState, "change_state", ChangeState.Request(transition=configure)).success
        assert ask(GetState, "get_state", GetState.Request()).current_state.label == "unconfigured"
    finally:
        process.terminate()
        process.wait(30)
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    lines = [line for line in log.read_text().splitlines() if module in line]
    assert 1 <= len(lines) <= asked.count("change_state")  # one each time, and only a lost answer is asked for again
    assert all("pip install" in line for line in lines)
    assert "Traceback" not in log.read_text()
