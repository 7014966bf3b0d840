"""`timar report`: a recorded conversation as ONE HTML file that needs no network and no server.

The page's programs are built beforehand (`report/` in the sources, `npm run build`) and lie in `report_assets`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros import __version__
from timar_ros.bags.recording import Motion, Recording, load_recording
from timar_ros.errors import UserError
from timar_ros.evaluation.metrics import bag_metrics
from timar_ros.evaluation.report import report_heads, report_panels, report_tables
from timar_ros.evaluation.report.flame_model import load_flame
from timar_ros.evaluation.report.report_audio import encoded
from timar_ros.evaluation.report.report_block import Block
from timar_ros.evaluation.report.report_page import assemble
from timar_ros.files import atomic_path
from timar_ros.motion import MOTION_RATE
from timar_ros.retarget.profile import RobotProfile
from timar_ros.simulation.robot_shape import RobotShape, find_urdf, read_shape

Floats = NDArray[np.float32]

MEANINGS = {
    "seconds": "From the first sample of either speaker to the last.",
    "turns": "Pieces of the conversation that the network answered, one answer each; hops in rolling mode.",
    "dropped_turns": "Turns that came and got no motion. None is right.",
    "response_p50": "From a turn's arrival to its motion's, as the recorder saw both: what the network takes.",
    "response_p95": "95 of 100 answers took less.",
    "playback_delay": "How much later than it was said everything is shown, voice and motion alike.",
    "lip_offset": "The lag at which jaw and voice agree best. Nobody sees less than 80 ms.",
    "limit_violations": "Measured joint positions beyond the profile's limits. None is right.",
}
"""What the figures at the top mean, by their key in the metrics."""


def write_report(
    source: str | Path | Recording,
    out: str | Path,
    *,
    truth: Floats | None = None,
    other: str | Path | Recording | None = None,
    robot: RobotProfile | None = None,
    urdf: str | Path | None = None,
    flame_model: str | Path | None = None,
    title: str | None = None,
) -> Path:
    """Write the report of a bag (or of a run's folder with one bag in it).

    :param truth: the agent's true motion, [T, 56] at 25 Hz: shown next to the prediction, and used for metrics.
    :param other: a second run of the same conversation, shown next to the first.
    :param robot: the recorded robot; by default found by the joints' names.
    :param urdf: the robot's URDF, which is drawn; by default the one in the bag (``robot_description``), else the
        package's own.
    :param flame_model: a FLAME model file (.npz or .pkl): its mesh replaces the stylised faces.
    :returns: the file written.
    :raises UserError: when a source cannot be read.
    """
    first = source if isinstance(source, Recording) else load_recording(source)
    second = other if isinstance(other, Recording) or other is None else load_recording(other)
    runs = [first] if second is None else [first, second]
    page = _Page(runs, truth, robot, urdf, flame_model, title)
    html = page.html()
    with atomic_path(out) as path:
        path.write_text(html, encoding="utf-8")
    return Path(out)


class _Page:
    def __init__(
        self,
        runs: list[Recording],
        truth: Floats | None,
        robot: RobotProfile | None,
        urdf: str | Path | None,
        flame_model: str | Path | None,
        title: str | None,
    ) -> None:
        self.runs = runs
        self.truth = truth
        self.first = runs[0]
        self.profile = robot or bag_metrics.find_profile(self.first)
        self.unclear = None if robot else bag_metrics.ambiguity(self.first)
        self.undrawn: list[str] = []
        self.shape = None if self.profile is None else self._look(self.profile, urdf)
        self.flame = None if flame_model is None else load_flame(flame_model)
        self.title = title or f"Conversation {self.first.name}"
        self.block = Block()
        self.results = [bag_metrics.measure(run, self.profile, truth) for run in runs]

    def html(self) -> str:
        """The page's text."""
        sound = encoded(self.first)
        report = {
            "title": self.title,
            "subtitle": self._subtitle(),
            "chips": self._chips(),
            "explanation": self._explanation(),
            "notes": self._notes(),
            "warnings": self._warnings(),
            "duration": self.first.seconds,
            "audio": [{"id": f"audio{index}", "mime": mime} for index, (mime, _) in enumerate(sound)],
            "heads": self._heads(),
            "panels": self._panels(),
            "tables": report_tables.tables(_names(self.runs), self.runs, self.results),
            "footer": (
                f"timar_ros {__version__}. Heads and jaws move exactly as recorded; brows and mouth corners of the "
                "stylised faces only hint at the expression, and their blinks are decoration. Contains three.js and "
                "plotly.js (MIT)."
            ),
        }
        return assemble(report, self.block, sound)

    def _subtitle(self) -> str:
        info = self.first.info
        words = []
        if info.get("model"):
            words.append(f"model {info['model']}" + ("" if info.get("trained") else " (UNTRAINED)"))
        if info.get("mode"):
            words.append(str(info["mode"]))
        if info.get("device"):
            words.append(f"{info['dtype']} on {info['device']}")
        if self.profile is not None:
            words.append(f"robot {self.profile.title}")
        if len(self.runs) > 1:
            words.append(f"compared with {self.runs[1].name}")
        if self.truth is not None:
            words.append("with the truth beside it")
        return " · ".join(words) or "recorded conversation"

    def _chips(self) -> list[dict[str, str]]:
        result = self.results[0]

        def chip(group: str, key: str, label: str, tone: str = "plain") -> dict[str, str] | None:
            meaning = MEANINGS[key]
            value = result.get(group, {}).get(key, float("nan"))
            if not np.isfinite(value):
                return None
            return {"label": label, "value": bag_metrics.shown(group, key, value), "tone": tone, "help": meaning}

        def judged(group: str, key: str, label: str, good: bool) -> dict[str, str] | None:
            return chip(group, key, label, "good" if good else "bad")

        motion, run, robot = (result.get(group, {}) for group in ("motion", "run", "robot"))
        offset = abs(motion.get("lip_offset", 0.0))
        parts = [
            chip("run", "seconds", "Length"),
            chip("run", "turns", "Turns") if run.get("turns") else None,
            judged("run", "dropped_turns", "Dropped", run.get("dropped_turns") == 0) if run.get("turns") else None,
            None if self.first.simulated else chip("latency", "response_p50", "Latency, median"),
            None if self.first.simulated else chip("latency", "response_p95", "Latency, 95 %"),
            chip("latency", "playback_delay", "Playback delay"),
            chip("motion", "lip_offset", "Jaw behind voice", "good" if offset <= 0.08 else "warn"),
            judged("robot", "limit_violations", "Limit violations", robot.get("limit_violations") == 0),
        ]
        return [one for one in parts if one is not None]

    def _warnings(self) -> list[str]:
        found = [f"{run.name}: {warning}" for run in self.runs for warning in run.warnings]
        if self.first.info and not self.first.info.get("trained"):
            found.append(
                "UNTRAINED weights: the motion is noise shaped by the network, and shows only that everything runs."
            )
        if self.unclear:
            found.append(f"{self.first.name}: {self.unclear}")
        return [*found, *self.undrawn]

    def _notes(self) -> list[str]:
        found = [f"{run.name}: {note}" for run in self.runs for note in run.notes]
        if self.first.user_motion is None:
            found.append("The partner's head was not tracked.")
        return found

    def _explanation(self) -> str:
        """Explains why a short latency and a long delay occur together."""
        result = self.results[0].get("latency", {})
        answer, delay = result.get("response_p50", np.nan), result.get("playback_delay", np.nan)
        if self.first.simulated or not (np.isfinite(answer) and np.isfinite(delay)):
            return ""
        text = f"{bag_metrics.shown('latency', 'response_p50', answer)} is what an answer takes"
        shown = bag_metrics.shown("latency", "playback_delay", delay)
        if self.first.info.get("mode") == "anticipatory":
            return f"{text}; it is planned before its turn begins, so the robot's voice is not delayed ({shown})."
        if self.first.info.get("mode") == "rolling":
            return f"{text}; speech that was not published ahead is heard {shown} late: a hop, and the time to answer."
        return (
            f"{text}; all is shown {shown} after it was said, because a whole turn must be heard before its answer is "
            "made. Voice and motion wait together, so lips match."
        )

    def _look(self, profile: RobotProfile, urdf: str | Path | None) -> RobotShape | None:
        """The robot's shape; None without a shape, with a warning if an error was the reason."""
        try:
            text, folder = _description(self.first, profile, urdf)
            shape = None if text is None else read_shape(text, profile, folder)
        except UserError as error:
            if urdf is not None:
                raise
            self.undrawn.append(f"The robot is shown by a stand-in: {error}.")
            return None
        self.undrawn += [] if shape is None else [f"Not drawn of the robot: {missing}." for missing in shape.missing]
        return shape

    def _tracks(self) -> list[tuple[str, str, str, Motion]]:
        """Label, role, note and motion of every agent's head."""
        names = _names(self.runs)
        found = [
            (name, "agent" if index == 0 else "other", "the model's FLAME motion", run.agent_motion)
            for index, (name, run) in enumerate(zip(names, self.runs, strict=True))
            if run.agent_motion is not None
        ]
        if self.truth is not None:
            time = np.arange(len(self.truth)) / MOTION_RATE
            unknown = np.full(len(time), 255, np.uint8)
            found.append(("Truth", "truth", "what the person did", Motion(time, self.truth, unknown)))
        return found

    def _heads(self) -> list[dict[str, Any]]:
        heads: list[dict[str, Any]] = []
        seconds = self.first.seconds
        if self.first.joints is not None and self.profile is not None:
            speaking, _ = bag_metrics.states(self.first)
            moved = (self.first.joints, self.profile, seconds, speaking, self.shape)
            heads.append(report_heads.robot(self.block, "robot", "agent", *moved))
        faces = [(f"agent{index}", *track) for index, track in enumerate(self._tracks())]
        if self.first.user_motion is not None:
            faces.append(("user", "Partner", "user", "as tracked", self.first.user_motion))
        for identity, name, role, note, motion in faces:
            head = report_heads.face(self.block, identity, name, note, role, motion, seconds)
            if self.flame is not None:
                head = report_heads.with_mesh(self.block, head, motion, seconds, self.flame)
            heads.append(head)
        return heads

    def _panels(self) -> list[dict[str, Any]]:
        first, block = self.first, self.block
        tracks = [(name, role, motion) for name, role, _, motion in self._tracks()]
        if first.user_motion is not None:
            tracks.append(("Partner", "user", first.user_motion))
        runs = [
            (name, "agent" if index == 0 else "other", run)
            for index, (name, run) in enumerate(zip(_names(self.runs), self.runs, strict=True))
        ]
        return [
            *report_panels.sound(block, first),
            *report_panels.flame(block, first, tracks),
            *report_panels.joints(block, first, self.profile),
            *report_panels.latency(block, [run for run in runs if not run[2].simulated]),
            *report_panels.lips(block, runs),
        ]


def _description(
    recording: Recording, profile: RobotProfile, urdf: str | Path | None
) -> tuple[str | None, Path | None]:
    """The URDF's text and path: of the named file, of the bag, or of the package.

    :raises UserError: when the named file cannot be read.
    """
    if urdf is not None:
        try:
            return Path(urdf).read_text(encoding="utf-8"), Path(urdf).parent
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the URDF {urdf}: {error}") from error
    if recording.description:
        return recording.description, None
    own = find_urdf(profile)
    return (None, None) if own is None else (own.read_text(encoding="utf-8"), own.parent)


def _names(runs: list[Recording]) -> list[str]:
    """The runs' names on the page."""
    if len(runs) == 1:
        return ["Agent"]
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [f"{name} ({'AB'[i]})" for i, name in enumerate(names)]
