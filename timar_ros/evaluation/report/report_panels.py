"""The plots of a report, as data: `report/src/panels.ts` draws them with Plotly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.bags.recording import Motion, Recording
from timar_ros.evaluation.metrics import conversation_signals
from timar_ros.evaluation.metrics.bag_metrics import states
from timar_ros.evaluation.report.report_block import Block
from timar_ros.motion import EXPRESSION, JAW_OPENING, MODEL_RATE, MOTION_RATE, PITCH, ROLL, YAW
from timar_ros.retarget.profile import RobotProfile

Panel = dict[str, Any]
#: One curve set: label, colour, motion.
Track = tuple[str, str, Motion]

ENVELOPE_RATE = 100
GRID = {"start": 0.0, "step": 1.0 / MOTION_RATE}


def panel(identity: str, title: str, note: str = "", **more: Any) -> Panel:
    """An empty panel."""
    blank: Panel = {"id": identity, "section": "", "title": title, "note": note, "height": 170, "unit": ""}
    return {**blank, "timed": True, "half": False, "traces": [], "bands": [], "lines": [], **more}


def line(name: str, color: str, x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A curve."""
    return {"name": name, "color": color, "kind": "line", "x": x, "y": y, **more}


def bands(flags: NDArray[np.bool_], color: str, lane: tuple[float, float] | None = None) -> list[dict[str, Any]]:
    """Shaded stretches of time."""
    marked = []
    for first, end in conversation_signals.stretches(flags):
        band: dict[str, Any] = {"from": first / MOTION_RATE, "to": end / MOTION_RATE, "color": color}
        marked.append(band if lane is None else {**band, "lane": lane})
    return marked


def sound(block: Block, recording: Recording) -> list[Panel]:
    """Both voices over time, with voice activity."""
    note = "each against its own loudest moment; shaded where somebody speaks"
    chart = panel("sound", "Voices", note, section="Conversation", height=190, yRange=[-2.1, 2.1])
    chart["yTicks"] = {"at": [1, -1], "text": ["partner", "robot"]}
    voices = (("user", recording.user_audio, 1.0), ("agent", recording.agent_audio, -1.0))
    for role, audio, middle in voices:
        if audio is None:
            continue
        # A silent channel (below a hundredth of full scale) must look silent.
        loudest = max(float(np.abs(audio).max(initial=0.0)), 0.01)
        envelope = peaks(audio) / loudest * 0.95 + middle
        step = {"start": 0.0, "step": 1.0 / ENVELOPE_RATE}
        chart["traces"].append({"name": "", "color": role, "kind": "envelope", "x": step, "y": block.add(envelope)})
        lane = (0.5, 1.0) if role == "user" else (0.0, 0.5)
        chart["bands"] += bands(conversation_signals.voice_activity(audio), role, lane)
    return [chart] if chart["traces"] else []


def peaks(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    """Highest and lowest sample of each hundredth of a second, [T, 2]."""
    size = MODEL_RATE // ENVELOPE_RATE
    whole = np.pad(audio, (0, -len(audio) % size)).reshape(-1, size)
    return np.stack([whole.max(axis=1), whole.min(axis=1)], axis=1).astype(np.float64)


def flame(block: Block, recording: Recording, tracks: list[Track]) -> list[Panel]:
    """Jaw, head pose and expression of every head."""
    seconds = recording.seconds
    panels: list[Panel] = []
    frames = [(name, color, track.at_rate(seconds)) for name, color, track in tracks]
    if not frames:
        return []
    speaking, _ = states(recording)
    talk = bands(speaking, "agent")
    shown: Panel = {"section": "Motion", "bands": talk}
    jaw = panel("jaw", "Jaw opening", "FLAME jaw about x; shaded where the robot speaks", unit="rad", **shown)
    for name, color, motion in frames:
        jaw["traces"].append(line(name, color, GRID, block.add(motion[:, JAW_OPENING])))
    panels.append(jaw)
    for column, title, note in (
        (PITCH, "Head pitch", "down is positive: nods"),
        (YAW, "Head yaw", "to its own left is positive"),
        (ROLL, "Head roll", "towards its own right shoulder is positive"),
    ):
        one = panel(f"head{column}", title, note, unit="°", height=150, **shown)
        for name, color, motion in frames:
            one["traces"].append(line(name, color, GRID, block.add(np.degrees(motion[:, column]))))
        panels.append(one)
    note = "length of the vector of 50 coefficients; single ones by a click in the legend"
    face = panel("expression", "Expression", note, **shown)
    for index, (name, color, motion) in enumerate(frames):
        face["traces"].append(line(name, color, GRID, block.add(np.linalg.norm(motion[:, EXPRESSION], axis=1))))
        if index == 0:
            few = block.add(motion[:, :6])
            for k in range(6):
                more = {"column": k, "hidden": True}
                face["traces"].append(line(f"{name} e{k}", f"c{k + 1}", GRID, few, **more))
    return [*panels, face]


def joints(block: Block, recording: Recording, profile: RobotProfile | None) -> list[Panel]:
    """Each joint's measured and commanded position, with its limits."""
    measured = recording.joints
    if measured is None:
        return []
    inside = (measured.time > -1.0) & (measured.time < recording.seconds + 1.0)
    time = block.add_exact(measured.time[inside])
    commands = recording.commands
    when = None if commands is None else block.add_exact(commands.time)
    known = {joint.name: joint for joint in profile.joints} if profile is not None else {}
    names = [name for name in known if name in measured.names] or measured.names
    panels = []
    for index, name in enumerate(names[:12]):
        column = measured.names.index(name)
        title = name.replace("_", " ").capitalize()
        one = panel(f"joint-{name}", title, "", section="Robot", unit="rad", height=180, half=True)
        if commands is not None and when is not None and name in commands.names:
            commanded = commands.position[:, commands.names.index(name)]
            one["traces"].append(line("commanded", "c6", when, block.add(commanded), dash=True))
        position = measured.position[inside, column]
        one["traces"].append(line("measured", f"c{index % 5 + 1}", time, block.add(position)))
        if name in known:
            joint = known[name]
            one["note"] = f"limits {joint.lower:.2f} to {joint.upper:.2f}".replace("-", "−")
            margin = 0.06 * (joint.upper - joint.lower)
            one["yRange"] = [joint.lower - margin, joint.upper + margin]
            one["lines"] = [
                {"y": joint.upper, "label": "upper limit", "color": "limit"},
                {"y": joint.lower, "label": "", "color": "limit"},
            ]
        panels.append(one)
    return panels


def latency(block: Block, recordings: list[tuple[str, str, Recording]]) -> list[Panel]:
    """Latency of each turn, over time and as a distribution."""
    note = "from a turn's arrival to its motion's; dropped turns are shaded"
    over = panel("latency", "Latency by turn", note, section="Timing", unit="ms")
    still: Panel = {"section": "Timing", "timed": False, "half": True, "height": 220}
    spread = panel("latency-spread", "Distribution of latency", "", unit="turns", xTitle="ms", **still)
    # The same bins for every run, so that their bars are comparable.
    everything = np.concatenate([1e3 * recording.response_times() for _, _, recording in recordings] or [np.zeros(0)])
    steps = np.histogram_bin_edges(everything, bins=min(30, max(6, len(everything) // 4)))
    for name, color, recording in recordings:
        turns = [turn for turn in recording.turns if np.isfinite(turn.moved)]
        if not turns:
            continue
        values = np.array([1e3 * (turn.moved - turn.heard) for turn in turns])
        when = block.add_exact([turn.start for turn in turns])
        text = [f"turn {turn.number}: {value:.1f} ms" for turn, value in zip(turns, values, strict=True)]
        points = {"name": name, "color": color, "kind": "points", "x": when, "y": block.add_exact(values), "text": text}
        over["traces"].append(points)
        counts, edges = np.histogram(values, bins=steps)
        bars = {"name": name, "color": color, "kind": "bars", "y": block.add_exact(counts)}
        spread["traces"].append({**bars, "x": block.add_exact(0.5 * (edges[1:] + edges[:-1]))})
        missed = np.zeros(round(recording.seconds * MOTION_RATE) + 1, bool)
        for turn in recording.turns:
            if np.isnan(turn.moved):
                missed[round(turn.start * MOTION_RATE) : round((turn.start + turn.duration) * MOTION_RATE)] = True
        over["bands"] += bands(missed, "bad")
        if len(recordings) == 1:
            over["lines"].append({"y": float(np.median(values)), "label": "median", "color": "c6"})
    return [over, spread] if over["traces"] else []


def lips(block: Block, recordings: list[tuple[str, str, Recording]]) -> list[Panel]:
    """Correlation of the robot's jaw with its voice, by lag."""
    chart = panel("lips", "Lips against voice", section="Timing", timed=False, half=True, height=220)
    chart |= {"unit": "correlation", "xTitle": "jaw behind the voice, ms"}
    for name, color, recording in recordings:
        if recording.agent_audio is None or recording.agent_motion is None:
            continue
        opening = recording.agent_motion.at_rate(recording.seconds)[:, JAW_OPENING]
        offset, peak, lags, values = conversation_signals.lip_offset(recording.agent_audio, opening)
        if np.isfinite(peak):
            chart["traces"].append(line(name, color, block.add_exact(lags * 1e3), block.add_exact(values)))
            chart["note"] = f"highest ({peak:.2f}) at {offset * 1e3:+.0f} ms"
    return [chart] if chart["traces"] else []
