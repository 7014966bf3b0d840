"""The joint head's mechanics: reproducible, restorable, the same from either engine, joined at turns' borders."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_models import random_turn, tiny_model

from timar_ros.errors import UserError
from timar_ros.model import TimarConfig
from timar_ros.model.joint import SHOWN, JointHead, sines
from timar_ros.streaming import Conversation
from timar_ros.streaming.offline import resolve_model

MODEL = tiny_model(head="joint", joint_width=32, joint_depth=2)
HEAD = slice(53, 56)


def run(talk: Conversation, seeds: range) -> list[np.ndarray]:
    out = []
    for seed in seeds:
        turn = random_turn(seed)
        out.append(talk.step(turn.user_speech, turn.agent_speech, turn.user_motion))
    return out


def test_same_seed_same_bytes_and_another_seed_another_head() -> None:
    first, second = (run(Conversation(MODEL, seed=5), range(3)) for _ in range(2))
    assert [turn.tobytes() for turn in first] == [turn.tobytes() for turn in second]
    other = run(Conversation(MODEL, seed=6), range(1))[0]
    assert np.abs(other[:, HEAD] - first[0][:, HEAD]).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"liveliness": 0.5}, {"mask_history_agent": False}])
def test_cached_equals_oracle(options: dict[str, Any]) -> None:
    cached, oracle = (
        run(Conversation(MODEL, seed=3, context_seconds=3, engine=engine, **options), range(6))
        for engine in ("cached", "oracle")
    )
    np.testing.assert_allclose(cached, oracle, atol=2e-5)


def test_restored_conversation_goes_on_from_the_same_pose() -> None:
    talk = Conversation(MODEL, seed=8, context_seconds=3)
    run(talk, range(3))
    file = io.BytesIO()
    np.savez(file, **talk.state_dict())
    file.seek(0)
    other = Conversation(MODEL, seed=1, context_seconds=3)
    with np.load(file, allow_pickle=False) as state:
        other.load_state_dict(dict(state))
    for a, b in zip(run(talk, range(3, 6)), run(other, range(3, 6)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_damaged_poses_are_refused() -> None:
    talk = Conversation(MODEL, seed=0)
    run(talk, range(2))
    state = talk.state_dict()
    with pytest.raises(UserError, match=r"poses of shape \[3, 3\]: damaged"):
        Conversation(MODEL).load_state_dict({**state, "shown": state["shown"][:3]})


def test_reset_forgets_the_pose() -> None:
    talk = Conversation(MODEL, seed=0)
    first = run(talk, range(2))
    talk.reset()
    np.testing.assert_allclose(run(talk, range(2)), first, atol=1e-5)


def test_a_turn_goes_on_from_what_was_shown() -> None:
    """Also where something else was shown than was drawn: a gesture, or a turn that came too late."""
    turn = random_turn(1)
    shown = np.zeros((SHOWN, 56), np.float32)
    shown[:, HEAD] = 0.5
    made = []
    for poses in (shown, shown + 0.2):
        talk = Conversation(MODEL, seed=2)
        turn.shown = poses
        made.append(talk.batch.step([turn])[0])
    # The coefficients differ, since the network knows of the poses; the sines begin at the pose nevertheless.
    assert np.abs(made[1][0, HEAD] - made[0][0, HEAD]).max() > 0.05


def test_no_coefficient_moves_the_frame_before_the_turn() -> None:
    rows = sines(14, 25, torch.device("cpu"))
    np.testing.assert_allclose(rows @ rows.T, np.eye(14), atol=1e-5)
    # Sines in (frame + 1): at the frame before the first they are 0, and small on the first.
    slow = rows[0]
    assert abs(float(slow[0])) < 0.1 * float(slow.max())
    assert float(slow[-1]) == pytest.approx(float(slow.max()), rel=1e-3)


def test_encode_and_decode_are_inverse_for_smooth_movement() -> None:
    head = JointHead(25, 32, 32, 1, 25)
    poses, last = torch.randn(4, 25, 3), torch.randn(4, 3)
    scale = torch.rand(25, 3) + 0.5
    back = head.decode(head.encode(poses, last, scale), last, scale)
    torch.testing.assert_close(back, poses, atol=1e-4, rtol=1e-4)


def test_noise_and_liveliness_reach_the_head_alone() -> None:
    plain = run(Conversation(MODEL, seed=4), range(1))[0]
    lively = run(Conversation(MODEL, seed=4, liveliness=2.0), range(1))[0]
    np.testing.assert_array_equal(plain[:, :53], lively[:, :53])
    assert np.abs(plain[:, HEAD] - lively[:, HEAD]).max() > 1e-4


@pytest.mark.parametrize("value", [0.2, 2.5, float("nan")])
def test_liveliness_beyond_its_range_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="liveliness"):
        Conversation(MODEL, liveliness=value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head": "round"}, "head = 'round'"),
        ({"head": "joint", "joint_coefficients": 26}, "joint_coefficients"),
        ({"head": "joint", "diffusion": False}, "diffusion"),
    ],
)
def test_configurations_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TimarConfig(**changes)


def test_the_loss_teaches_it_to_hit_its_target() -> None:
    """A hundred steps on four turns: the error falls well below that of the mean, which is about 2."""
    torch.manual_seed(0)
    head = JointHead(25, 16, 64, 2, 8)
    generator = torch.Generator().manual_seed(0)
    poses, z = 0.1 * torch.randn(4, 25, 3).cumsum(1), torch.randn(4, 25, 16)
    shown, style = torch.zeros(4, SHOWN, 3), torch.zeros(4)
    scale = torch.ones(8, 3)
    optimiser = torch.optim.Adam(head.parameters(), 2e-3)
    losses = []
    for _ in range(100):
        loss = head.loss(poses, z, shown, style, scale, generator, 4).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("count", [3, 20])
def test_a_movement_goes_through_the_poses_that_are_known(count: int, guidance: float) -> None:
    """With the shipped model: random weights know no movement."""
    model, generator = resolve_model("timar-mini", inference=False), torch.Generator().manual_seed(4)
    z = torch.randn((4, 1 if guidance == 1.0 else 2, 25, model.config.encoder_width), generator=generator)
    given = (z, torch.zeros((4, SHOWN, 3)), torch.zeros(4))
    noise, other_noise = torch.randn((2, 4, model.config.joint_coefficients, 3), generator=generator)
    with torch.inference_mode():
        free, other = (model.sample_head(*given, each, guidance) for each in (noise, other_noise))
        gain, none = (torch.from_numpy(model.known_gain(n)).expand(4, -1, -1, -1) for n in (count, 0))
        bound = model.sample_head(*given, noise, guidance, (other, gain))
        unbound = model.sample_head(*given, noise, guidance, (other, none))
    torch.testing.assert_close(unbound, free, atol=1e-5, rtol=1e-4)
    before, after = ((each - other)[:, :count].square().mean().sqrt() for each in (free, bound))
    assert after < 0.15 * before
    # The rest of the movement is its own.
    assert (bound - other)[:, -1].abs().max() > 0.1 * (free - other)[:, -1].abs().max()
