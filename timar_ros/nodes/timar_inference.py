"""Node `timar_inference`: computes the agent's motion from turns, in a worker thread, for one conversation or several.

`configure` imports torch, so that a machine without torch gets one clear line instead of a dead process.
"""

from __future__ import annotations

import math
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from timar_ros.errors import UserError, require
from timar_ros.files.reading import first_line
from timar_ros.motion import MODEL_RATE, MOTION_RATE, MOTION_SIZE
from timar_ros.msg import FlameMotion, StreamInfo, Turn
from timar_ros.node_parts import conversation_services
from timar_ros.node_parts.inference_parameters import PARAMETERS, pipeline_options
from timar_ros.node_parts.inference_stream import Stream, prefix, state_path
from timar_ros.node_parts.latency_log import LatencyLog
from timar_ros.node_parts.worker import Job, Worker
from timar_ros.ros import qos
from timar_ros.ros.base import ERROR, OK, WARN, Diagnosis, ManagedNode, another_clock
from timar_ros.ros.messages import motion_message, to_stamp, turn
from timar_ros.ros.node_process import run
from timar_ros.ros.parameters import names
from timar_ros.streaming.stream_info import allowance, dtype_of, info_of
from timar_ros.streaming.turns.turn_types import TurnInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from timar_ros.model import Timar
    from timar_ros.streaming.pipeline import Pipeline, TurnMotion
    from timar_ros.streaming.sampling_options import PipelineOptions

MOST_WAITING = 0.4
"""Hops of this total length may wait [s], however many they are."""

MOST_REASON = 160
"""Longest reason of a failed turn on /diagnostics [characters]; the log has all of it."""

INSTALL = "pip install 'timar_ros[model]' (docs/installation.md)"


class TimarInference(ManagedNode):
    """Serves the namespaces of a parameter; each namespace has its own conversation, all share the model."""

    PARAMETERS = PARAMETERS

    worker: Worker | None = None
    model: Timar | None = None
    _log: LatencyLog | None = None
    _failure = ""  # why the last turn failed
    _behind = 0.0  # delay of the last answer after its motion's time [s]

    def __init__(self, **options: Any) -> None:
        super().__init__("timar_inference", **options)
        self.streams: dict[str, Stream] = {}

    def configure(self) -> None:
        """Load the model, warm it up, resume saved conversations."""
        require("torch", INSTALL, "timar_inference")
        require("transformers", INSTALL, "timar_inference")
        from timar_ros.streaming.offline import resolve_model
        from timar_ros.streaming.pipeline import Pipeline

        started = time.monotonic()
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
        conversation_services.serve_style(self)
        if not self.model.trained:
            self.get_logger().warning(f"the model '{self.model.name}' is UNTRAINED: its motion means nothing")
        self.get_logger().info(
            f"'{self.model.name}' ready after {time.monotonic() - started:.1f} s; a turn takes {slowest * 1e3:.0f} ms, "
            f"playback_delay {self.options.playback_delay:.2f} s"
        )

    def activate(self) -> None:
        """Publish stream_info and start the worker."""
        self._anticipatory = self.options.mode == "anticipatory"
        if self.value("latency_log"):
            self._log = LatencyLog(self.value("latency_log"))
        self.worker = Worker(
            self._answer, self._prepare, self._most_waiting(), lambda error: self.note_fault("inference", error)
        )
        for stream in self.streams.values():
            stream.info.publish(self._info())

    def _most_waiting(self) -> int:
        """Most turns that wait. Hops are short, and several come at once when a conversation begins."""
        return max(self.value("queue_depth"), math.ceil(MOST_WAITING / self.pipeline.step_seconds - 1e-6))

    def deactivate(self) -> None:
        """Finish the current turn; the conversations stay for the next activation."""
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
        """Report load, model, and faults since the last report."""
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
            return ERROR, f"{news['turns failed']} turns failed (see the log): {self._failure}", rows
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
            self.get_logger().info(f"the conversation continues from {stream.state_path}")
        self.streams[key] = stream
        conversation_services.serve(self, key)
        self.subscribe(Turn, f"{prefix(key)}turns", lambda message: self._take(key, message), qos.turns())

    def _warm_up(self, pipeline: Pipeline) -> float:
        """Run artificial turns; returns the longest time from turn to motion after the first turn [s]."""
        assert self.model is not None
        seconds = pipeline.step_seconds
        longest = max(seconds, pipeline.options.look_ahead)
        noise = np.random.default_rng(0).normal(0.0, 0.05, round(longest * MODEL_RATE)).astype(np.float32)
        speech = noise[: round(seconds * MODEL_RATE)]
        frames = np.zeros((round(seconds * MOTION_RATE), MOTION_SIZE), np.float32)
        ahead = noise[: round(pipeline.options.look_ahead * MODEL_RATE)] if pipeline.options.mode == "rolling" else None
        slowest = 0.0
        for number in range(self.value("warm_up_turns")):
            turn_input = TurnInput(number, 0, seconds, speech, speech, frames, agent_ahead=ahead)
            for planned in (True, False):
                started = time.monotonic()
                answered = pipeline.process([replace(turn_input, planned=planned)] * len(pipeline))[0] is not None
                if number and answered:
                    slowest = max(slowest, time.monotonic() - started)
            pipeline.idle()
        return slowest

    def _playback_delay(self, options: PipelineOptions, slowest: float) -> float:
        assert self.model is not None
        # The pipeline's own delay, or twice the measured time of a turn, in steps of 50 ms.
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
        message = StreamInfo(**info_of(self.model, self.options))
        message.header.stamp = to_stamp(self.now_ns())
        return message

    def between_turns(self, call: Callable[[], None], *, forget: str | None = None) -> None:
        """Run ``call`` between two turns; ``forget``: a conversation whose waiting turns are dropped."""
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
        turn_input = turn(message)
        seconds = self.pipeline.step_seconds
        if len(turn_input.agent_speech) != round(seconds * MODEL_RATE):
            what = "hop" if self.options.mode == "rolling" else "turn_seconds"
            raise UserError(
                f"turns of {turn_input.duration:g} s came, but '{self.model.name}' in mode {self.options.mode} takes "
                f"{seconds:g} s: set the segmenter's 'mode' and '{what}'"
            )
        dropped = self.worker.submit(Job(key, turn_input, answer=turn_input.planned == self._anticipatory))
        self.statistics.count("turns dropped", dropped)

    def _answer(self, jobs: list[Job]) -> None:
        """In the worker's thread: motion for turns of different conversations, in one pass."""
        started = time.monotonic()
        turns: list[TurnInput | None] = [None] * len(self.streams)
        for job in jobs:
            row = self.streams[job.key].row
            if not job.dropped:
                turns[row] = job.turn
                continue
            planned = self.pipeline.skip(job.turn, row)
            # A plan from before an interruption shows speech that the agent no longer says.
            if planned is not None and started - self.streams[job.key].interrupted > self.pipeline.turn_seconds:
                self.statistics.count("hops from the plan")
                self._publish(self.streams[job.key], planned)
        try:
            answers = self.pipeline.process(turns)
        except Exception as error:  # a failed pass must not end the conversations
            self.statistics.count("turns failed", sum(turn_input is not None for turn_input in turns))
            self._failure = first_line(error)[:MOST_REASON]
            self.get_logger().error(f"turns failed: {error}\n{traceback.format_exc()}")
            return
        for job in jobs:
            stream = self.streams[job.key]
            answer = None if job.dropped else answers[stream.row]
            if answer is not None and job.turn.planned and job.received < stream.interrupted:
                self.statistics.count("turns cancelled")  # it shows speech that the agent will not say
            elif answer is not None:
                self._publish(stream, answer)
                done = time.monotonic()
                self.statistics.latency("waiting", started - job.received)
                self.statistics.latency("model", answer.timings["total"])
                self.statistics.latency("turn to motion", done - job.received)
                self._note_latency(job, started, answer.timings["total"], done)

    def _note_latency(self, job: Job, started: float, model: float, done: float) -> None:
        if self._log is None:
            return
        try:
            self._log.write(job, started, model, done)
        except OSError as error:  # a full disk ends the log, but not the answers
            self._log = None
            self.note_fault("latency_log", error)

    def _publish(self, stream: Stream, answer: TurnMotion) -> None:
        stream.motion.publish(
            motion_message(
                answer.stamp_ns,
                answer.rate,
                answer.frames,
                turn=answer.number,
                speaking=answer.speaking,
                from_plan=answer.from_plan,
            )
        )
        # The first turn's beginning is known only after it, so the first turn cannot be planned ahead.
        first = self._anticipatory and not self.statistics.counted("turns answered")
        self.statistics.tick("turns answered")
        self._behind = (self.now_ns() - answer.stamp_ns) * 1e-9
        if self._behind > 0.0 and not first:
            self.statistics.count("motion late")

    def _prepare(self) -> None:
        started = time.monotonic()
        self.pipeline.idle()
        if self.value("state_file"):
            self._save()
        self.statistics.latency("idle work", time.monotonic() - started)

    def _save(self) -> None:
        for stream in self.streams.values():
            if stream.state_path is not None:
                stream.save(self.pipeline.state_dict(stream.row))


def main() -> int:
    """Executable `timar_inference`."""
    return run(TimarInference)


if __name__ == "__main__":
    raise SystemExit(main())
