"""`timar film`: pictures of the conversation with its sound."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("PIL")

import imageio_ffmpeg
from support import bag_factory as factory
from support.browser import CHROMIUM

from timar_ros.cli.main import main
from timar_ros.evaluation.report import film_page

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt install chromium)")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "bag"
    factory.write_bag(path, 5.0, info={"trained": True})
    return path


@needs_browser
def test_a_film_has_pictures_sound_and_a_gif(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film, gif = tmp_path / "talk.mp4", tmp_path / "talk.gif"
    cut = ["--begin", "3.2", "--end", "4.2", "--rate", "10", "--width", "480", "--height", "270"]
    assert main(["film", str(bag), "--out", str(film), "--gif", str(gif), *cut]) == 0
    assert "talk.mp4" in capsys.readouterr().out
    reader = imageio_ffmpeg.read_frames(str(film))
    facts = next(reader)
    assert (facts["size"], facts["fps"], facts["audio_codec"]) == ((480, 270), 10.0, "aac")
    pictures = np.stack([np.frombuffer(frame, np.uint8).reshape(270, 480, 3) for frame in reader]).astype(float)
    assert len(pictures) == 10
    # Heads are drawn, they move, and the caption stands where it belongs: dark, on a bright stage.
    assert pictures[0].std() > 20
    assert np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2, 3)).min() > 0.02
    assert pictures[0][245:255, 215:265].min() < 80
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", film, "-f", "f32le", "-ac", "2", "-"]
    sound = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32).reshape(-1, 2)
    loudness = np.sqrt(np.square(sound).mean(axis=0))
    # The robot speaks in this second: rather on the right.
    assert loudness[1] > 1.3 * loudness[0] > 0.01
    assert gif.read_bytes()[:6] == b"GIF89a"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--begin", "9"], "is no stretch of bag"),
        (["--begin", "3", "--end", "2"], "is no stretch of bag"),
        (["--width", "321"], "both must be even"),
        (["--rate", "0"], "--rate 0: must be from 1 to 60"),
        (["--out", "talk.avi"], "films are MP4"),
        (["--robot", "hal9000"], "no robot 'hal9000'"),
        (["--urdf", "nowhere.urdf"], "cannot read the URDF nowhere.urdf"),
    ],
)
def test_bad_input_ends_with_2_and_leaves_nothing(
    bag: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(film_page, "CHROMIUM", CHROMIUM or "chromium")
    assert main(["film", str(bag), "--out", "talk.mp4", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("timar film: error: ")
    assert words in said
    assert not list(tmp_path.iterdir())


def test_without_a_browser_it_says_what_to_install(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_page, "CHROMIUM", None)
    assert main(["film", str(bag), "--out", str(tmp_path / "talk.mp4")]) == 2
    assert "apt install chromium" in capsys.readouterr().err
