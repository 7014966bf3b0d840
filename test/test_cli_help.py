"""The commands' help as a new user reads it: examples that parse, defaults in words, a missing speaker is silence."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from timar_ros.cli.main import EXAMPLES, build_parser, main, subcommands
from timar_ros.data.audio_files import write_audio


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_is_a_valid_command(line: str) -> None:
    program, *arguments = shlex.split(line)
    assert program == "timar"
    assert build_parser().parse_args(arguments).command in EXAMPLES


@pytest.mark.parametrize("name", sorted(set(subcommands()) & set(EXAMPLES)))
def test_help_has_examples_and_no_python_values(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert EXAMPLES[name][0] in text
    for value in ("default: [", "default: True", "default: False", "default: None"):
        assert value not in text
    assert "SUPPRESS" not in text


def test_summaries_are_in_one_style() -> None:
    import importlib

    for name in subcommands():
        summary = importlib.import_module(f"timar_ros.cli.{name}").SUMMARY
        assert not summary.endswith("."), name
        assert summary[0].islower(), name


def test_a_missing_speaker_is_silence(tmp_path: Path) -> None:
    sound = np.sin(np.arange(32000) / 20).astype(np.float32) * 0.1
    write_audio(tmp_path / "a.wav", sound)
    write_audio(tmp_path / "silence.wav", np.zeros_like(sound))
    for name, more in (("one", []), ("two", ["--user", str(tmp_path / "silence.wav")])):
        command = ["generate", "--agent", str(tmp_path / "a.wav"), *more, "--out", str(tmp_path / f"{name}.npz")]
        assert main([*command, "--model", "random-mini", "--quiet"]) == 0
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        np.testing.assert_array_equal(one["exp"], two["exp"])


def test_no_sound_at_all_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--out", "x.npz"]) == 2
    assert "no audio: give --user, --agent or both" in capsys.readouterr().err
