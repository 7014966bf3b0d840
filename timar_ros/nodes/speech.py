"""Node `speech`: publishes a text as the agent's audio, ahead of its time, in chunks as the engine produces them."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from std_msgs.msg import Bool, Header, String

from timar_ros.audio.speech_queue import MOST_WAITING, SpeechQueue, mono_pcm
from timar_ros.audio.text_to_speech import ENGINES, text_to_speech
from timar_ros.errors import UserError
from timar_ros.msg import AudioChunk, StreamInfo
from timar_ros.node_parts.speech_action import SpeechAction, Wish, serve_speech
from timar_ros.ros import qos
from timar_ros.ros.base import ERROR, OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.head_client import OTHERS, lead_of
from timar_ros.ros.messages import audio_chunk_message, to_ns
from timar_ros.ros.node_process import run

UNPLAYED = 3.0
"""A text of a goal that was not played so long after its time [s] counts as not heard by anybody."""
PERIOD = 0.05
"""How often the node checks waiting speech and the loudspeaker's state [s]."""


class Speech(ManagedNode):
    """Says texts one after the other. `cancel` ends the current text and drops waiting texts."""

    PARAMETERS = (
        Parameter("engine", "espeak-ng", "engine that converts text to speech", choices=ENGINES),
        Parameter("voice", "", "espeak-ng: a voice's name; piper: the path of an .onnx voice", dynamic=True),
        Parameter("speed", 160, "espeak-ng: words a minute", 40, 500, dynamic=True),
        Parameter("command", "", "engine command: a program that reads text and writes raw 16-bit mono samples"),
        Parameter("command_rate", 22050, "engine command: the rate of its samples [Hz]", 1000, 384_000),
        Parameter("action", "tts_engine/tts", "name of the tts_msgs/action/TTS server, where its types are installed"),
        Parameter("most_waiting", 20, "most texts that wait; the node refuses further ones", 1, 1000),
    )

    _thread: threading.Thread | None = None
    _action: SpeechAction | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__("speech", **options)
        self._lock = threading.RLock()
        self._texts: queue.Queue[Wish | None] = queue.Queue()
        self._goals: list[Wish] = []
        self._speech = SpeechQueue()

    def configure(self) -> None:
        """Find the engine, create publishers and subscriptions."""
        self._engine()
        self._texts = queue.Queue()
        self._goals = []
        self._playback_delay = 0.0
        self._generation = 0
        self._ready = False
        self._speaking: bool | None = None
        self._trouble: str | None = None
        self._held_until = 0.0
        self._output = self.publish_on(AudioChunk, "agent/audio", qos.audio())
        self._state = self.publish_on(Bool, "agent/speaking", qos.latched())
        self.subscribe(String, "say", self._take, qos.turns(), optional=True)
        self.subscribe(Header, "cancel", self._cancel, qos.commands(), optional=True)
        self.subscribe(AudioChunk, "agent/audio_out", self._take_played, qos.audio(), optional=True)
        self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)
        self._interruption = self.publish_on(Header, "cancel", qos.commands())
        self.every(PERIOD, self._tick, steady=True)
        if self.value("action"):
            self._action = serve_speech(self, self.value("action"), self._why_not, self._take_goal, self._cancel_goal)

    def activate(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._work, name="speech", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Drop waiting texts and end the engine's program."""
        if self._thread is not None:
            self._drop()
            self._texts.put(None)
            self._thread.join()
            self._thread = None
        self._settle()

    def cleanup(self) -> None:
        """Destroy the action server."""
        action, self._action = self._action, None
        if action is not None:
            action.close()

    def diagnose(self) -> Diagnosis:
        """Report waiting texts and the engine's state."""
        rows = {"texts waiting": str(self._texts.qsize()), "engine": str(self.value("engine"))}
        rows["action"] = self.value("action") if self._action is not None else "none: tts_msgs is not installed"
        if self._trouble is not None:
            return ERROR, self._trouble, rows
        if not self._ready:
            return WARN, "waiting for stream_info", rows
        return OK, "speaking" if self._speaking else "silent", rows

    def _engine(self, voice: str = "", locale: str = "") -> Any:
        own = self.value("voice")
        # espeak-ng's voice for locale en_GB is en-gb, or a variant of it. Other programs' voices follow no rule.
        wanted = locale.replace("_", "-").lower() if self.value("engine") == "espeak-ng" else ""
        return text_to_speech(
            self.value("engine"),
            voice or (own if own.lower().startswith(wanted) else wanted),
            self.value("speed"),
            self.value("command"),
            self.value("command_rate"),
        )

    def _take_info(self, message: StreamInfo) -> None:
        with self._lock:
            self._speech.lead = lead_of(message)
            self._playback_delay = float(message.playback_delay)
            self._ready = True

    def _take(self, message: String) -> None:
        if (reason := self._why_not(message.data)) is not None:
            raise UserError(reason)
        self._texts.put(Wish(message.data, self._generation))

    def _why_not(self, text: str) -> str | None:
        """The reason why the node refuses a text, or None."""
        if not text.strip():
            return "the text is empty"
        if self._texts.qsize() >= self.value("most_waiting"):
            return f"{self._texts.qsize()} texts wait already ('most_waiting')"
        return None if self._thread is not None else "the node is not active"

    def _take_goal(self, wish: Wish) -> None:
        wish.generation = self._generation
        self._goals.append(wish)
        self._texts.put(wish)

    def _cancel_goal(self, wish: Wish) -> None:
        """A client cancels its goal. If the loudspeaker plays the goal's text, the agent is interrupted."""
        with self._lock:
            if not wish.begun:
                wish.error = "cancelled"
                return
        self._interruption.publish(Header(stamp=self.get_clock().now().to_msg()))
        self._drop()

    def _take_played(self, message: AudioChunk) -> None:
        count = len(message.data) // max(1, message.channels)
        with self._lock:
            self._speech.hear(message.stream_id, message.sample_index, count, to_ns(message.header.stamp))
        self._publish_speaking()

    def _cancel(self, _message: Header) -> None:
        self._drop()
        with self._lock:
            self._held_until = time.monotonic() + OTHERS
        self.statistics.count("interruptions")

    def _drop(self) -> None:
        with self._lock:
            self._generation += 1
            self._speech.cancel()

    def _tick(self) -> None:
        self._publish()
        self._publish_speaking()
        self._settle()

    def _settle(self) -> None:
        """End the goals whose text was played, failed or was interrupted."""
        with self._lock:
            now, played = self.now_ns(), self._speech.played(self.now_ns())
            for wish in list(self._goals):
                if wish.generation != self._generation and not wish.error:
                    wish.error = "interrupted"
                late = now - self._speech.said_until_ns > (self._playback_delay + UNPLAYED) * 1e9
                if wish.complete and not wish.error and not wish.heard(played) and self._speech.empty and late:
                    wish.error = "nobody plays agent/audio_out"
                if wish.error or (wish.complete and wish.heard(played)):
                    self._goals.remove(wish)
                    wish.answer()

    def _publish_speaking(self) -> None:
        """Publish agent/speaking when the loudspeaker starts or stops to play speech."""
        with self._lock:
            speaking = self._speech.played(self.now_ns()).speaking
        if speaking != self._speaking:
            self._speaking = speaking
            self._state.publish(Bool(data=speaking))

    def _publish(self) -> None:
        with self._lock:
            if not self._ready or time.monotonic() < self._held_until:
                return
            for chunk in self._speech.due(self.now_ns()):
                self._output.publish(audio_chunk_message(chunk))

    def _work(self) -> None:
        """In the speech thread: say one text after the other."""
        while (job := self._texts.get()) is not None:
            with self._lock:
                job.begun = not job.error
            if job.error or job.generation != self._generation:  # canceled, or interrupted, while it waited
                self.statistics.count("texts cancelled")
                continue
            try:
                self._speak(job)
                self._trouble = None
            except UserError as error:
                self._trouble = job.error = str(error)
                self.statistics.count("texts failed")
                self.get_logger().error(str(error))

    def _speak(self, wish: Wish) -> None:
        generation = wish.generation
        pieces = self._engine(wish.voice, wish.locale).speak(wish.text)
        try:
            for samples, rate in pieces:
                with self._lock:
                    if generation != self._generation:
                        self.statistics.count("texts cancelled")
                        return
                    wish.utterance = self._speech.say(mono_pcm(samples, rate), rate)
                    wish.seconds += len(samples) / rate
                    self._publish()
                while self._speech.waiting_seconds > MOST_WAITING and generation == self._generation:
                    time.sleep(PERIOD)  # the full pipe then blocks the program
        finally:
            pieces.close()
            with self._lock:
                if generation == self._generation:
                    self._speech.finish()
                    self._publish()
        wish.complete = True
        self.statistics.tick("texts said")


def main() -> int:
    """Executable `speech`."""
    return run(Speech)


if __name__ == "__main__":
    raise SystemExit(main())
