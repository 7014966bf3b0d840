"""Node `partner_selector`: makes the person who speaks, of several people, the user of the conversation."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import Point, PointStamped
from std_msgs.msg import String
from std_srvs.srv import Trigger

from timar_ros.audio.active_speaker import ActiveSpeaker, PartnerChoice
from timar_ros.audio.intake import AudioIntake, Piece
from timar_ros.audio.vad import VoiceActivity
from timar_ros.foreign.foreign_audio import ENCODINGS, PcmFormat
from timar_ros.foreign.foreign_frames import FrameTree
from timar_ros.motion import MODEL_RATE
from timar_ros.msg import AudioChunk, FlameMotion
from timar_ros.ros import messages, qos
from timar_ros.ros.base import ERROR, OK, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.foreign_topics import ForeignTopic
from timar_ros.ros.node_process import run
from timar_ros.ros.parameters import names

TARGET_PERIOD = 0.1
"""Time between two targets of the gaze [s]."""


def _pattern_fault(value: str) -> str | None:
    return None if not value or "{id}" in value else "must contain {id}, the place of the person's name"


def _place_of(message: Any) -> Any:
    """The point (x, y, z) of a PointStamped, PoseStamped or Vector3Stamped.

    :raises MessageError: the message is none of these.
    """
    pose = getattr(message, "pose", None)
    found = getattr(message, "point", None) or getattr(message, "vector", None) or getattr(pose, "position", None)
    if found is None:
        raise messages.MessageError(f"{type(message).__name__} has no point, vector or pose")
    return found


class Person:
    """One candidate's input, and the place where the person is."""

    def __init__(self, pcm_format: PcmFormat) -> None:
        self.intake = AudioIntake(pcm_format)
        self.place: PointStamped | None = None
        self.placed_ns = 0
        self.topics: list[ForeignTopic] = []


class PartnerSelector(ManagedNode):
    """Republishes one person's voice (and head) as the user's; resets the history when the person changes.

    Where people's places are known, the node publishes the partner's as the target of the head's gaze.
    """

    PARAMETERS = (
        Parameter("candidates", [""], "names of the people; none: ROS4HRI's list (/humans/voices/tracked)"),
        Parameter("partner_id", "", "name of a fixed partner; empty: the person who speaks", dynamic=True),
        Parameter("audio_pattern", "/humans/voices/{id}/audio", "a person's audio topic", check=_pattern_fault),
        Parameter("motion_pattern", "", "a person's FlameMotion topic, if there is one", check=_pattern_fault),
        Parameter(
            "place_pattern",
            "",
            "topic of a person's place or direction: PointStamped, PoseStamped or Vector3Stamped; empty: none",
            check=_pattern_fault,
        ),
        Parameter(
            "place_frame", "", "a person's TF frame, such as voice_{id} or face_{id}; empty: none", check=_pattern_fault
        ),
        Parameter("reference_frame", "base_link", "TF frame in which the places of `place_frame` are published"),
        Parameter("place_memory", 30.0, "how long a place counts that is not seen any more [s]", 0.5, 3600.0),
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
        self._tree, self._frames = FrameTree(), list[ForeignTopic]()
        rule = ActiveSpeaker(
            take_after=self.value("take_after"), hold=self.value("hold"), cross_talk=self.value("cross_talk")
        )
        self.choice = PartnerChoice(rule, self.value("strictness"))
        self._stream_id = 0
        self._offset: int | None = None
        self._audio = self.publish_on(AudioChunk, "user/audio", qos.audio())
        self._motion = self.publish_on(FlameMotion, "user/motion", qos.motion())
        self._chosen = self.publish_on(String, "partner_id", qos.latched())
        placed = self.value("place_pattern") or self.value("place_frame")
        self._target = self.publish_on(PointStamped, "gaze/target", qos.commands()) if placed else None
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
        if self.value("place_frame"):
            self._frames = [
                ForeignTopic(self, "/tf_static", lambda m: self._tree.add(m, static=True), optional=True),
                ForeignTopic(self, "/tf", lambda m: self._tree.add(m, static=False), optional=True),
            ]
        if self._target is not None:
            self.every(TARGET_PERIOD, self._show)
        if self.value("partner_id"):
            self._choose(self.value("partner_id"))

    def changed(self, name: str, value: Any) -> None:
        """Parameter `partner_id`: set the partner."""
        if name == "partner_id" and value and self.phase == "active":
            self._add_person(value)
            self._choose(value)

    def diagnose(self) -> Diagnosis:
        """Report the partner and the candidates."""
        topics = [topic for person in self._people.values() for topic in person.topics] + self._frames
        faults = [topic.fault for topic in topics if topic.fault]
        if self._tracked is not None and self._tracked.fault:
            faults.append(self._tracked.fault)
        rows = {"partner": self.partner, "people": ", ".join(sorted(self._people))}
        if self._target is not None:
            rows["place of the partner"] = "known" if self._place(self.partner) is not None else "not known"
        return (ERROR, faults[0], rows) if faults else (OK, self.partner or "no partner yet", rows)

    def _on_tracked(self, message: Any) -> None:
        for person in message.ids:
            self._add_person(person)
        # Trackers give each visitor a new name, so the node removes people who have left.
        for person in set(self._people) - set(message.ids):
            self.choice.forget(person)
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
        if self.value("place_pattern"):
            topic = self.value("place_pattern").replace("{id}", name)
            person.topics.append(ForeignTopic(self, topic, lambda m: self._on_place(name, m), depth=1, optional=True))

    def _on_audio(self, name: str, message: Any) -> None:
        person = self._people.get(name)
        if person is None:  # has left meanwhile
            return
        piece = person.intake.push(message, self.now_ns())
        if piece is None:
            return
        chosen = self.choice.push(name, piece.stamp_ns * 1e-9, piece.samples.mean(axis=1), piece.rate)
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

    def _on_place(self, name: str, message: Any) -> None:
        person = self._people.get(name)
        if person is None:
            return
        at = _place_of(message)
        person.place = PointStamped(point=Point(x=float(at.x), y=float(at.y), z=float(at.z)))
        person.place.header.frame_id = message.header.frame_id
        person.placed_ns = self.now_ns()

    def _place(self, name: str) -> PointStamped | None:
        """Where a person is or was, stamped now; None if that is not known."""
        person, now = self._people.get(name), self.now_ns()
        if person is None:
            return None
        if self.value("place_frame"):
            frame = self.value("place_frame").replace("{id}", name)
            found = self._tree.place(self.value("reference_frame"), frame)
            if found is not None:
                x, y, z = (float(value) for value in found[1])
                person.place = PointStamped(point=Point(x=x, y=y, z=z))
                person.place.header.frame_id = self.value("reference_frame")
                person.placed_ns = found[0] or now
        if person.place is None or now - person.placed_ns > self.value("place_memory") * 1e9:
            return None
        person.place.header.stamp = messages.to_stamp(now)
        return person.place

    def _show(self) -> None:
        """Publish the partner's place."""
        if self._target is not None and (place := self._place(self.partner)) is not None:
            self._target.publish(place)

    def _choose(self, name: str) -> None:
        if name == self.partner:
            return
        previous, self.partner = self.partner, name
        self.choice.rule.partner = name
        self._stream_id += 1
        self._offset = None
        self._chosen.publish(String(data=name))
        self._show()
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
