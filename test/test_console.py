"""What long work prints where there is no terminal."""

from __future__ import annotations

import pytest

from timar_ros import console


class Clock:
    """Seconds that pass only when the test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        """The time [s]."""
        return self.now


def test_without_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(console.time, "monotonic", clock.monotonic)
    assert not console.stderr.is_terminal
    with console.progress() as bar:
        task = bar.add_task("reading [files]", total=200)
        for _ in range(61):
            clock.now += 1.0
            bar.advance(task)
        endless = bar.add_task("listening", total=None)
        clock.now += 30.0
        bar.update(endless, completed=7)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "reading [files]: 30 of 200",
        "reading [files]: 60 of 200",
        "listening: 7",
    ]


def test_an_invisible_task_prints_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    monkeypatch.setattr(console.time, "monotonic", clock.monotonic)
    with console.progress() as bar:
        task = bar.add_task("another process", total=10, visible=False)
        clock.now += 100.0
        bar.update(task, completed=5)
    assert capsys.readouterr().err == ""
