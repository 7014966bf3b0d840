"""Node `partner_selector`: makes the person who speaks, of several people, the user of the conversation."""

from __future__ import annotations

from typing import Any

from std_msgs.msg import String
from std_srvs.srv import Trigger

from timar_ros.audio.active_speaker import ActiveSpeaker
from timar_ros.audio.intake import AudioIntake, Piece
from timar_ros.audio.vad import FRAME, VoiceActivity
from timar_ros.foreign.foreign_audio import ENCODINGS, PcmFormat
from timar_ros.motion import MODEL_RATE
from timar_ros.msg import AudioChunk, FlameMotion
from timar_ros.ros import messages, qos
from timar_ros.ros.base import ERROR, OK, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.foreign_topics import ForeignTopic
from timar_ros.ros.node_process import run
from timar_ros.ros.parameters import names


def _pattern_fault(value: str) -> str | None:
    return None if not value or "{id}" in value else "must contain {id}, the place of the person's name"


class Person:
    """One candidate's input and speech detector."""

    def __init__(self, pcm_format: PcmFormat) -> None:
        self.intake = AudioIntake(pcm_format)
        self.vad: VoiceActivity | None = None
        self.topics: list[ForeignTopic] = []


class PartnerSelector(ManagedNode):
    """Republishes one person's voice (and head) as the user's; resets the history when the person changes."""

    PARAMETERS = (
        Parameter("candidates", [""], "names of the people; none: ROS4HRI's list (/humans/voices/tracked)"),
        Parameter("partner_id", "", "name of a fixed partner; empty: the person who speaks", dynamic=True),
        Parameter("audio_pattern", "/humans/voices/{id}/audio", "a person's audio topic", check=_pattern_fault),
        Parameter("motion_pattern", "", "a person's FlameMotion topic, if there is one", check=_pattern_fault),
        Parameter("sample_rate", MODEL_RATE, "rate of audio whose messages name no rate [Hz]", 1000, 384_000),
        Parameter("channels", 1, "interleaved channels of audio whose messages name no channels", 1, 64),
        Parameter("encoding", "S16LE", "encoding of raw audio whose messages name none", choices=tuple(ENCODINGS)),
        Parameter("take_after", 0.7, "speech within one second that makes a person the partner [s]", 0.1, 1.0),
        Parameter("hold", 0.5, "silence after which another person may become the partner [s]", 0.0, 60.0),
        Parameter(
            "cross_talk",
            7.0,
            "a voice that is so much quieter than another one is that other person's voice in this person's channel, "
            "each against the person's own loudness; 100: all voices count [dB]",
            1.0,
            100.0,
        ),
        Parameter("strictness", 2, "the detector's strictness; 0: much sound counts as speech, 3: little", 0, 3),
        Parameter("reset_service", "timar_inference/reset", "service to call when the partner changes; empty: none"),
    )

    def __init__(self, **options: Any) -> None:
        super().__init__("partner_selector", **options)
        self.partner = ""

    def configure(self) -> None:
        """Create the publishers; check the library and the format."""
        self._pcm_format = PcmFormat(self.value("sample_rate"), self.value("channels"), self.value("encoding"))
        VoiceActivity(MODEL_RATE, self.value("strictness"))
        self._people: dict[str, Person] = {}
        self._speaker = ActiveSpeaker(
            take_after=self.value("take_after"), hold=self.value("hold"), cross_talk=self.value("cross_talk")
        )
        self._stream_id = 0
        self._offset: int | None = None
        self._audio = self.publish_on(AudioChunk, "user/audio", qos.audio())
        self._motion = self.publish_on(FlameMotion, "user/motion", qos.motion())
        self._chosen = self.publish_on(String, "partner_id", qos.latched())
        service = self.value("reset_service")
        self._reset = self.create_client(Trigger, service) if service else None
        self.partner = ""

    def cleanup(self) -> None:
        """Destroy the service client."""
        if getattr(self, "_reset", None) is not None:
            self.destroy_client(self._reset)
            self._reset = None

    def activate(self) -> None:
        """Subscribe to all candidates."""
        people = names(self.value("candidates"))
        for person in people:
            self._add_person(person)
        self._tracked = None if people else ForeignTopic(self, "/humans/voices/tracked", self._on_tracked, depth=1)
        if self.value("partner_id"):
            self._choose(self.value("partner_id"))

    def changed(self, name: str, value: Any) -> None:
        """Parameter `partner_id`: set the partner."""
        if name == "partner_id" and value and self.phase == "active":
            self._add_person(value)
            self._choose(value)

    def diagnose(self) -> Diagnosis:
        """Report the partner and the candidates."""
        faults = [topic.fault for person in self._people.values() for topic in person.topics if topic.fault]
        if self._tracked is not None and self._tracked.fault:
            faults.append(self._tracked.fault)
        rows = {"partner": self.partner, "people": ", ".join(sorted(self._people))}
        return (ERROR, faults[0], rows) if faults else (OK, self.partner or "no partner yet", rows)

    def _on_tracked(self, message: Any) -> None:
        for person in message.ids:
            self._add_person(person)
        # Trackers give each visitor a new name, so the node removes people who have left.
        for person in set(self._people) - set(message.ids):
            self._speaker.forget(person)
            if person not in (self.partner, self.value("partner_id")):
                for topic in self._people.pop(person).topics:
                    topic.close()

    def _add_person(self, name: str) -> None:
        if name in self._people:
            return
        person = self._people[name] = Person(self._pcm_format)
        topic = self.value("audio_pattern").replace("{id}", name)
        person.topics.append(ForeignTopic(self, topic, lambda m: self._on_audio(name, m), optional=True))
        if self.value("motion_pattern"):
            topic = self.value("motion_pattern").replace("{id}", name)
            person.topics.append(ForeignTopic(self, topic, lambda m: self._on_motion(name, m), optional=True))

    def _on_audio(self, name: str, message: Any) -> None:
        person = self._people.get(name)
        if person is None:  # has left meanwhile
            return
        piece = person.intake.push(message, self.now_ns())
        if piece is None:
            return
        if person.vad is None:
            person.vad = VoiceActivity(piece.rate, self.value("strictness"))
        chosen = None
        for index, heard in enumerate(person.vad.push(piece.samples.mean(axis=1))):
            time = piece.stamp_ns * 1e-9 + index * FRAME / MODEL_RATE
            chosen = self._speaker.push(name, time, heard.speaking, heard.level)
        if chosen is not None and not self.value("partner_id"):
            self._choose(chosen)
        if name == self.partner:
            self._pass_on(piece)

    def _pass_on(self, piece: Piece) -> None:
        if self._offset is None:
            self._offset = piece.sample_index
        index = piece.sample_index - self._offset
        self._audio.publish(
            messages.audio_message(piece.stamp_ns, index, piece.rate, piece.samples, stream_id=self._stream_id)
        )

    def _on_motion(self, name: str, message: Any) -> None:
        if name == self.partner and isinstance(message, FlameMotion):
            self._motion.publish(message)

    def _choose(self, name: str) -> None:
        if name == self.partner:
            return
        previous, self.partner = self.partner, name
        self._speaker.partner = name
        self._stream_id += 1
        self._offset = None
        self._chosen.publish(String(data=name))
        self.get_logger().info(f"the partner is {name}" + (f", no longer {previous}" if previous else ""))
        if previous and self._reset is not None:
            if self._reset.service_is_ready():
                self._reset.call_async(Trigger.Request())
            else:
                self.get_logger().warning(f"no {self._reset.srv_name}: the history of {previous} continues with {name}")


def main() -> int:
    """Executable `partner_selector`."""
    return run(PartnerSelector)


if __name__ == "__main__":
    raise SystemExit(main())
