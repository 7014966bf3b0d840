"""From turns to motion: one object for live, offline and replay."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from timar_ros.errors import UserError
from timar_ros.streaming.offline import generate, turns_of
from timar_ros.streaming.pipeline import Pipeline
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.seams import seam_ratio
from timar_ros.streaming.turns.turn_builder import TurnBuilder, TurnInput

NS = 1_000_000_000
T0 = 1_700_000_000 * NS


class FakeBatch:
    """A batch of one conversation whose motion is a plain function of the turn's number and of what it heard."""

    def __init__(self):
        self.calls = []
        self.memory = 0.0
        self.amended = {}

    def _motion(self, speech, number):
        motion = np.random.default_rng(number).standard_normal((25, 56)).astype(np.float32) * 0.05
        return motion + np.float32(np.abs(speech).mean() * 0.1)

    def _each(self, what, turns):
        (turn,) = turns
        if turn is None:
            return [None]
        self.calls.append((what, turn.number, None if what == "plan" else turn.user_motion is not None))
        return [self._motion(turn.agent_speech, turn.number)]

    def step(self, turns):
        self.memory += sum(float(np.abs(turn.user_speech).sum()) for turn in turns if turn is not None)
        return self._each("step", turns)

    def plan(self, turns):
        return self._each("plan", turns)

    def observe(self, turns):
        self._each("observe", turns)

    def amend_plan(self, row, number, motion):
        self.amended[number] = motion

    def prepare(self):
        self.calls.append(("prepare", None, None))

    def reset(self, row=None):
        self.memory = 0.0

    def state_dict(self, row):
        return {"memory": np.array(self.memory)}

    def load_state_dict(self, row, state):
        self.memory = float(state["memory"])


def speech(seconds, seed=0):
    rng = np.random.default_rng(seed)
    n = round(seconds * 16000)
    return (0.2 * rng.standard_normal(n) * (np.sin(np.arange(n) / 5000) > 0)).astype(np.float32).clip(-1, 1)


def turn(number, seed=None, **changes):
    seed = number if seed is None else seed
    made = TurnInput(
        number=number,
        stamp_ns=T0 + number * NS,
        duration=1.0,
        user_speech=speech(1.0, seed),
        agent_speech=speech(1.0, seed + 1000),
        user_motion=np.zeros((25, 56), np.float32),
    )
    return dataclasses.replace(made, **changes)


def fake(**options):
    pytest.importorskip("torch")
    from support.tiny_models import tiny_model

    pipeline = Pipeline(tiny_model(), PipelineOptions(**options))
    pipeline._batch = FakeBatch()
    return pipeline


@pytest.fixture(scope="module")
def model():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    from timar_ros.streaming.offline import resolve_model

    return resolve_model("random-mini")


def test_a_turn_gets_stamped_finite_motion():
    made = fake().step(turn(3))
    assert made.number == 3
    assert made.stamp_ns == T0 + 3 * NS + 1_150_000_000
    assert made.rate == 25.0
    assert made.frames.shape == (25, 56)
    assert made.frames.dtype == np.float32
    assert made.speaking.shape == (25,)
    assert made.speaking.dtype == np.uint8
    assert made.timings["total"] == pytest.approx(sum(made.timings[k] for k in ("normalise", "model", "seams")))


def test_playback_delay():
    assert fake(playback_delay=2.0).delay_ns == 2 * NS
    assert fake(mode="anticipatory").delay_ns == 0
    assert fake().step(turn(0)).stamp_ns - T0 == fake().delay_ns


def test_speaking_follows_the_agents_voice():
    quiet = turn(0, agent_speech=np.zeros(16000, np.float32))
    loud = turn(1, agent_speech=speech(1.0, 7) + 0.0)
    pipeline = fake()
    assert not pipeline.step(quiet).speaking.any()
    assert pipeline.step(loud).speaking.any()


def test_seams_are_joined():
    rough, smooth = fake(seams=False), fake()
    turns = [turn(k, agent_speech=speech(1.0, k) * (1 + 4 * (k % 2))) for k in range(20)]
    for t in turns:
        t.agent_speech[:] = t.agent_speech.clip(-1, 1)
    motion = [np.concatenate([p.step(t).frames for t in turns]) for p in (rough, smooth)]
    np.testing.assert_array_equal(motion[0].reshape(20, 25, 56)[:, 10:], motion[1].reshape(20, 25, 56)[:, 10:])
    assert seam_ratio(motion[1])["head_pose"] < 0.9 * seam_ratio(motion[0])["head_pose"]


# Modes.


def test_reactive_ignores_planned_turns():
    pipeline = fake()
    assert pipeline.step(turn(0, planned=True)) is None
    assert pipeline.step(turn(0)) is not None
    assert [c[:2] for c in pipeline._batch.calls] == [("step", 0)]


def test_anticipatory_plans_then_observes():
    pipeline = fake(mode="anticipatory")
    planned = pipeline.step(turn(0, planned=True, user_motion=None))
    assert planned.number == 0
    assert planned.stamp_ns == T0
    assert pipeline.step(turn(0)) is None
    pipeline.idle()
    assert [c[:2] for c in pipeline._batch.calls] == [("plan", 0), ("observe", 0), ("prepare", None)]


def test_history_gets_what_the_head_really_did(model):
    """Of each turn its own plan with its seam joined, also when the next one is planned before it is over."""
    pipeline, other = (Pipeline(model, PipelineOptions(mode="anticipatory", mask_history_agent=False)) for _ in "ab")
    shown = {}
    for number in (0, 1):
        shown[number] = pipeline.step(turn(number, planned=True)).frames
        np.testing.assert_array_equal(pipeline._batch._planned[0][number], shown[number])
    pipeline.step(turn(0))
    other.load_state_dict(pipeline.state_dict())
    for each in (pipeline, other):
        assert list(each._batch._planned[0]) == [1]
        np.testing.assert_array_equal(each._batch._planned[0][1], shown[1])
        remembered = []
        each._batch._remember = lambda row, tokens, motion, encoded, kept=remembered: kept.append(motion)
        each.step(turn(1))
        np.testing.assert_array_equal(remembered[0], shown[1])
        each.step(turn(2))
        assert remembered[1] is None


def test_a_planned_turn_counts_once():
    """The agent's speech of a turn must not change its own level by being seen twice."""
    one, two = fake(mode="anticipatory"), fake(mode="anticipatory")
    for k in range(3):
        one.step(turn(k, planned=True))
        one.step(turn(k))
        two.step(turn(k))
    state = two._stages[0].state_dict()
    for name, value in one._stages[0].state_dict().items():
        if name.startswith(("normaliser", "activity")):
            np.testing.assert_array_equal(value, state[name])


def test_a_skipped_turn_costs_no_model_time_but_is_heard():
    one, two = fake(), fake()
    one.step(turn(0))
    one.skip(turn(1))
    made = one.step(turn(2))
    assert [c[1] for c in one._batch.calls] == [0, 2]
    for k in range(3):
        other = two.step(turn(k))
    # The levels and the noise are those of turn 2 whatever happened to turn 1; only the join differs.
    np.testing.assert_array_equal(made.frames[10:], other.frames[10:])


# What cannot be.


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "psychic"}, "mode = 'psychic'"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": -1.0}, "guidance"),
        ({"temperature": 100.0}, "temperature"),
        ({"playback_delay": -0.1}, "playback_delay"),
        ({"normalising": "loud"}, "normalising"),
        ({"seams": 1}, "seams"),
        ({"planning_lead": float("inf")}, "planning_lead"),
        ({"engine": "steam"}, "engine"),
        ({"context_seconds": -8.0}, "context_seconds"),
    ],
)
def test_options_are_checked_with_reasons(changes, says):
    with pytest.raises(UserError, match=says):
        PipelineOptions(**changes)


def test_clip_needs_the_recording():
    with pytest.raises(UserError, match="whole recording"):
        fake(normalising="clip")


@pytest.mark.parametrize(
    "changes",
    [
        {"user_speech": np.zeros(8000, np.float32)},
        {"agent_speech": np.zeros((16000, 1), np.float32)},
        {"user_motion": np.zeros((24, 56), np.float32)},
    ],
)
def test_wrong_sizes_are_refused(changes):
    with pytest.raises(UserError, match="shape"):
        fake().step(turn(0, **changes))


def test_nan_never_leaves(model):
    pipeline = Pipeline(model, PipelineOptions())
    dirty = speech(1.0)
    dirty[100:200] = np.nan
    wild = np.full((25, 56), 1e30, np.float32)
    wild[::2] = np.inf
    for k, changes in enumerate(({"user_speech": dirty}, {"agent_speech": dirty}, {"user_motion": wild}, {})):
        assert np.isfinite(pipeline.step(turn(k, **changes)).frames).all()
    assert pipeline.broken_turns == 0


def test_a_broken_network_holds_the_head_still():
    pipeline = fake()
    last = pipeline.step(turn(0)).frames[-1]
    pipeline._batch._motion = lambda speech, number: np.full((25, 56), np.nan, np.float32)
    made = pipeline.step(turn(1)).frames
    assert np.isfinite(made).all()
    np.testing.assert_allclose(made[10:], np.repeat(last[None], 15, axis=0), atol=1e-5)
    assert pipeline.broken_turns == 1


def test_untracked_motion_reaches_the_model_as_such():
    pipeline = fake()
    pipeline.step(turn(0, user_motion=np.full((25, 56), np.nan, np.float32)))
    pipeline.step(turn(1, user_motion=None))
    half = np.zeros((25, 56), np.float32)
    half[:, :50] = np.nan
    pipeline.step(turn(2, user_motion=half))
    assert [c[2] for c in pipeline._batch.calls] == [False, False, True]


# With the network.


def test_the_same_seed_gives_the_same_bytes(model):
    runs = [Pipeline(model, PipelineOptions(seed=seed)) for seed in (1, 1, 2)]
    made = [b"".join(p.step(turn(k)).frames.tobytes() for k in range(3)) for p in runs]
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_an_earlier_turn_never_depends_on_a_later_one(model):
    one, two = (Pipeline(model, PipelineOptions()) for _ in range(2))
    for k in range(3):
        np.testing.assert_array_equal(one.step(turn(k)).frames, two.step(turn(k)).frames)
        one.idle()
    assert not np.array_equal(one.step(turn(3)).frames, two.step(turn(3, seed=99)).frames)


def test_a_restart_forgets_nothing(model, tmp_path):
    one = Pipeline(model, PipelineOptions(seed=5))
    for k in range(4):
        one.step(turn(k))
    np.savez(tmp_path / "state.npz", **one.state_dict())
    two = Pipeline(model, PipelineOptions(seed=5))
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        two.load_state_dict(dict(state))
    for k in range(4, 7):
        np.testing.assert_allclose(one.step(turn(k)).frames, two.step(turn(k)).frames, atol=1e-5)


def test_a_state_of_something_else_is_refused():
    with pytest.raises(UserError, match="does not fit"):
        fake().load_state_dict({"talk/memory": np.array(0.0), "stages/shown": np.array(1)})


def test_reset_forgets(model):
    pipeline = Pipeline(model, PipelineOptions(seed=3))
    first = [pipeline.step(turn(k)).frames for k in range(3)]
    pipeline.reset()
    again = [pipeline.step(turn(k)).frames for k in range(3)]
    np.testing.assert_array_equal(np.stack(first), np.stack(again))


def test_style_changes_from_the_next_turn_on(model):
    one, two = (Pipeline(model, PipelineOptions(temperature=0.0)) for _ in range(2))
    np.testing.assert_array_equal(one.step(turn(0)).frames, two.step(turn(0)).frames)
    one.set_style(guidance=1.5, temperature=1.0)
    assert not np.array_equal(one.step(turn(1)).frames, two.step(turn(1)).frames)
    with pytest.raises(UserError, match="temperature"):
        one.set_style(temperature=-1.0)
    assert one.options.temperature == 1.0


def test_a_batch_row_is_the_single_conversation(model):
    options = PipelineOptions(seed=4)
    batch, single = Pipeline(model, options, 3), Pipeline(model, options)
    for k in range(4):
        made = batch.process([turn(k), turn(k, seed=50 + k) if k % 2 else None, None])
        assert (made[1] is None) == (k % 2 == 0)
        assert made[2] is None
        np.testing.assert_allclose(made[0].frames, single.step(turn(k)).frames, atol=1e-5)
        batch.idle()
    batch.reset(0)
    batch.load_state_dict(single.state_dict(), 2)
    after = batch.process([None, None, turn(4)])[2]
    np.testing.assert_allclose(after.frames, single.step(turn(4)).frames, atol=1e-5)


@pytest.mark.parametrize("mode", ["reactive", "anticipatory"])
def test_live_chunks_give_what_generate_gives(model, mode):
    """The must of the whole design: the graph's motion is generate's, bit for bit."""
    user, agent = speech(4.3, 1), speech(4.3, 2)
    motion = (0.1 * np.random.default_rng(0).standard_normal((108, 56))).astype(np.float32)
    options = PipelineOptions(seed=11, mode=mode)
    offline = generate(model, options, user, agent, motion)
    assert offline.shape == (107, 56)

    builder, pipeline = TurnBuilder(mode=mode, planning_lead=options.planning_lead), Pipeline(model, options)
    ahead = 24000 if mode == "anticipatory" else 0  # samples that the agent's speech comes before it sounds
    made = []
    events = [(i, i, "user", user) for i in range(0, len(user), 320)]
    events += [(i - ahead, i, "agent", agent) for i in range(0, len(agent), 320)]
    events += [(640 * k, 640 * k, "motion", k) for k in range(108)]
    for _, at, what, x in sorted(events, key=lambda e: e[:3]):
        stamp = T0 + at * NS // 16000
        if what == "motion":
            builder.add_motion(stamp, 25.0, motion[x : x + 1])
        else:
            builder.add_audio(what, stamp, at, 16000, x[at : at + 320], end=at + 320 >= len(x))
        made += [m for t in builder.pop() if (m := pipeline.step(t)) is not None]
    made += [m for t in builder.finish() if (m := pipeline.step(t)) is not None]
    np.testing.assert_array_equal(np.concatenate([m.frames for m in made])[:107], offline)
    assert [m.stamp_ns - T0 for m in made] == [k * NS + pipeline.delay_ns for k in range(5)]


def test_generate_without_motion_and_with_unequal_lengths(model):
    made = generate(model, PipelineOptions(), speech(2.0), speech(3.02))
    assert made.shape == (75, 56)
    assert np.isfinite(made).all()


def test_generate_resamples(model):
    import soxr

    user, agent = speech(2.0, 1), speech(2.0, 2)
    seen = []
    loud = generate(
        model,
        PipelineOptions(),
        soxr.resample(user, 16000, 48000),
        agent,
        None,
        lambda done, total: seen.append((done, total)),
        user_rate=48000,
    )
    assert loud.shape == (50, 56)
    assert seen == [(1, 2), (2, 2)]


def test_generate_refuses_what_it_cannot_use(model):
    with pytest.raises(UserError, match="shorter"):
        generate(model, None, speech(0.01), speech(0.02))
    with pytest.raises(UserError, match="user's recording"):
        generate(model, None, np.full(16000, 30000.0, np.float32), speech(1.0))
    with pytest.raises(UserError, match="rate"):
        generate(model, None, speech(1.0), speech(1.0), user_rate=1000)
    with pytest.raises(UserError, match="user's motion"):
        generate(model, None, speech(1.0), speech(1.0), np.full((25, 56), 1e9, np.float32))


def test_turns_of_hold_the_whole_recording():
    user, agent = speech(3.5, 1), speech(3.5, 2)
    motion = (0.1 * np.random.default_rng(0).standard_normal((88, 56))).astype(np.float32)
    turns = list(turns_of(fake(), user, agent, motion))
    assert [t.number for t in turns] == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.concatenate([t.user_speech for t in turns])[:56000], user)
    np.testing.assert_array_equal(np.concatenate([t.user_motion for t in turns])[:88], motion)
    assert all(t.lost_user == t.lost_agent == 0 for t in turns)


def test_a_style_can_be_asked_about_first():
    pipeline = fake()
    pipeline.check_style(guidance=2.0)
    assert pipeline.options.guidance is None
    with pytest.raises(UserError, match="guidance"):
        pipeline.check_style(guidance=-1.0)
