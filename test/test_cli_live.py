"""`timar live` as somebody meets it: the command, the page in a browser, a microphone, and the head that moves."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("rclpy")
pytest.importorskip("torch")
pytest.importorskip("websockets")

from support.browser import CHROMIUM, Browser
from support.ros_bench import PATIENCE

from timar_ros.cli.live import chosen_options
from timar_ros.cli.main import build_parser, main
from timar_ros.resources import share

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt install chromium)")


@contextlib.contextmanager
def live(out: Path, *arguments: str) -> Iterator[str]:
    """The running command; its page's address. Ends with Ctrl-C, and must end well."""
    command = [sys.executable, "-u", "-m", "timar_ros.cli.main", "live", "--no-browser", "--out", str(out), *arguments]
    # A line of the address may be long: the console must not break it.
    environment = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as made:
        try:
            said = []
            for line in made.stdout or ():
                said.append(line)
                if found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line):
                    yield found[0]
                    break
            else:
                pytest.fail(f"no address: {''.join(said)}")
        finally:
            made.send_signal(signal.SIGINT)
            try:
                assert made.wait(timeout=PATIENCE) == 0
            finally:
                made.kill()


@needs_browser
def test_a_voice_at_the_browsers_microphone_moves_the_robots_jaw(ros_domain: int, tmp_path: Path) -> None:
    agent, rate = soundfile.read(share("samples", "conversation.flac"), dtype="float32")
    voice = agent[:, 1]
    loud = np.abs(voice) > 0.02
    first = max(0, int(np.argmax(loud)) - rate // 2)
    soundfile.write(tmp_path / "voice.wav", voice[first : first + 8 * rate], rate, subtype="PCM_16")
    flags = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={tmp_path / 'voice.wav'}",
    ]
    # The smaller model: on two busy cores the browser draws without a GPU and leaves the graph little time.
    arguments = ("--source", "topics", "--mode", "reactive", "--model", share("models", "timar-mini-frame"))
    with live(tmp_path / "live", *arguments) as address, Browser(1240, 1000, more=flags) as browser:
        browser.open(address)
        browser.until("document.querySelectorAll('.slot').length === 3", "the heads")
        browser.until("timar.now().robot.known", "joint states")
        assert browser.run("Object.keys(timar.now().robot.joints).length") == 6
        assert browser.run("timar.now().robot.pose[3]") < 0.02
        browser.run("document.querySelector('#microphone [data-role=agent]').click()")
        browser.until("timar.now().robot.pose[3] > 0.06", "the robot's jaw to open")
        browser.until("timar.now().agent.speaking", "the model to know that it speaks")
        browser.screenshot(tmp_path / "live.png")
        # What a page may send, and what it may not.
        browser.run("timar.link.send({do: 'style', name: 'speaking_gain', value: 0.5})")
        browser.until("document.querySelector('#toast').textContent.includes('speaking_gain')", "the answer")
        browser.run("timar.link.send({do: 'style', name: 'speaking_gain', value: 1e9})")
        browser.until("document.querySelector('#toast').textContent.includes('from 0 to 2')", "the refusal")
        browser.run("document.getElementById('reset').click()")
        browser.until("document.querySelector('#toast').textContent.includes('new conversation')", "the reset")
        browser.run("document.getElementById('record').click()")
        browser.until("document.getElementById('record').textContent === 'Recording'", "the recording")
        deadline = time.monotonic() + PATIENCE
        while not list((tmp_path / "live").glob("bag-*/*.mcap")):
            assert time.monotonic() < deadline, "no bag was begun"
            time.sleep(0.05)
        browser.run("document.getElementById('record').click()")
        browser.until("document.getElementById('record').textContent === 'Record'", "the recording's end")
        assert not browser.complaints
        assert {request.split("/")[2] for request in browser.requests} == {address.split("/")[2]}
    assert (tmp_path / "live.png").stat().st_size > 20_000
    assert list((tmp_path / "live").glob("bag-*/metadata.yaml"))


def test_without_a_source_the_sample_is_played() -> None:
    def options(*arguments: str) -> object:
        return chosen_options(build_parser().parse_args(["live", *arguments]))

    plain = options()
    assert (plain.source, plain.sim, plain.mode, plain.page) == ("recording", "builtin", "rolling", True)
    assert plain.recording.endswith("conversation.flac")
    own = options("--user", "u.wav", "--agent", "a.wav", "--robot", "nao")
    assert (own.source, own.recording, own.user, own.robot) == ("recording", "", "u.wav", "nao")
    assert options("--source", "microphone").recording == ""
    assert options("--command-topic", "profile").sim == "none"
    assert plain.user_motion.endswith("conversation_user.npz")
    seen = options("--tracker", "camera")
    assert (seen.tracker, seen.recording, seen.user_motion) == ("camera", plain.recording, "")


def test_bad_input_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["live", "--port", "70000"]) == 2
    assert capsys.readouterr().err.startswith("timar live: error: --port 70000")
