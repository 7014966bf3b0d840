"""Rolling turns: interleaved grids, absolute noise, one answer however the work is shared."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_models import tiny_model

from timar_ros.errors import UserError
from timar_ros.model import Timar
from timar_ros.streaming import Conversation
from timar_ros.streaming.engine.cached import CachedEngine
from timar_ros.streaming.noise import turn_noise
from timar_ros.streaming.offline import resolve_model
from timar_ros.streaming.rolling import Hop, RollingBatch

H, MARGIN, LOOK = 5, 3, 10
FRAME = 640
HOPS = 24


@pytest.fixture(scope="module")
def model() -> Timar:
    return tiny_model()


def conversation(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """User's and agent's normalised speech and the user's motion, a little longer than HOPS hops."""
    random = np.random.default_rng(seed)
    frames = HOPS * H + 25
    user, agent = random.standard_normal((2, frames * FRAME), dtype=np.float32)
    return user, agent, 0.1 * random.standard_normal((frames, 56), dtype=np.float32)


def hop(data: tuple[NDArray[np.float32], ...], number: int, ahead: bool) -> Hop:
    user, agent, motion = data
    a, b = number * H, (number + 1) * H
    known = agent[b * FRAME : (b + LOOK) * FRAME] if ahead else None
    return Hop(user[a * FRAME : b * FRAME], agent[a * FRAME : b * FRAME], motion[a:b], known, number)


def rolling(model: Timar, seeds: list[int], engine: str = "cached") -> RollingBatch:
    return RollingBatch(model, len(seeds), hop_frames=H, margin_frames=MARGIN, seed=seeds, engine=engine)


def shown(batch: RollingBatch, data: tuple[NDArray[np.float32], ...], ways: list[bool]) -> NDArray[np.float32]:
    made = []
    for number, ahead in enumerate(ways):
        made.append(batch.step([hop(data, number, ahead)])[0])
        batch.prepare()
    return np.stack(made)


@pytest.mark.parametrize("engine", ["cached", "oracle"])
def test_the_grids_are_as_many_separate_conversations(model: Timar, engine: str) -> None:
    """Five conversations, each on its own grid, with noise of absolute time, show the same frames."""
    data, seed = conversation(1), 7
    ways = [number % 9 < 5 for number in range(HOPS)]  # both ways, and changes between them
    made = shown(rolling(model, [seed], engine), data, ways)
    config, grids = model.config, 25 // H
    talks = [Conversation(model, seed=seed) for _ in range(grids)]
    correlations = {
        "correlation": config.motion_rate * config.noise_correlation,
        "head_correlation": config.motion_rate * config.head_noise_correlation,
    }

    def noise(first: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        parts = [turn_noise(seed, first + k, config.sampling_steps, H, **correlations) for k in range(grids)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts], axis=1)

    def past(values: NDArray[np.float32], end: int, size: int, fill: float) -> NDArray[np.float32]:
        begin = (end - 25) * size
        missing = np.full((max(-begin, 0), *values.shape[1:]), fill, np.float32)
        return np.concatenate([missing, values[max(begin, 0) : end * size]])

    user, agent, motion = data
    for number, ahead in enumerate(ways):
        end, talk, turn = (number + 1) * H, talks[number % grids], number // grids
        turn_data = (past(user, end, FRAME, 0), past(agent, end, FRAME, 0), past(motion, end, 1, np.nan))
        if ahead:
            talk.observe(*turn_data, number=turn)
            known = np.zeros(25 * FRAME, np.float32)
            known[: LOOK * FRAME] = agent[end * FRAME : (end + LOOK) * FRAME]
            wanted = talk.plan(known, noise=noise(number + 1), number=turn + 1)[MARGIN : MARGIN + H]
        else:
            wanted = talk.step(*turn_data, noise=noise(number + 1 - grids), number=turn)[-H:]
        talk.prepare()
        np.testing.assert_allclose(made[number], wanted, atol=1e-4, err_msg=f"hop {number}")


def test_who_shares_the_batch_changes_nothing(model: Timar) -> None:
    """Three conversations in one pass, each in its own way, move as each does alone."""
    ways = [[True] * HOPS, [False] * HOPS, [number % 7 < 3 for number in range(HOPS)]]
    datas = [conversation(seed) for seed in range(3)]
    alone = [shown(rolling(model, [seed]), datas[seed], ways[seed]) for seed in range(3)]
    batch = rolling(model, [0, 1, 2])
    for number in range(HOPS):
        together = batch.step([hop(datas[k], number, ways[k][number]) for k in range(3)])
        batch.prepare()
        for k in range(3):
            np.testing.assert_allclose(together[k], alone[k][number], atol=1e-4)


def test_a_saved_conversation_goes_on_to_the_bit(model: Timar) -> None:
    data, ways = conversation(3), [number % 5 > 1 for number in range(HOPS)]
    whole = shown(rolling(model, [3]), data, ways)
    first, second = rolling(model, [3]), rolling(model, [99])
    for number in range(11):
        first.step([hop(data, number, ways[number])])
        first.prepare()
    second.load_state_dict(0, first.state_dict(0))
    for number in range(11, HOPS):
        made = second.step([hop(data, number, ways[number])])[0]
        second.prepare()
        np.testing.assert_array_equal(made, whole[number])


def test_speech_beyond_the_look_ahead_is_not_seen(model: Timar) -> None:
    """What the agent says later than the look-ahead changes no frame that is shown now."""
    data = conversation(4)
    changed = (data[0], data[1].copy(), data[2])
    number = 12
    changed[1][((number + 1) * H + LOOK) * FRAME :] = 0.0
    ways = [True] * (number + 1)
    np.testing.assert_array_equal(
        shown(rolling(model, [4]), data, ways)[number], shown(rolling(model, [4]), changed, ways)[number]
    )


def test_hops_that_never_came_are_silence(model: Timar) -> None:
    """A gap in the numbers is the same as silent hops in which nobody was seen, in what the next hop hears."""
    data = conversation(5)
    user, agent, motion = (part.copy() for part in data)
    user[5 * H * FRAME : 7 * H * FRAME] = 0
    agent[5 * H * FRAME : 7 * H * FRAME] = 0
    motion[5 * H : 7 * H] = np.nan
    gap, silent = rolling(model, [5]), rolling(model, [5])
    for number in [0, 1, 2, 3, 4, 7]:
        with_gap = gap.step([hop(data, number, False)])[0]
    for number in range(8):
        # The skipped hops are on other grids than hop 7, whose history they do not enter.
        without = silent.step([hop((user, agent, motion), number, False)])[0]
    np.testing.assert_allclose(with_gap, without, atol=1e-5)


def test_idle_work_that_was_left_out_changes_no_byte() -> None:
    """A robot that was busy, and had no idle time after some of its hops, moves as the offline run does."""
    model, data = tiny_model(), conversation(6)
    rested, busy = rolling(model, [6]), rolling(model, [6])
    for number in range(60):
        each = hop(data, number % HOPS, number % 7 > 2)
        each.number = number
        wanted, made = rested.step([each])[0], busy.step([each])[0]
        rested.prepare()
        if number % 4 == 3:
            busy.prepare()
        np.testing.assert_array_equal(made, wanted, err_msg=f"hop {number}")


def test_a_lost_hop_is_made_up_by_the_plan_of_the_hop_before(model: Timar) -> None:
    """As far as a plan reaches, which is a turn; a hop in the other way has no plan. It goes on after a restart."""
    data, made = conversation(8), rolling(model, [8])
    for number in range(6):
        made.step([hop(data, number, True)])
    plan = made._plans[0]
    assert plan is not None
    restarted = rolling(model, [1])
    restarted.load_state_dict(0, made.state_dict(0))
    for batch in (made, restarted):
        for lost in range(1, 4):
            got = batch.miss(0, hop(data, 5 + lost, True))
            first = MARGIN + lost * H
            np.testing.assert_array_equal(got, plan[1][first : first + H])
        assert batch.miss(0, hop(data, 9, True)) is None
        batch.step([hop(data, 10, False)])
        assert batch.miss(0, hop(data, 11, False)) is None


@pytest.mark.parametrize("policy", ["sliding", "stepped"])
def test_between_a_hop_and_its_motion_one_turn_of_history_is_encoded_at_most(
    model: Timar, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the window drops is dropped before, so that the shifted history is encoded in idle time."""
    made = RollingBatch(model, 1, hop_frames=H, margin_frames=MARGIN, seed=1, context_policy=policy)
    engine = made.batch.engine
    assert isinstance(engine, CachedEngine)
    encoded: list[int] = []
    encode = engine._encode

    def counted(rows: list[int], start: int, end: int) -> None:
        encoded.append(end - start)
        encode(rows, start, end)

    monkeypatch.setattr(engine, "_encode", counted)
    data, idle = conversation(7), []
    for number in range(60):
        each = hop(data, number % HOPS, number % 7 > 2)
        each.number = number
        made.step([each])
        assert sum(encoded) <= 1, f"hop {number}"
        encoded.clear()
        made.prepare()
        idle.append(sum(encoded))
        encoded.clear()
    assert max(idle) > 1  # the window did slide


@pytest.mark.parametrize(
    ("frames", "margin", "options", "words"),
    [
        (4, 3, {}, "divide"),
        (30, 0, {}, "divide"),
        (5, 21, {}, "margin"),
        (5, 3, {"mask_history_agent": False}, "mask_history_agent"),
    ],
)
def test_what_cannot_be_is_refused(
    model: Timar, frames: int, margin: int, options: dict[str, bool], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        RollingBatch(model, 1, hop_frames=frames, margin_frames=margin, seed=0, **options)


@pytest.fixture(scope="module")
def joint() -> Timar:
    """The shipped model, which samples a turn's head poses as one movement: random weights know no movement."""
    return resolve_model("timar-mini", inference=False)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_joint_heads_movement_runs_on_from_hop_to_hop(joint: Timar, ahead: bool) -> None:
    data = conversation(5)

    def steps(forget: bool) -> tuple[float, float]:
        """Mean change of the head's pose inside hops, and from one hop to the next."""
        batch, made = rolling(joint, [3]), []
        for number in range(HOPS):
            if forget:
                batch._shown[0][:] = np.nan
            made.append(batch.step([hop(data, number, ahead)])[0])
        poses = np.stack(made)[8:, :, 53:]  # [hops, H, 3], once all poses of a turn are known
        inside = np.abs(np.diff(poses, axis=1)).mean()
        return float(inside), float(np.abs(poses[1:, 0] - poses[:-1, -1]).mean())

    inside, between = steps(forget=False)
    assert between < 1.5 * inside
    assert steps(forget=True)[1] > 2.0 * between


def test_a_joint_heads_movement_continues_what_was_really_shown(joint: Timar) -> None:
    data = conversation(6)
    batch, other = rolling(joint, [3]), rolling(joint, [3])
    for number in range(9):
        first, second = batch.step([hop(data, number, True)])[0], other.step([hop(data, number, True)])[0]
        np.testing.assert_array_equal(first, second)
    moved = first.copy()
    moved[:, 53:] += 0.1
    other.amend(0, moved)
    first, second = (each.step([hop(data, 9, True)])[0] for each in (batch, other))
    assert first is not None and second is not None
    np.testing.assert_allclose((second - first)[0, 53:], 0.1, atol=0.05)
    np.testing.assert_array_equal(first[:, :53], second[:, :53])


def test_a_saved_conversation_of_a_joint_head_goes_on_to_the_bit(joint: Timar) -> None:
    data = conversation(7)
    batch = rolling(joint, [3])
    shown(batch, data, [True] * 8)
    resumed = rolling(joint, [4])
    resumed.load_state_dict(0, batch.state_dict(0))
    for number in range(8, 14):
        first, second = (each.step([hop(data, number, number % 2 == 0)])[0] for each in (batch, resumed))
        np.testing.assert_array_equal(first, second)
