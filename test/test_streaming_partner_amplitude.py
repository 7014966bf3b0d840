"""The own liveliness follows the partner's tracked head, within bounds; the dial is monotone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_models import tiny_model

from timar_ros.errors import UserError
from timar_ros.motion import HEAD, MOTION_RATE
from timar_ros.streaming.conversation import Conversation
from timar_ros.streaming.partner_amplitude import LEAST, MOST, PartnerAmplitude
from timar_ros.streaming.pipeline import Pipeline
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.turns.turn_types import TurnInput

AVERAGE = 0.05


def moving(deviation: float, seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """Motion ``[T, 56]`` of somebody whose head's angles have a deviation [rad]."""
    frames = np.zeros((round(seconds * MOTION_RATE), 56), np.float32)
    frames[:, HEAD] = deviation * np.random.default_rng(seed).standard_normal((len(frames), 3))
    return frames


def test_a_partner_is_followed_within_bounds() -> None:
    factors = [PartnerAmplitude(AVERAGE).push(moving(AVERAGE * size, 10)) for size in (0.1, 0.7, 1.0, 1.3, 5.0)]
    np.testing.assert_allclose(factors, [LEAST, 0.7, 1.0, 1.3, MOST], rtol=0.1)


def test_what_is_not_tracked_says_nothing_and_little_says_little() -> None:
    partner = PartnerAmplitude(AVERAGE)
    assert partner.push(None) == 1.0
    assert partner.push(np.full((25, 56), np.nan, np.float32)) == 1.0
    first = partner.push(moving(3 * AVERAGE, 1))
    assert 1.0 < first < 1.3
    later = [partner.push(moving(3 * AVERAGE, 1, seed)) for seed in range(12)]
    assert later[-1] == MOST
    partner.reset()
    assert partner.push(None) == 1.0


def test_memory_is_ten_seconds_and_can_be_kept() -> None:
    partner, other = PartnerAmplitude(AVERAGE), PartnerAmplitude(AVERAGE)
    partner.push(moving(5 * AVERAGE, 30))
    other.load_state_dict(partner.state_dict())
    assert other.push(None) == partner.push(None) == MOST
    assert partner.push(moving(0.7 * AVERAGE, 10)) == pytest.approx(0.7, rel=0.1)


def test_a_pipeline_moves_more_with_a_lively_partner_unless_told_not_to() -> None:
    model = tiny_model(head="joint", joint_coefficients=4)
    model.joint_style.copy_(model.joint_style.new_tensor([np.log(AVERAGE), 0.4]))
    silence = np.zeros(model.config.turn_samples, np.float32)

    def amplitude(size: float, follow_partner: bool = True) -> float:
        pipeline = Pipeline(model, PipelineOptions(follow_partner=follow_partner))
        seen = moving(size * AVERAGE, 12).reshape(-1, model.config.turn_frames, 56)
        for number, frames in enumerate(seen):
            pipeline.step(TurnInput(number, number * 10**9, model.config.turn_seconds, silence, silence, frames))
        return pipeline._turns.amplitudes[0]

    assert amplitude(0.2) == LEAST
    assert amplitude(4.0) == MOST
    assert amplitude(4.0, follow_partner=False) == 1.0


def test_liveliness_is_refused_by_a_model_without_a_dial() -> None:
    with pytest.raises(UserError, match="no joint head"):
        Pipeline(tiny_model()).check_style(liveliness=1.5)


def test_the_dial_of_the_model_that_ships_is_monotone() -> None:
    from timar_ros.streaming.offline import resolve_model

    model = resolve_model()
    rng = np.random.default_rng(3)
    speech = rng.standard_normal((2, 8, model.config.turn_samples)).astype(np.float32)
    sizes = []
    for liveliness in (0.3, 0.6, 1.0, 1.5, 2.0):
        talk = Conversation(model, seed=1, liveliness=liveliness)
        made = [talk.step(user, agent, None) for user, agent in zip(*speech, strict=True)]
        sizes.append(np.concatenate(made)[:, HEAD].std(0).mean())
    assert (np.diff(sizes) > 0).all(), sizes
    assert sizes[-1] > 2 * sizes[0]
