"""`timar study`: the page is blind and whole, people can use it, and their ratings are analysed as they were given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import CHROMIUM, Browser

from timar_ros.cli.main import main
from timar_ros.errors import UserError
from timar_ros.evaluation.judge import baselines
from timar_ros.evaluation.metrics.believable import Talk
from timar_ros.evaluation.study.study_analysis import analyse
from timar_ros.evaluation.study.study_page import key_path, write_study

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt install chromium)")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "study.html"
    rng = np.random.default_rng(0)
    user, agent = 0.1 * rng.standard_normal((2, 4 * 16000)).astype(np.float32)
    write_study(baselines(), [Talk("one", user, agent), Talk("two", agent, user)], out, seconds=1.2, seed=0)
    return out


def key_of(page: Path) -> dict[str, Any]:
    return dict(json.loads(key_path(page).read_text()))


def ratings(page: Path, file: Path, rate: Callable[[str], float], attentive: bool = True) -> Path:
    """A person's file, in which every system gets what ``rate`` says."""
    key = key_of(page)
    answers: list[dict[str, Any]] = [
        {"trial": name, "ratings": {"alive": rate(trial["system"])}} for name, trial in key["trials"].items()
    ]
    answers.append({"check": 3, "ratings": {"alive": 3 if attentive else 4}})
    given = {"format": "timar study 1", "study": key["study"], "participant": file.stem, "answers": answers}
    file.write_text(json.dumps(given))
    return file


def test_the_page_needs_nothing_and_names_nobody(page: Path) -> None:
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "")
    for name in ("procedural", "wobbler", "one_", "@STUDY@"):
        assert name not in text
    trials = key_of(page)["trials"]
    assert sorted(t["system"] for t in trials.values()) == ["procedural"] * 2 + ["wobbler"] * 2
    # Neither is the order in the file by system.
    assert [t["system"] for t in trials.values()] != sorted(t["system"] for t in trials.values())


def test_the_same_seed_gives_the_same_page(page: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    user, agent = 0.1 * rng.standard_normal((2, 4 * 16000)).astype(np.float32)
    again = tmp_path / "study.html"
    write_study(baselines(), [Talk("one", user, agent), Talk("two", agent, user)], again, seconds=1.2, seed=0)
    assert again.read_bytes() == page.read_bytes()


def test_ratings_become_means_intervals_and_differences(page: Path, tmp_path: Path) -> None:
    better = {"procedural": 5.0, "wobbler": 2.0}
    files = [
        ratings(page, tmp_path / f"p{n}.json", {name: value + n % 3 - 1 for name, value in better.items()}.__getitem__)
        for n in range(9)
    ]
    files.append(ratings(page, tmp_path / "asleep.json", lambda _: 7.0, attentive=False))
    found = analyse(files, key_path(page))
    assert (found.people, found.inattentive) == (9, 1)
    mean = found.systems["alive"]["procedural"]
    assert mean.mean == pytest.approx(5.0)
    assert 4.3 < mean.low < 5.0 < mean.high < 5.7
    difference = found.pairs["alive"]["procedural", "wobbler"]
    # Everybody's own difference is 3: how strictly a person rates does not blur it.
    assert (difference.mean, difference.low, difference.high) == pytest.approx((3.0, 3.0, 3.0))


def test_bad_input_is_one_clear_line(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ratings(page, tmp_path / "p.json", lambda _: 4.0)
    with pytest.raises(UserError, match="twice"):
        analyse([file, file], key_path(page))
    with pytest.raises(UserError, match="nobody"):
        analyse([ratings(page, tmp_path / "q.json", lambda _: 4.0, attentive=False)], key_path(page))
    other = json.loads(file.read_text()) | {"study": "another"}
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="another study"):
        analyse([tmp_path / "other.json"], key_path(page))
    for arguments, words in (
        (["procedural"], "two systems"),
        (["procedural", "procedural"], "each once"),
        (["procedural", "wobbler", "--seconds", "0"], "seconds"),
        (["--analyse", str(file)], "--key"),
        (["--analyse", str(page), "--key", str(key_path(page))], "a web page, not the file itself"),
    ):
        out = tmp_path / "new.html"
        assert main(["study", *arguments, "--out", str(out)]) == 2
        assert words in capsys.readouterr().err
        assert not out.exists()


def test_the_command_prints_what_was_found(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(ratings(page, tmp_path / f"p{n}.json", lambda _: 3.0)) for n in range(4)]
    assert main(["study", "--analyse", *files, "--key", str(key_path(page))]) == 0
    printed = capsys.readouterr().out
    assert "4 people" in printed
    assert "procedural - wobbler" in printed


@needs_browser
def test_a_person_rates_every_trial_in_a_browser(page: Path, tmp_path: Path) -> None:
    with Browser() as browser:
        browser.open(page)
        browser.run("document.getElementById('begin').click()")
        drawn = 0
        for _ in range(5):
            check = browser.run("studyState.trials[studyState.trial].check ?? 0")
            for name in ("alive", "listens", "lips"):
                browser.run(f"document.querySelector(\"input[name='{name}'][value='{check or 4}']\").click()")
            if not check:
                assert browser.run("document.getElementById('next').disabled"), "rated before it was seen"
                browser.run("document.getElementById('play').click()")
                browser.until("studyState.frame > 10", "the head to move")
                pixels = "document.querySelector('canvas').getContext('2d').getImageData(0, 0, 520, 440).data"
                drawn += browser.run(f"new Set({pixels}).size") > 20
                browser.until("!document.getElementById('next').disabled", "the end of the trial")
            browser.run("document.getElementById('next').click()")
        result = browser.run("studyState.result")
        assert browser.run("document.getElementById('save').download").startswith("ratings-")
        assert not browser.complaints
        assert all(address.startswith(("file:", "data:", "blob:")) for address in browser.requests)
    assert drawn == 4
    file = tmp_path / "person.json"
    file.write_text(json.dumps(result))
    found = analyse([file], key_path(page))
    assert (found.people, found.inattentive) == (1, 0)
    assert found.systems["lips"]["wobbler"].mean == 4.0
