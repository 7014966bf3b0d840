"""`timar evaluate --believable`: compares models and baselines with the bars of `metrics/believable.py`.

Conversations are of two sorts: a data set's, with the agent's true motion, and real voices, which have none. Baselines
(:mod:`timar_ros.baselines.procedural`) are judged with every model. A set with tracked people has a column for them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from timar_ros.baselines.procedural import procedural, wobbler
from timar_ros.data.audio_files import read_audio
from timar_ros.data.dualtalk_folder import DualTalkFolder, load_motion
from timar_ros.errors import UserError
from timar_ros.evaluation.metrics import believable
from timar_ros.evaluation.metrics.believable import BARS, Bar, Nods, Talk
from timar_ros.evaluation.metrics.conversation_signals import Floats, seam_ratio
from timar_ros.evaluation.sounds import in_noise, music, song
from timar_ros.files import atomic_path
from timar_ros.motion import HEAD, JAW_OPENING, MODEL_RATE, MOTION_RATE
from timar_ros.streaming.pipeline import Stages
from timar_ros.streaming.sampling_options import LIVELINESS, PipelineOptions

if TYPE_CHECKING:
    from timar_ros.model import Timar

Motion = NDArray[np.float32]
Column = dict[str, float]
Report = Callable[[str, int, int], None]

# Seconds of a person's own motion from which to take a head's liveliness.
EXAMPLE = 10
SOUND_SECONDS = 20.0
# Least speech for figures about lips [frames].
LEAST_SPEECH = round(4 * MOTION_RATE)
# Number of conversations for slow figures: the dial, noise.
PART = 8
COST_BARS = (
    Bar("turn_ms", "a turn on one core (ms of CPU)", high=40.0, digits=1),
    Bar("megabytes", "size (MB)", high=20.0, digits=1),
)


@dataclass(frozen=True)
class Order:
    """A request for motion: for a conversation, with a seed and a liveliness."""

    talk: Talk
    seed: int = 0
    liveliness: float = 1.0


class Maker(Protocol):
    """Something that moves a head."""

    label: str
    dial: float | None
    """One deviation of people's liveliness, as a logarithm; None: no dial."""

    def make(self, orders: Sequence[Order]) -> list[Motion]:
        """Motion ``[T, 56]`` for each order."""
        ...

    def like(self, talk: Talk, deviation: float) -> float:
        """The liveliness of somebody whose head has this deviation [rad]."""
        ...

    def cost(self) -> Column:
        """Milliseconds per turn and megabytes, where they apply."""
        ...


class Ruled:
    """A baseline of rules."""

    def __init__(self, label: str, rule: Callable[..., Motion]) -> None:
        self.label, self._rule = label, rule
        self.dial: float | None = 0.45

    def make(self, orders: Sequence[Order]) -> list[Motion]:
        """Motion for each order."""
        return [self._rule(o.talk.user, o.talk.agent, o.talk.frames, _own(o), o.liveliness) for o in orders]

    def like(self, talk: Talk, deviation: float) -> float:
        """The liveliness relative to the rule's own motion in this conversation."""
        return float(deviation / max(believable.head_sd(self.make([Order(talk)])[0]), 1e-6))

    def cost(self) -> Column:
        """No figures: the cost is negligible."""
        return {}


class Model:
    """A TIMAR model as it runs live: running normaliser, joined seams, turn by turn; several conversations at once."""

    BATCH = 16

    def __init__(self, label: str, model: Timar, options: PipelineOptions) -> None:
        self.label, self.model, self.options = label, model, options
        self.joint = model.config.head == "joint"
        self.dial = float(model.joint_style[1]) if self.joint else None

    def make(self, orders: Sequence[Order]) -> list[Motion]:
        """Motion for each order, several at a time."""
        motions: list[Motion] = []
        for first in range(0, len(orders), self.BATCH):
            motions += self._together(orders[first : first + self.BATCH])
        return motions

    def like(self, talk: Talk, deviation: float) -> float:  # noqa: ARG002 - a model knows its people's average
        """The liveliness relative to the average of the training people."""
        if not self.joint:
            return 1.0
        return float(np.clip(deviation / np.exp(float(self.model.joint_style[0])), *LIVELINESS))

    def _together(self, orders: Sequence[Order]) -> list[Motion]:
        from timar_ros.streaming.batch import ConversationBatch, TurnData

        seconds = self.model.config.turn_seconds
        batch = ConversationBatch(
            self.model,
            len(orders),
            self.options,
            seed=[_own(order) for order in orders],
        )
        stages = [Stages(self.options, seconds) for _ in orders]
        motions: list[list[Motion]] = [[] for _ in orders]
        for turns in zip_longest(*(self._turns(order.talk) for order in orders)):
            heard = [None if t is None else stage.before(t) for t, stage in zip(turns, stages, strict=True)]
            inputs = [
                None
                if h is None
                else TurnData(
                    h.user_speech, h.agent_speech, h.user_motion, number=h.turn.number, liveliness=order.liveliness
                )
                for h, order in zip(heard, orders, strict=True)
            ]
            for row, motion in enumerate(batch.step(inputs)):
                if motion is not None and (ready := heard[row]) is not None:
                    broken = stages[row].broken_turns
                    frames = stages[row].after(ready, motion, 0.0).frames
                    # The live node repairs a turn that is not finite; here it must stay visible.
                    motions[row].append(frames if stages[row].broken_turns == broken else np.full_like(frames, np.nan))
            batch.prepare()
        return [np.concatenate(m)[: o.talk.frames] for m, o in zip(motions, orders, strict=True)]

    def _turns(self, talk: Talk) -> Iterator[Any]:
        from timar_ros.streaming.offline import turns_of
        from timar_ros.streaming.pipeline import Pipeline

        pipeline = Pipeline(self.model, self.options)
        return turns_of(pipeline, talk.user[: talk.frames * 640], talk.agent[: talk.frames * 640], talk.user_motion)

    def cost(self) -> Column:
        """Median CPU time for a turn of one conversation; the file's size."""
        import torch

        from timar_ros.streaming.conversation import Conversation

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            talk = Conversation(self.model, seed=0, options=self.options)
            rng, took = np.random.default_rng(0), []
            for _ in range(30):
                user, agent = rng.standard_normal((2, self.model.config.turn_samples), dtype=np.float32)
                started = time.process_time()
                talk.step(user, agent, None)
                took.append(time.process_time() - started)
                talk.prepare()
        finally:
            torch.set_num_threads(threads)
        size = {"megabytes": Path(self.label.split(" ")[0], "model.safetensors")}
        found = {name: path.stat().st_size / 1e6 for name, path in size.items() if path.exists()}
        return {"turn_ms": 1e3 * float(np.median(took[10:])), **found}


def baselines() -> list[Maker]:
    """Rule-based heads that are judged with every model."""
    return [Ruled("procedural", procedural), Ruled("wobbler", wobbler)]


def judge(maker: Maker, talks: Sequence[Talk], seeds: int = 2, report: Report | None = None) -> Column:
    """A maker's figures on a set of conversations; NaN or missing where they do not apply."""
    report = report or (lambda *_: None)
    stages, done = 5, 0

    def step() -> None:
        nonlocal done
        done += 1
        report(maker.label, done, stages)

    motions = [maker.make([Order(talk, seed) for talk in talks]) for seed in range(seeds)]
    step()
    column = measure(talks, motions)
    part = _spread([talk for talk in talks if _spoken(talk) >= LEAST_SPEECH], PART)
    if maker.dial is not None:
        column |= _dial(maker, part)
    step()
    with_truth = [talk for talk in talks if talk.truth is not None and talk.frames >= 2 * EXAMPLE * MOTION_RATE]
    if len(with_truth) >= 3:
        column["adapts"] = _adapts(maker, with_truth)
    step()
    noisy = [replace(talk, agent=in_noise(talk.agent)) for talk in part]
    heard = [
        believable.lips(talk.agent, m) for talk, m in zip(part, maker.make([Order(t) for t in noisy]), strict=True)
    ]
    column["noise_lips"] = _mean(heard)
    step()
    sounds = {"music_jaw": music(SOUND_SECONDS), "song_jaw": song(SOUND_SECONDS)}
    alone = [Talk(name, np.zeros_like(sound), sound) for name, sound in sounds.items()]
    for name, motion in zip(sounds, maker.make([Order(talk) for talk in alone]), strict=True):
        column[name] = float(np.abs(motion[:, JAW_OPENING]).mean())
    step()
    return column


def people(talks: Sequence[Talk]) -> Column:
    """The figures of the people themselves."""
    real = [replace(talk, truth=None) for talk in talks if talk.truth is not None]
    if not real:
        return {}
    return measure(real, [[np.asarray(talk.truth) for talk in talks if talk.truth is not None]])


def measure(talks: Sequence[Talk], motions: Sequence[Sequence[Floats]]) -> Column:
    """Figures of a set's motion alone: ``made[seed][conversation]``."""
    rows: dict[str, list[float]] = {}
    offsets: list[list[float]] = []
    counted, shapes = Nods(), []
    bad = 0

    def note(**values: float) -> None:
        for name, value in values.items():
            rows.setdefault(name, []).append(value)

    for index, talk in enumerate(talks):
        every = [np.asarray(seed[index]) for seed in motions]
        bad += sum(int((~np.isfinite(motion)).any(1).sum()) for motion in every)
        every = [np.nan_to_num(motion) for motion in every]
        count = len(every[0])
        talks_now, heard = (flags[:count] for flags in believable.activity(talk, count))
        speaks = talks_now.sum() >= LEAST_SPEECH
        own_offsets = []
        for motion in every:
            motion = motion[: len(talks_now)]
            if speaks:
                own_offsets.append(believable.offset(talk.agent, motion))
                follows, ratio = believable.with_loudness(talk.agent, talks_now, motion)
                note(
                    lips=believable.lips(talk.agent, motion),
                    shut=believable.shut(talks_now, motion),
                    own_loudness=follows,
                    talking=ratio,
                )
            cv, slow = believable.speed_spread(motion)
            note(speed_cv=cv, slow=slow, seam=seam_ratio(motion[:, HEAD], 25), head_sd=believable.head_sd(motion))
            counted += believable.visible_nods(motion, talks_now, heard)
            if talk.truth is not None:
                note(**believable.distances(motion, talk.truth))
                shapes.append(
                    (believable.band_power(motion), believable.band_power(np.asarray(talk.truth)[: len(motion)]))
                )
        if own_offsets:
            offsets.append(own_offsets)
        for first, second in pairwise(every):
            x, y, z = (float(r) for r in believable.seed_correlation(first, second))
            note(seeds_x=x, seeds_y=y, seeds_z=z)
    column = {name: _mean(values) for name, values in rows.items()}
    each = [mean for own in offsets if np.isfinite(mean := _mean(own))]
    if each:
        column |= {"lip_offset_low": min(each), "lip_offset": _mean(each)}
        column["lip_offset_high"] = max(each)
    if shapes:
        # Every person has the same weight, at any liveliness.
        ours, theirs = (np.mean([p[side] / max(p[side].sum(), 1e-12) for p in shapes], axis=0) for side in (0, 1))
        column["shape"] = believable.shape_error(ours, theirs)
    column |= {"nods_after": counted.after, "nods_elsewhere": counted.elsewhere, "phrases": float(counted.ends)}
    column |= {"nods_more": counted.after - counted.elsewhere, "broken": float(bad)}
    return column


def _dial(maker: Maker, talks: Sequence[Talk]) -> Column:
    """The head's deviation at one deviation of liveliness below and above the average, and whether it always rises."""
    assert maker.dial is not None
    settings = [float(np.clip(np.exp(level * maker.dial), 0.3, 2.0)) for level in (-1, 0, 1)]
    spreads = [[believable.head_sd(m) for m in maker.make([Order(t, 0, each) for t in talks])] for each in settings]
    low, middle, high = np.array(spreads)
    return {
        "dial": float(np.exp(np.log(high / low).mean())),
        "dial_monotone": float(((low < middle) & (middle < high)).mean()),
    }


def _adapts(maker: Maker, talks: Sequence[Talk]) -> float:
    """Correlation over people of the logarithms of generated and true deviations, after ten seconds of example."""
    first = round(EXAMPLE * MOTION_RATE)
    truths = [np.asarray(talk.truth) for talk in talks]
    orders = [Order(t, 0, maker.like(t, believable.head_sd(r[:first]))) for t, r in zip(talks, truths, strict=True)]
    spread = np.log([believable.head_sd(motion[first:]) for motion in maker.make(orders)])
    real = np.log([believable.head_sd(truth[first:]) for truth in truths])
    return float(np.corrcoef(spread, real)[0, 1]) if spread.std() > 1e-9 else float("nan")


def _spoken(talk: Talk) -> int:
    return int(believable.activity(talk, talk.frames)[0].sum())


def _spread(talks: Sequence[Talk], most: int) -> list[Talk]:
    picks = np.linspace(0, len(talks) - 1, min(most, len(talks))).astype(int)
    return [talks[index] for index in picks]


def _mean(values: Sequence[float]) -> float:
    found = [value for value in values if np.isfinite(value)]
    return float(np.mean(found)) if found else float("nan")


def _own(order: Order) -> int:
    """A seed for this conversation alone, so that chance averages out over a set."""
    return order.seed * 1000 + sum(map(ord, order.talk.name)) % 1000


# Conversations


def data_talks(data: str | Path, split: str, limit: int | None) -> list[Talk]:
    """Both roles of a data set's conversations; with ``limit``, evenly chosen ones."""
    folder = DualTalkFolder(data, split, normalise=False)
    clips = folder.clips(None)
    if limit is not None and limit < len(clips):
        clips = [clips[i] for i in np.linspace(0, len(clips) - 1, limit).astype(int)]
    talks = []
    for clip in clips:
        item = folder.load(clip)
        talks.append(
            Talk(clip.name, item["user_speech"], item["agent_speech"], item["user_motion"], item["agent_motion"])
        )
    return talks


def real_talks(clips: Sequence[str], recordings: Sequence[str]) -> list[Talk]:
    """Real voices: conversations ``DIR/X`` (X_speaker1|2.wav; X_speaker1|2.npz where tracked), and single recordings.

    A conversation is used in both roles, a recording once as the agent's own voice and once as the partner's. The model
    gets a clip's tracked motion as the user's; the motion is not used as truth: one person is no set.
    """
    talks = []
    for stem in clips:
        voices = [read_audio(f"{stem}_speaker{speaker}.wav") for speaker in (1, 2)]
        tracked = [load_motion(path) if (path := Path(f"{stem}_speaker{s}.npz")).exists() else None for s in (1, 2)]
        for agent in (0, 1):
            name = f"{Path(stem).name}_{agent + 1}"
            talks.append(Talk(name, voices[1 - agent], voices[agent], tracked[1 - agent], tracked[agent]))
    for file in recordings:
        voice = read_audio(file)
        if len(voice) < 4 * MODEL_RATE:
            raise UserError(f"{file}: {len(voice) / MODEL_RATE:.1f} s of sound; give recordings of 4 s or more")
        talks.append(Talk(f"{Path(file).stem}_speaks", np.zeros_like(voice), voice))
        talks.append(Talk(f"{Path(file).stem}_heard", voice, np.zeros_like(voice)))
    return talks


# The command


def run_judge(args: argparse.Namespace, report: Report | None = None) -> dict[str, dict[str, Column]]:
    """Every set's columns by label; also written as JSON and Markdown if the command names a file.

    :raises UserError: nothing to judge, or unreadable input.
    """
    from timar_ros.streaming.offline import resolve_model

    sets: dict[str, list[Talk]] = {}
    if args.data:
        for split in args.split.split(","):
            sets[f"{Path(args.data).name} {split.strip()}"] = data_talks(args.data, split.strip(), args.limit)
    if args.clip or args.recordings:
        sets["real voices"] = real_talks(args.clip or [], args.recordings or [])
    if not sets:
        raise UserError("--believable needs conversations: --data DIR, --clip DIR/X or --recordings FILE...")
    makers: list[Maker] = []
    for name in args.model or []:
        kept = ("seed", "guidance", "temperature", "sampling_steps", "head_crossover")
        options = PipelineOptions(**{option: getattr(args, option) for option in kept})
        label = name if args.guidance is None else f"{name} guidance {args.guidance:g}"
        makers.append(Model(label, resolve_model(name, device=args.device, dtype=args.dtype, threads=1), options))
    makers += baselines()
    found: dict[str, dict[str, Column]] = {}
    costs = {maker.label: maker.cost() for maker in makers}
    for title, talks in sets.items():
        columns = {m.label: judge(m, talks, args.seeds, report) | costs[m.label] for m in makers}
        own = people(talks)
        found[title] = columns | ({"people": own} if own else {})
    if args.json:
        with atomic_path(Path(args.json)) as path:
            path.write_text(json.dumps(_plain(found), indent=2) + "\n", encoding="utf-8")
    if args.markdown:
        with atomic_path(Path(args.markdown)) as path:
            path.write_text(as_markdown(found), encoding="utf-8")
    return found


def lines(columns: dict[str, Column]) -> list[list[str]]:
    """The table's rows: the figure's name, the bar, and each column's value, starred where it misses the bar."""
    rows = []
    for bar in (*BARS, *COST_BARS):
        values = [column.get(bar.key, float("nan")) for column in columns.values()]
        if any(np.isfinite(values)):
            rows.append([bar.title, bar.text, *(_printed(bar, value) for value in values)])
    return rows


def as_markdown(found: dict[str, dict[str, Column]]) -> str:
    """A table for each set."""
    parts = []
    for title, columns in found.items():
        head = ["", "bar", *columns]
        table = [
            f"### {title} (*: misses the bar)",
            "",
            f"| {' | '.join(head)} |",
            "|---|---|" + "---:|" * len(columns),
        ]
        parts.append("\n".join([*table, *(f"| {' | '.join(row)} |" for row in lines(columns))]))
    return "\n\n".join(parts) + "\n"


def _printed(bar: Bar, value: float) -> str:
    if not np.isfinite(value):
        return ""
    return f"{value * bar.factor:.{bar.digits}f}{'' if bar.holds(value) else '*'}"


def _plain(found: dict[str, dict[str, Column]]) -> dict[str, Any]:
    """The columns without values that are not finite, which JSON cannot hold."""
    return {
        title: {label: {k: v for k, v in column.items() if np.isfinite(v)} for label, column in columns.items()}
        for title, columns in found.items()
    }
