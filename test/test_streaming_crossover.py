"""The head's two bands: which movement passes, joined turns, and nothing that is not finite stays."""

from __future__ import annotations

import numpy as np
import pytest

from timar_ros.streaming.crossover import ORDER, HeadCrossover

RATE, TURN = 25.0, 25


def motion(values: np.ndarray) -> np.ndarray:
    """Frames ``[T, 56]`` whose head pose is ``values [T]`` in all three columns, and the rest noise."""
    made = np.random.default_rng(0).normal(size=(len(values), 56))
    made[:, 53:] = values[:, None]
    return made.astype(np.float32)


def wave(hertz: float, seconds: int = 40) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(seconds * RATE) / RATE)


def crossed(crossover: HeadCrossover, drawn: np.ndarray, expected: np.ndarray, turn: int = TURN) -> np.ndarray:
    pairs = ((drawn[i : i + turn], expected[i : i + turn]) for i in range(0, len(drawn), turn))
    return np.concatenate([crossover.apply(*pair) for pair in pairs])


def gain(made: np.ndarray, hertz: float) -> float:
    """Amplitude of a wave of unit amplitude in what came out, the beginning left out."""
    settled = made[10 * TURN :, 53].astype(np.float64)
    phase = np.exp(-2j * np.pi * hertz * np.arange(len(settled)) / RATE)
    return float(2 * np.abs(np.mean(settled * phase)))


# Third order at 0.7 Hz: the share of a wave that passes is (1 + (f / 0.7 Hz)^6)^(-1/2).
@pytest.mark.parametrize(("hertz", "passes"), [(0.1, 1.0), (0.7, 0.707), (1.4, 0.124), (2.0, 0.043), (4.0, 0.005)])
def test_drawn_movement_passes_when_slow(hertz: float, passes: float) -> None:
    still = motion(np.zeros(1000))
    made = crossed(HeadCrossover(0.7, 2.0, RATE), motion(wave(hertz)), still)
    assert gain(made, hertz) == pytest.approx(passes, abs=0.01)


@pytest.mark.parametrize("emphasis", [1.0, 2.0])
def test_expected_movement_passes_when_fast_and_is_emphasised(emphasis: float) -> None:
    nods = motion(wave(3.0))  # drawn as expected, without any noise
    made = crossed(HeadCrossover(0.7, emphasis, RATE), nods, nods)
    assert gain(made, 3.0) == pytest.approx(emphasis, rel=0.02)
    if emphasis == 1.0:
        np.testing.assert_allclose(made, nods, atol=1e-6)


def test_a_head_at_rest_stays_where_it_is() -> None:
    aside, ahead = motion(np.full(100, 0.3)), motion(np.full(100, -0.1))
    made = crossed(HeadCrossover(0.7, 3.0, RATE), aside, ahead)
    np.testing.assert_allclose(made, aside, atol=1e-6)


def test_turns_make_one_movement() -> None:
    rng = np.random.default_rng(1)
    drawn, expected = motion(rng.normal(size=200)), motion(rng.normal(size=200))
    whole, parts = (crossed(HeadCrossover(1.0, 2.0, RATE), drawn, expected, turn) for turn in (200, 25))
    np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_other_columns_and_inputs_are_untouched() -> None:
    drawn, expected = motion(wave(2.0, 1)), motion(wave(1.0, 1))
    before = drawn.copy(), expected.copy()
    made = HeadCrossover(0.7, 2.0, RATE).apply(drawn, expected)
    np.testing.assert_array_equal(made[:, :53], drawn[:, :53])
    np.testing.assert_array_equal((drawn, expected), before)
    assert made.dtype == np.float32


def test_zero_is_as_drawn() -> None:
    drawn, expected = motion(wave(2.0, 1)), motion(wave(1.0, 1))
    assert HeadCrossover(0.0, 2.0, RATE).apply(drawn, expected) is drawn


@pytest.mark.parametrize("broken", ["drawn", "expected"])
def test_what_is_not_finite_goes_by_without_a_trace(broken: str) -> None:
    one, other = HeadCrossover(0.7, 2.0, RATE), HeadCrossover(0.7, 2.0, RATE)
    turn, after = motion(wave(1.0, 1)), motion(wave(0.5, 1))
    bad = {"drawn": turn.copy(), "expected": turn.copy()}
    bad[broken][3, 54] = np.nan
    for crossover in (one, other):
        crossover.apply(turn, turn)
    passed = one.apply(bad["drawn"], bad["expected"])
    np.testing.assert_array_equal(passed, bad["drawn"])
    np.testing.assert_array_equal(one.apply(after, after), other.apply(after, after))


def test_state_and_reset() -> None:
    rng = np.random.default_rng(2)
    turns = [(motion(rng.normal(size=25)), motion(rng.normal(size=25))) for _ in range(3)]
    one, other = HeadCrossover(0.7, 2.0, RATE), HeadCrossover(0.7, 2.0, RATE)
    first = one.apply(*turns[0])
    one.apply(*turns[1])
    other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one.apply(*turns[2]), other.apply(*turns[2]))
    for forgetful, forget in ((one, one.reset), (other, lambda: other.load_state_dict({"state": np.zeros((0, 3))}))):
        forget()
        np.testing.assert_array_equal(forgetful.apply(*turns[0]), first)
    with pytest.raises(ValueError, match="reshape"):
        one.load_state_dict({"state": np.zeros((ORDER, 3))})
