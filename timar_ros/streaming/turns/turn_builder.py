"""From chunks of two speakers' audio and a tracker's frames to turns of a fixed length.

Only stamps and sample indices count: cutting, duplicating or reordering the input (within ``max_lateness``) changes no
byte of the turns. docs/turns.md has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE, MOTION_RATE
from timar_ros.streaming.sampling_options import MODES, Mode, PipelineOptions
from timar_ros.streaming.sound_intake import MIX, VoiceIntake
from timar_ros.streaming.turns.turn_audio import NS, AudioStream, AudioTrack
from timar_ros.streaming.turns.turn_checks import (
    LARGEST_STAMP,
    MAX_RATE,
    MIN_RATE,
    RejectedError,
    check_count,
    check_frames,
    check_motion_rate,
    check_samples,
)
from timar_ros.streaming.turns.turn_motion import MotionTrack
from timar_ros.streaming.turns.turn_types import TurnCounters, TurnInput, VoiceTiming

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TurnBuilder", "TurnCounters", "TurnInput"]

Role = Literal["user", "agent"]
ROLES: tuple[Role, Role] = ("user", "agent")

FRAME = round(NS / MOTION_RATE)
# A stamp that differs from the stream's count of samples by more than this [ns] is a clock jump or an error, not
# jitter.
JUMP = NS // 4
# This many such stamps in a row, with about the same difference, make a jump.
JUMP_AFTER = 3
# With samples missing for at most this long [ns], the index still gives the place when the stamps disagree.
CONTIGUOUS = 2 * NS
# A stream whose data all came late for this long [ns] runs on another clock.
LATE_FOR = 2 * NS
# A speaker not heard for this long [ns] no longer gives the conversation its clock.
SILENT_FOR = 2 * NS
# Speech that gains less than this factor on a steady clock, over this long [ns], does not come in a burst.
BURST, BURST_OVER = 1.5, NS // 10
# Most turns that may wait for pop().
MOST_WAITING = 256


class TurnBuilder:
    """Collects chunks and emits turns.

    Turn 0 starts at the first audio's stamp: the earliest among the chunks that come within ``max_lateness`` of it. No
    input raises: unusable input is refused with a reason and counted in ``counters``.

    :param turn_seconds: length of a turn [s], a whole number of motion frames.
    :param mode: "reactive"; "anticipatory": each turn is also emitted when it begins, with the agent's speech alone;
        "rolling": a turn here is a hop, and it holds ``agent_ahead`` where the agent's speech comes ahead of its time.
    :param max_lateness: how long after its end [s] a turn waits for missing input.
    :param tracker_timeout: user motion is bridged and held for this long [s], then it counts as not tracked.
    :param max_ahead: input further in the future than this [s] is dropped; bounds the memory.
    :param max_pause: a stretch without any audio longer than this [s] is cut out instead of filled with silent turns.
    :param agent_ahead: whether the agent's audio comes ahead of its time, as from a speech synthesiser; then the stamps
        do not show how late it is. None: in anticipatory mode only. Rolling: True treats every stream of the agent as
        ahead; otherwise the stamps of each stream decide.
    :param planning_lead: anticipatory: how long before its start [s] a turn with complete agent speech is planned, to
        leave time to compute. The user is heard up to then: a turn holds the user's side of this much earlier.
    :param first_number: number of the first turn.
    :param look_ahead: rolling: length of the agent's speech after a hop [s]. A stream of the agent whose first chunk
        comes this long before its stamp is ahead to its end; any other stream is heard late.
    :param voice_delay: rolling: how late the agent's voice is heard [s] when its stream is not ahead.
    :param streams_ahead: rolling: whether a stream of the agent is ahead, by its stream_id, where a bag recorded this.
        For other streams the stamps decide.
    :param channel: which channel of the user's audio is heard, from 0 on; -1: the mean of all.
    """

    def __init__(
        self,
        turn_seconds: float = 1.0,
        mode: Mode = "reactive",
        *,
        max_lateness: float = 0.05,
        tracker_timeout: float = 0.25,
        max_ahead: float = 60.0,
        max_pause: float = 10.0,
        agent_ahead: bool | None = None,
        planning_lead: float = PipelineOptions.planning_lead,
        first_number: int = 0,
        look_ahead: float = PipelineOptions.look_ahead,
        voice_delay: float = PipelineOptions.hop + PipelineOptions.hop_margin,
        streams_ahead: Mapping[int, bool] | None = None,
        channel: int = MIX,
    ) -> None:
        frames = turn_seconds * MOTION_RATE
        if frames < 1 or abs(frames - round(frames)) > 1e-6:
            raise ValueError(
                f"turn_seconds is {turn_seconds}; it must be a whole number of frames of {1 / MOTION_RATE} s"
            )
        if mode not in MODES:
            raise ValueError(f"mode is '{mode}'; it must be {' or '.join(map(repr, MODES))}")
        for name, value in (
            ("max_lateness", max_lateness),
            ("tracker_timeout", tracker_timeout),
            ("max_ahead", max_ahead),
            ("max_pause", max_pause),
            ("planning_lead", planning_lead),
            ("look_ahead", look_ahead),
            ("voice_delay", voice_delay),
        ):
            if not 0.0 <= value <= 3600.0:
                raise ValueError(f"{name} is {value} s; it must lie between 0 and 3600")
        self.counters = TurnCounters()
        self.duration = float(turn_seconds)
        self._frames = round(frames)
        self._samples = self._frames * round(MODEL_RATE / MOTION_RATE)
        self._length = self._frames * FRAME
        self._planning = mode == "anticipatory"
        # In rolling mode the stamps of a stream decide whether it is ahead, so the agent's stamps never show the time.
        self._rolling = mode == "rolling"
        self._agent_ahead = self._rolling or (self._planning if agent_ahead is None else agent_ahead)
        self._known_ahead = self._rolling and bool(agent_ahead)
        self._streams_ahead = dict(streams_ahead or {})
        self._look = round(look_ahead * NS)
        self._voice_delay = round(voice_delay * NS)
        self._lateness = round(max_lateness * NS)
        self._max_ahead = round(max_ahead * NS)
        self._max_pause = round(max_pause * NS)
        self._lead = round(planning_lead * NS) if self._planning else 0
        self._tracks: dict[Role, AudioTrack] = {role: AudioTrack() for role in ROLES}
        self._intakes: dict[Role, VoiceIntake] = {"user": VoiceIntake(channel), "agent": VoiceIntake()}
        self._motion = MotionTrack(round(tracker_timeout * NS), most=2000 + round(max_ahead * 120))
        self._out: list[TurnInput] = []
        self._voices: list[VoiceTiming] = []
        self._number = first_number
        self._planned = first_number  # the next turn to be planned
        self._emitted_until: int | None = None  # end of the last emitted turn
        self._start: int | None = None  # start of the turn being built; conversation time [ns], as all times below
        self._earliest: int | None = None  # start of the first audio, until the first turn's start is settled
        self._present: int | None = None  # the latest time that has certainly passed
        self._shift = 0  # stamp minus conversation time; moves when a clock jumps
        self._reference: Role = "user"  # whose clock the turns' stamps follow
        self._fresh: int | None = None  # the latest time shown by data since the last advance()
        self._now: int | None = None  # the last advance()'s clock
        self._offset: int | None = None  # conversation time minus that clock
        self._speech: list[tuple[int, int]] = []  # steady time and end of the agent's speech at the last looks [ns]

    @classmethod
    def of(cls, options: PipelineOptions, turn_seconds: float, **more: Any) -> Self:
        """A builder of turns for a pipeline with these options and the model's turn length [s]."""
        more.setdefault("channel", options.channel)
        return cls(
            options.step_seconds(turn_seconds),
            options.mode,
            planning_lead=options.planning_lead,
            look_ahead=options.look_ahead,
            voice_delay=options.hop + options.hop_margin,
            **more,
        )

    @property
    def next_number(self) -> int:
        """Number of the turn being built."""
        return self._number

    def add_audio(
        self,
        role: Role,
        stamp_ns: int,
        sample_index: int,
        rate: int,
        samples: Any,
        stream_id: int = 0,
        end: bool = False,
    ) -> str | None:
        """Take a chunk of a speaker's audio.

        :param role: "user" or "agent".
        :param stamp_ns: time of the chunk's first sample [ns].
        :param sample_index: index of that sample since the stream began.
        :param rate: samples per second and channel [Hz].
        :param samples: [n] or [n, channels] in [-1, 1] (or 16- or 32-bit integers).
        :param stream_id: identifies one uninterrupted count of samples.
        :param end: whether the stream ends with this chunk, which may then be empty.
        :returns: None, or why the chunk was refused.
        """
        try:
            track = self._tracks.get(role)
            if track is None:
                raise RejectedError("role is neither user nor agent")
            stamp = check_count(stamp_ns, "stamp", lowest=-LARGEST_STAMP)
            index = check_count(sample_index, "sample index")
            rate = check_count(rate, "sample rate", MIN_RATE, MAX_RATE)
            stream_id = check_count(stream_id, "stream id")
            chunk = self._intakes[role].take(check_samples(samples))
            if role == "user":
                stamp += self._lead
            if not len(chunk) and not end:
                raise RejectedError("empty chunk")
        except (RejectedError, UserError) as reason:
            return self._refuse(str(reason))
        self.counters.audio_chunks += 1
        refused = self._take(role, track, stamp, index, rate, chunk, stream_id, bool(end))
        self._close()
        return refused

    def add_motion(self, stamp_ns: int, rate: float, frames: Any) -> str | None:
        """Take frames of the user's head.

        :param stamp_ns: time of the first frame [ns].
        :param rate: frames per second [Hz].
        :param frames: [n, 56] in TIMAR order; NaN where not tracked.
        :returns: None, or why they were refused.
        """
        try:
            stamp = check_count(stamp_ns, "stamp", lowest=-LARGEST_STAMP)
            checked, absurd = check_frames(frames)
            rate = check_motion_rate(rate)
        except RejectedError as reason:
            return self._refuse(str(reason))
        time = stamp + self._lead - self._shift
        if self._present is not None and abs(time - self._present) > self._max_ahead:
            return self._refuse("motion stamps are far from the audio's")
        self._settle_motion(time - self._lateness)
        self._motion.interval = round(NS / rate)
        late = None if self._start is None else self._start - FRAME
        for number, frame in enumerate(checked):
            at = time + round(number * NS / rate)
            if late is not None and at < late:
                self.counters.late_frames += 1
            elif self._present is not None and at > self._present + self._max_ahead:
                self.counters.too_far_ahead += 1
            elif self._motion.add(at, frame):
                self.counters.motion_frames += 1
            else:
                self.counters.duplicate_frames += 1
        self._close()
        return self._refuse("motion has impossible values") if absurd else None

    def end_motion_gap(self, stamp_ns: int) -> str | None:
        """The tracker saw nothing up to now: no frame from before this stamp [ns] follows, and no turn waits for one.

        :returns: None, or why it was refused.
        """
        try:
            stamp = check_count(stamp_ns, "stamp", lowest=-LARGEST_STAMP)
        except RejectedError as reason:
            return self._refuse(str(reason))
        self._settle_motion(stamp + self._lead - self._shift)
        self._close()
        return None

    def _settle_motion(self, time: int) -> None:
        # A stray stamp settles nothing.
        if self._present is not None and time <= self._present + SILENT_FOR:
            self._motion.settle(time)

    def advance(self, now_ns: int, steady_ns: int | None = None) -> None:
        """Advance the time, by any clock, so that turns close when input stops.

        Only the time since the last data counts, so another clock than the stamps' does no harm.

        :param steady_ns: a clock that runs with real time. Anticipatory: it shows whether more of the agent's speech is
            on its way to a turn that should be planned by now. Without this clock, such a turn is planned when its
            speech is complete, or when the turn is over.
        """
        try:
            now = check_count(now_ns, "clock", lowest=-LARGEST_STAMP)
        except RejectedError as reason:
            self._refuse(str(reason))
            return
        self._pass_time(now)
        if self._planning and steady_ns is not None:
            self._plan_without_more(steady_ns)

    def _pass_time(self, now: int) -> None:
        before, self._now = self._now, now
        if self._present is None:
            if self._earliest is None:
                return
            # Only speech ahead of its time has arrived, which does not show the time; this clock does, if the stamps
            # can be of the same clock.
            time = now + self._lead - self._shift
            self._present = time if abs(time - self._earliest) <= self._max_ahead else self._earliest
        if before is not None and not 0 <= now - before <= self._max_pause:
            self.counters.clock_jumps += 1
            self._offset = None
        if self._fresh is not None or self._offset is None:
            self._offset = (self._present if self._fresh is None else self._fresh) - now
            self._fresh = None
            return
        self._present = max(self._present, now + self._offset)
        self._close()

    def drop_agent(self) -> None:
        """After an interruption, drop agent audio that has not begun to sound, and refuse more of its streams.

        Later speech must have another stream_id.
        """
        now = max((time for time in (self._start, self._present) if time is not None), default=None)
        for stream in self._tracks["agent"].streams:
            begin = stream.samples.begin or 0
            at = begin if now is None else max(stream.index_at(now), begin)
            stream.samples.cut(at)
            stream.end = at if stream.end is None else min(stream.end, at)
            stream.dropped = True

    def pop(self) -> list[TurnInput]:
        """The turns completed since the last call, in order."""
        out, self._out = self._out, []
        return out

    def pop_voices(self) -> list[VoiceTiming]:
        """The streams of the agent's speech that began since the last call, in order of arrival."""
        voices, self._voices = self._voices, []
        return voices

    def remarks(self) -> list[str]:
        """Faults of the speakers' sound since the last call, in words."""
        return [f"{role}: {remark}" for role, intake in self._intakes.items() for remark in intake.remarks()]

    def finish(self) -> list[TurnInput]:
        """End the input: close all turns that hold any of it, the last one padded with silence."""
        for track in self._tracks.values():
            for stream in track.streams:
                stream.end = stream.samples.end if stream.end is None else stream.end
        self._flush()
        return self.pop()

    def _refuse(self, reason: str) -> str:
        self.counters.rejected[reason] = self.counters.rejected.get(reason, 0) + 1
        return reason

    def _take(
        self, role: Role, track: AudioTrack, stamp: int, index: int, rate: int, chunk: Any, stream_id: int, end: bool
    ) -> str | None:
        stream = self._find(role, track, stamp, index, rate, len(chunk), stream_id)
        if stream is None:
            self._note_late(track, len(chunk), len(chunk))
            return None
        if stream.dropped:
            return self._refuse("the stream was dropped")
        if end:
            stream.end = index + len(chunk)
        first, last = self._acceptable(stream, index, index + len(chunk))
        if last < index + len(chunk):
            self.counters.too_far_ahead += 1
        if first >= index + len(chunk) > index:
            if not self._note_late(track, len(chunk), len(chunk)):
                return None
            stream = self._resynchronise(role, track, stream, stamp, index)
            first, last = self._acceptable(stream, index, index + len(chunk))
        else:
            self._note_late(track, first - index, len(chunk))
        if first < last:
            self._store(role, stream, first, chunk[first - index : last - index])
        return None

    def _acceptable(self, stream: AudioStream, first: int, last: int) -> tuple[int, int]:
        """Those of the indices that are neither late nor so far ahead that they would fill the memory."""
        known = max((t for t in (self._present, self._start) if t is not None), default=self._earliest)
        if self._start is not None:
            first = max(first, stream.index_at(self._start))
        elif known is not None:
            first = max(first, stream.index_at(known - self._max_pause))
        if known is not None:
            last = min(last, stream.index_at(known + self._max_ahead))
        return first, last

    def _store(self, role: Role, stream: AudioStream, index: int, samples: Any) -> None:
        highest = stream.samples.end
        has_begun = stream.samples.begin is not None
        new = stream.samples.write(index, samples)
        if not new:
            self.counters.duplicate_chunks += 1
        elif has_begun and index < highest:
            self.counters.reordered_chunks += 1
        time = stream.time_of(index)
        if self._start is None:
            self._earliest = time if self._earliest is None else min(self._earliest, time)
        if role == "user" or not (self._agent_ahead or stream.ahead):
            self._present = time if self._present is None else max(self._present, time)
            self._fresh = time if self._fresh is None else max(self._fresh, time)

    def _find(
        self, role: Role, track: AudioTrack, stamp: int, index: int, rate: int, count: int, stream_id: int
    ) -> AudioStream | None:
        """The stream that a chunk belongs to, begun if needed; None for a late chunk without a stream."""
        known = [s for s in track.streams if s.continues(stream_id, rate, index)]
        for stream in reversed(known):
            difference = stamp - stream.clock - stream.time_of(index)
            if abs(difference) <= JUMP:
                ahead = self._present is not None and stream.time_of(index) - self._present > self._max_pause
                if ahead and not (role == "agent" and (self._agent_ahead or stream.ahead)):
                    # Nobody was heard for long: audio of the other speaker would have advanced the present.
                    return self._begin(role, track, stamp, index, rate, count, stream_id, pause=True)
                stream.strays = 0
                if index >= stream.samples.end:  # a repeat holds no new samples
                    stream.note_stamp(difference, count / rate)
                return stream
        if known:
            stream = known[-1]
            gap = (index - stream.samples.end) * NS // rate
            if -(count * NS // rate) - self._lateness <= gap <= CONTIGUOUS:
                self._note_stray(role, stream, stamp, index)
                return stream
        return self._begin(role, track, stamp, index, rate, count, stream_id)

    def _begin(
        self,
        role: Role,
        track: AudioTrack,
        stamp: int,
        index: int,
        rate: int,
        count: int,
        stream_id: int,
        pause: bool = False,
    ) -> AudioStream | None:
        """Begin a stream at its stamp, or at the present when the stamp is implausible."""
        time = stamp - self._shift
        leads = self._leads(role) or pause
        reach = self._max_ahead if role == "agent" and self._agent_ahead else self._max_pause
        if self._start is not None and self._idle() and time >= self._start + self._length:
            # All streams had ended; the conversation continues here.
            self._flush()
            self._start = max(time, self._start)
            self.counters.pauses += 1
        elif self._present is not None and not -self._max_pause <= time - self._present <= reach:
            ahead = time > self._present
            time = self._present if self._start is None else max(self._present, self._start)
            if leads and ahead:
                self.counters.pauses += 1
            else:
                self.counters.foreign_clocks += 1
        elif (
            self._start is not None
            and time + count * NS // rate <= self._start
            and track.late_for(self._present) < LATE_FOR
        ):
            return None
        elif self._start is not None and time + count * NS // rate <= self._start:
            track.late_since = None
            self.counters.foreign_clocks += 1
            time = max(self._present or 0, self._start)
        if leads:
            self._shift = stamp - time
        return self._open(track, stamp, index, rate, stream_id, time)

    def _open(self, track: AudioTrack, stamp: int, index: int, rate: int, stream_id: int, time: int) -> AudioStream:
        stream = AudioStream(stream_id, rate, base=time - index * NS // rate, clock=stamp - time)
        if track is self._tracks["agent"]:
            enough = self._lead_of(time) >= (self._look if self._rolling else JUMP)
            stream.ahead = self._known_ahead or self._streams_ahead.get(stream_id, enough)
            self._voices = [*self._voices[-MOST_WAITING:], VoiceTiming(stream_id, stamp, stream.ahead)]
        track.begin(stream, time)
        self.counters.streams += 1
        return stream

    def _lead_of(self, time: int) -> int:
        """How long before its conversation time speech that begins now has arrived [ns]; 0 where unknown."""
        present = self._present
        if present is None and self._now is not None:
            # No audio has arrived yet. The clock gives the time, if the stamps can be of the same clock.
            present = self._now - self._shift
            if abs(time - present) > self._max_ahead:
                return 0
        return 0 if present is None else time - present

    def _leads(self, role: Role) -> bool:
        """Whether the turns' stamps follow this speaker's clock; a silent speaker hands over to the other."""
        if role != self._reference:
            heard = self._tracks[self._reference].data_end()
            if heard is not None and self._present is not None and heard > self._present - SILENT_FOR:
                return False
            self._reference = role
        return True

    def _note_stray(self, role: Role, stream: AudioStream, stamp: int, index: int) -> None:
        """Note a stamp that contradicts the index: an error, or (the third in a row) a clock jump."""
        difference = stamp - stream.clock - stream.time_of(index)
        stream.strays = stream.strays + 1 if abs(difference - stream.stray_by) <= JUMP else 1
        stream.stray_by = difference
        self.counters.stray_stamps += 1
        if stream.strays >= JUMP_AFTER:
            stream.strays = 0
            stream.drift = 0.0
            stream.clock += difference
            self.counters.clock_jumps += 1
            if self._leads(role):
                self._shift += difference

    def _note_late(self, track: AudioTrack, late: int, count: int) -> bool:
        """Count samples that came too late; True when they came late for so long that their clock must differ."""
        if late <= 0:
            track.late_since = None
            return False
        self.counters.late_chunks += 1
        self.counters.late_samples += late
        if late < count:
            track.late_since = None
        elif track.late_since is None:
            track.late_since = self._present
        return track.late_for(self._present) >= LATE_FOR

    def _resynchronise(self, role: Role, track: AudioTrack, stream: AudioStream, stamp: int, index: int) -> AudioStream:
        """Continue a stream at the present: a voice placed by its arrival is better than no voice."""
        track.late_since = None
        self.counters.foreign_clocks += 1
        assert self._present is not None
        assert self._start is not None
        time = max(self._present, self._start)
        if self._leads(role):
            self._shift = stamp - time
        return self._open(track, stamp, index, stream.rate, stream.stream_id, time)

    def _idle(self) -> bool:
        """Whether every speaker's stream has ended."""
        return all(track.ended or not track.streams for track in self._tracks.values())

    def _close(self) -> None:
        """Emit every turn that is complete or need not wait longer."""
        if self._present is None:
            return
        if self._start is None:
            if self._earliest is None or self._present < self._earliest + self._lateness:
                return
            self._start = self._earliest
        while True:
            if self._planned == self._number and self._plan_due(self._start):
                self._give_planned(self._start)
            if not self._due(self._start):
                return
            self._start = self._give(self._start)

    def _flush(self) -> None:
        """Emit every turn that holds any audio, without waiting."""
        if self._start is None:
            self._start = self._earliest
        while self._start is not None and self._has_audio(self._start):
            self._start = self._give(self._start)

    def _has_audio(self, start: int) -> bool:
        ends = [end for track in self._tracks.values() if (end := track.data_end()) is not None]
        return max(ends, default=start) >= start + FRAME

    def _due(self, start: int) -> bool:
        assert self._present is not None
        if self._idle() and not self._has_audio(start):
            return False
        end = start + self._length
        look = max((t.newest.lookahead() for t in self._tracks.values() if t.newest is not None), default=0)
        if self._present >= end + look + self._lateness:
            return True
        return (
            self._tracks["user"].ready(start, end, self._present - self._lateness)
            and self._agent_ready(start, end)
            and self._motion.ready(start, end - FRAME, end)
        )

    def _agent_ready(self, start: int, end: int) -> bool:
        assert self._present is not None
        track = self._tracks["agent"]
        if not self._agent_ahead:
            return track.ready(start, end, self._present - self._lateness)
        if self._rolling and self._voice_ahead(end):
            newest = track.newest
            settled = self._present - self._lateness
            if newest is not None and newest.ahead and newest.time_of(newest.samples.end) <= settled:
                return True  # the stream ran dry: samples that arrive now are too late for their time
            end += self._look
        # Speech this far ahead is already in order: an utterance begins at its first chunk.
        return not track.streams or track.ready(start, end, settled=LARGEST_STAMP)

    def _voice_ahead(self, end: int) -> bool:
        """Rolling: whether the agent's speech after this time [ns] is known: it is ahead, or the agent is silent."""
        for stream in self._tracks["agent"].streams:
            # Delayed speech is not audible yet at its first stamp: up to there the agent is silent.
            if stream.samples.begin is None or stream.ahead or stream.start >= end:
                continue
            over = stream.time_of(stream.samples.end if stream.end is None else stream.end)
            lost = stream.end is None and over < end - SILENT_FOR  # a source that stopped without an end
            if not lost and (stream.end is None or over + self._voice_delay > end):
                return False
        return True

    def _plan_due(self, start: int) -> bool:
        assert self._present is not None
        if not self._planning or (self._idle() and not self._has_audio(start)):
            return False
        # A complete previous turn also shows that this turn begins.
        if self._present < start and self._emitted_until != start:
            return False
        return self._agent_ready(start, start + self._length)

    def _plan_without_more(self, steady: int) -> None:
        """Plan a turn whose start is over, if the rest of its speech is not on its way.

        The user's stamps alone cannot show this: after a delay, both speakers' chunks wait to be taken, and the user's
        may be taken first.
        """
        end = self._tracks["agent"].data_end() or 0
        self._speech = [look for look in self._speech if look[0] > steady - 2 * BURST_OVER]
        before = next((look for look in reversed(self._speech) if look[0] <= steady - BURST_OVER), None)
        self._speech.append((steady, end))
        start = self._start
        if before is None or start is None or self._present is None or self._planned != self._number:
            return
        stalled = end - before[1] < BURST * (steady - before[0])
        if stalled and self._present >= start + self._lateness and not (self._idle() and not self._has_audio(start)):
            self._give_planned(start)
            self._close()

    def _give_planned(self, start: int) -> None:
        speech, lost = self._tracks["agent"].render(start, self._samples)
        self.counters.planned_turns += 1
        self._put(
            TurnInput(
                number=self._planned,
                stamp_ns=start + self._shift,
                duration=self.duration,
                user_speech=np.zeros(self._samples, dtype=np.float32),
                agent_speech=speech,
                user_motion=None,
                planned=True,
                lost_agent=lost,
            )
        )
        self._planned += 1

    def _give(self, start: int) -> int:
        """Emit the turn that starts here; returns where the next turn starts."""
        if self._planning and self._planned == self._number:
            self._give_planned(start)
        user, lost_user = self._tracks["user"].render(start, self._samples)
        agent, lost_agent = self._tracks["agent"].render(start, self._samples)
        wanted = start + FRAME * np.arange(self._frames, dtype=np.int64)
        ahead = None
        if self._rolling and self._voice_ahead(start + self._length):
            count = self._look * MODEL_RATE // NS
            ahead, _ = self._tracks["agent"].render(start + self._length, count, only_ahead=True)
        self._put(
            TurnInput(
                number=self._number,
                stamp_ns=start + self._shift,
                duration=self.duration,
                user_speech=user,
                agent_speech=agent,
                user_motion=self._motion.render(wanted, start + self._length),
                agent_ahead=ahead,
                lost_user=lost_user,
                lost_agent=lost_agent,
            )
        )
        self.counters.turns += 1
        self.counters.lost_user += lost_user
        self.counters.lost_agent += lost_agent
        self._number += 1
        self._emitted_until = following = start + self._length
        for track in self._tracks.values():
            if track.newest is not None and track.newest.follow_drift():
                self.counters.drift_steps += 1
            track.forget(following)
        self._motion.forget(following)
        return following

    def _put(self, turn: TurnInput) -> None:
        if len(self._out) >= MOST_WAITING:
            del self._out[0]
            self.counters.unread_turns += 1
        self._out.append(turn)
