"""Node `timar_inference`: turns become the agent's motion, in a worker thread, for one conversation or several.

torch is imported in `configure` only, so that a machine without it gets one clear line instead of a dead process.
"""

from __future__ import annotations

import math
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from timar_ros.errors import UserError, require
from timar_ros.motion import MODEL_RATE, MOTION_RATE, MOTION_SIZE
from timar_ros.msg import FlameMotion, StreamInfo, Turn
from timar_ros.nodes import control, qos
from timar_ros.nodes.base import ERROR, OK, WARN, Diagnosis, ManagedNode, another_clock
from timar_ros.nodes.inference_parameters import PARAMETERS, pipeline_options
from timar_ros.nodes.inference_stream import Stream, prefix, state_path
from timar_ros.nodes.latency_log import LatencyLog
from timar_ros.nodes.messages import motion_message, to_stamp, turn
from timar_ros.nodes.parameters import names
from timar_ros.nodes.process import run
from timar_ros.nodes.worker import Job, Worker
from timar_ros.streaming.stream_info import allowance, dtype_of, info_of
from timar_ros.streaming.turn_types import TurnInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from timar_ros.model import Timar
    from timar_ros.streaming.options import PipelineOptions
    from timar_ros.streaming.pipeline import Pipeline, TurnMotion

MOST_WAITING = 0.4
"""Hops of so much time may wait [s], however many they are."""

INSTALL = "pip install 'timar_ros[model]' (docs/installation.md)"


class TimarInference(ManagedNode):
    """Serves the namespaces named by parameter; each has a conversation of its own, all share the model."""

    PARAMETERS = PARAMETERS

    worker: Worker | None = None
    model: Timar | None = None
    _log: LatencyLog | None = None
    _behind = 0.0  # the last answer's motion, after its time [s]

    def __init__(self, **options: Any) -> None:
        super().__init__("timar_inference", **options)
        self.streams: dict[str, Stream] = {}

    def configure(self) -> None:
        """Load the model, warm it up, take up conversations that were kept."""
        require("torch", INSTALL, "timar_inference")
        require("transformers", INSTALL, "timar_inference")
        from timar_ros.streaming.offline import resolve_model
        from timar_ros.streaming.pipeline import Pipeline

        begun = time.monotonic()
        self.model = resolve_model(
            self.value("model") or None,
            speech=self.value("speech") or None,
            device=self.value("device"),
            dtype=self.value("dtype"),
            threads=self.value("torch_threads") or None,
        )
        keys = names(self.value("namespaces")) or [""]
        options = pipeline_options(self)
        slowest = self._warm_up(Pipeline(self.model, options, len(keys)))
        self.options = replace(options, playback_delay=self._playback_delay(options, slowest))
        self.pipeline: Pipeline = Pipeline(self.model, self.options, len(keys))
        for row, key in enumerate(keys):
            self._open(row, key)
        control.serve_style(self)
        if not self.model.trained:
            self.get_logger().warning(f"the model '{self.model.name}' is UNTRAINED: its motion means nothing")
        self.get_logger().info(
            f"'{self.model.name}' ready after {time.monotonic() - begun:.1f} s; a turn takes {slowest * 1e3:.0f} ms, "
            f"playback_delay {self.options.playback_delay:.2f} s"
        )

    def activate(self) -> None:
        """Tell what is to be expected, and begin to work."""
        self._anticipatory = self.options.mode == "anticipatory"
        if self.value("latency_log"):
            self._log = LatencyLog(self.value("latency_log"))
        self.worker = Worker(self._answer, self._prepare, self._most_waiting())
        for stream in self.streams.values():
            stream.info.publish(self._info())

    def _most_waiting(self) -> int:
        """How many turns may wait. Hops are short, and several of them come at once when a conversation begins."""
        return max(self.value("queue_depth"), math.ceil(MOST_WAITING / self.pipeline.step_seconds - 1e-6))

    def deactivate(self) -> None:
        """Finish the turn at hand; the conversations are kept for the next activation."""
        if self.worker is not None:
            self.worker.end()
            self.worker = None
            self._save()
        if self._log is not None:
            self._log.close()
            self._log = None

    def cleanup(self) -> None:
        """Free the model."""
        self.streams = {}
        self.model = None

    def diagnose(self) -> Diagnosis:
        """Load, model, and what went wrong since the last look."""
        assert self.model is not None
        rows = {
            "queue": str(self.worker.waiting() if self.worker else 0),
            "model": self.model.name,
            "trained": str(self.model.trained),
            "device": str(self.model.device),
            "dtype": dtype_of(self.model),
            "warm": "True",
            "playback_delay [s]": f"{self.options.playback_delay:.3f}",
        }
        news = {what: self.statistics.grown(what) for what in ("turns failed", "turns dropped", "motion late")}
        if news["turns failed"]:
            return ERROR, f"{news['turns failed']} turns failed: see the log", rows
        if news["turns dropped"]:
            return WARN, f"too slow: {news['turns dropped']} turns dropped", rows
        if news["motion late"] and (words := another_clock(self._behind)):
            return WARN, words, rows
        if news["motion late"]:
            what = allowance(self.options.mode)
            return WARN, f"{news['motion late']} turns came later than {what} allows: raise it", rows
        return OK, "answering" if self.model.trained else "answering, UNTRAINED model", rows

    # Setting up -----------------------------------------------------------------------------------------------------

    def _open(self, row: int, key: str) -> None:
        stream = Stream(
            row,
            self.publish_on(FlameMotion, f"{prefix(key)}agent/motion", qos.motion()),
            self.publish_on(StreamInfo, f"{prefix(key)}stream_info", qos.latched()),
            state_path(self.value("state_file"), key),
        )
        if (saved := stream.saved()) is not None:
            self.pipeline.load_state_dict(saved, row)
            self.get_logger().info(f"the conversation goes on from {stream.state_path}")
        self.streams[key] = stream
        control.serve(self, key)
        self.subscribe(Turn, f"{prefix(key)}turns", lambda message: self._take(key, message), qos.turns())

    def _warm_up(self, pipeline: Pipeline) -> float:
        """Run made-up turns; returns the longest time from turn to motion after the first [s]."""
        assert self.model is not None
        seconds = pipeline.step_seconds
        longest = max(seconds, pipeline.options.look_ahead)
        noise = np.random.default_rng(0).normal(0.0, 0.05, round(longest * MODEL_RATE)).astype(np.float32)
        speech = noise[: round(seconds * MODEL_RATE)]
        frames = np.zeros((round(seconds * MOTION_RATE), MOTION_SIZE), np.float32)
        ahead = noise[: round(pipeline.options.look_ahead * MODEL_RATE)] if pipeline.options.mode == "rolling" else None
        slowest = 0.0
        for number in range(self.value("warm_up_turns")):
            made = TurnInput(number, 0, seconds, speech, speech, frames, agent_ahead=ahead)
            for planned in (True, False):
                begun = time.monotonic()
                answered = pipeline.process([replace(made, planned=planned)] * len(pipeline))[0] is not None
                if number and answered:
                    slowest = max(slowest, time.monotonic() - begun)
            pipeline.idle()
        return slowest

    def _playback_delay(self, options: PipelineOptions, slowest: float) -> float:
        assert self.model is not None
        # What the pipeline holds for enough, or twice what a turn takes here, in steps of 50 ms.
        usual = options.delay_ns(self.model.config.turn_seconds) / 1e9
        if options.mode == "rolling" and slowest > options.hop_margin / 2:
            self.get_logger().warning(
                f"a hop takes {slowest * 1e3:.0f} ms to compute, more than half of hop_margin: raise it"
            )
        if options.playback_delay is not None or options.mode != "reactive":
            return usual
        return max(usual, self.model.config.turn_seconds + math.ceil(40.0 * slowest) / 20.0)

    def _info(self) -> StreamInfo:
        assert self.model is not None
        made = StreamInfo(**info_of(self.model, self.options))
        made.header.stamp = to_stamp(self.now_ns())
        return made

    def between_turns(self, call: Callable[[], None], *, forget: str | None = None) -> None:
        """Run ``call`` while no turn is being worked on; ``forget``: a conversation whose waiting turns are dropped."""
        if self.worker is None:
            call()
        else:
            self.worker.between_turns(call, forget=forget)

    def restyle(self, **style: float) -> None:
        """Another guidance or temperature from the next turn on, for all conversations."""
        self.pipeline.set_style(**style)
        self.options = self.pipeline.options
        for stream in self.streams.values():
            stream.info.publish(self._info())

    # At work --------------------------------------------------------------------------------------------------------

    def _take(self, key: str, message: Turn) -> None:
        assert self.worker is not None
        assert self.model is not None
        given = turn(message)
        seconds = self.pipeline.step_seconds
        if len(given.agent_speech) != round(seconds * MODEL_RATE):
            what = "hop" if self.options.mode == "rolling" else "turn_seconds"
            raise UserError(
                f"turns of {given.duration:g} s came, but '{self.model.name}' in mode {self.options.mode} takes "
                f"{seconds:g} s: set the segmenter's 'mode' and '{what}'"
            )
        dropped = self.worker.submit(Job(key, given, answer=given.planned == self._anticipatory))
        self.statistics.count("turns dropped", dropped)

    def _answer(self, jobs: list[Job]) -> None:
        """In the worker's thread: motion for turns of different conversations, in one pass."""
        begun = time.monotonic()
        turns: list[TurnInput | None] = [None] * len(self.streams)
        for job in jobs:
            row = self.streams[job.key].row
            if job.dropped:
                self.pipeline.skip(job.turn, row)
            else:
                turns[row] = job.turn
        try:
            answers = self.pipeline.process(turns)
        except Exception as error:  # one pass that fails must not end the conversations
            self.statistics.count("turns failed", sum(given is not None for given in turns))
            self.get_logger().error(f"turns failed: {error}\n{traceback.format_exc()}")
            return
        for job in jobs:
            stream = self.streams[job.key]
            answer = None if job.dropped else answers[stream.row]
            if answer is not None and job.turn.planned and job.received < stream.interrupted:
                self.statistics.count("turns cancelled")  # it shows what will not be said
            elif answer is not None:
                self._publish(stream, answer)
                done = time.monotonic()
                self.statistics.latency("waiting", begun - job.received)
                self.statistics.latency("model", answer.timings["total"])
                self.statistics.latency("turn to motion", done - job.received)
                if self._log is not None:
                    self._log.write(job, begun, answer.timings["total"], done)

    def _publish(self, stream: Stream, answer: TurnMotion) -> None:
        stream.motion.publish(
            motion_message(answer.stamp_ns, answer.rate, answer.frames, turn=answer.number, speaking=answer.speaking)
        )
        # Where the first turn begins is known only once it has begun, so it cannot be planned ahead.
        first = self._anticipatory and not self.statistics.counted("turns answered")
        self.statistics.tick("turns answered")
        self._behind = (self.now_ns() - answer.stamp_ns) * 1e-9
        if self._behind > 0.0 and not first:
            self.statistics.count("motion late")

    def _prepare(self) -> None:
        begun = time.monotonic()
        self.pipeline.idle()
        if self.value("state_file"):
            self._save()
        self.statistics.latency("idle work", time.monotonic() - begun)

    def _save(self) -> None:
        for stream in self.streams.values():
            if stream.state_path is not None:
                stream.save(self.pipeline.state_dict(stream.row))


def main() -> int:
    """Executable `timar_inference`."""
    return run(TimarInference)


if __name__ == "__main__":
    raise SystemExit(main())
