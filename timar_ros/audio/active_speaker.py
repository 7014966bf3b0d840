"""The choice of the partner among several people: who holds the floor, from each person's detected speech."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from timar_ros.audio.vad import FRAME, VoiceActivity
from timar_ros.motion import MODEL_RATE

STEP = FRAME / MODEL_RATE
"""Length of a frame [s]."""

# A single frame may be noise: this many frames within RUN seconds count as speech.
RUN_FRAMES, RUN = 5, 0.25
# Who takes the floor speaks at the moment: the last speech is no older than this [s].
ONGOING = 0.12
# Frames over which a channel's level is averaged: microphones at different distances differ by some ms.
AVERAGED = 5
# How fast the memory of a person's own loudness fades while the person speaks [dB/s].
FADING = 0.5


@dataclass
class _Channel:
    """What is known of one person: frames that wait for their turn, own speech, loudness."""

    waiting: deque[tuple[int, bool, float]] = field(default_factory=deque)
    newest: int = -1  # number of the newest frame that came
    powers: deque[float] = field(default_factory=lambda: deque([0.0] * AVERAGED, AVERAGED))
    speaking: bool = False  # the detector's word on the last frame
    level: float = -math.inf  # of the last frames [dB]
    loudness: float | None = None  # of the person's own speech [dB]
    own: deque[int] = field(default_factory=deque)  # numbers of the frames of own speech in the window
    last: int | None = None  # number of the last frame of speech that is no noise

    def take(self, number: int) -> None:
        """Take the frames up to a number; without any, the channel is silent."""
        self.speaking = False
        while self.waiting and self.waiting[0][0] <= number:
            _, self.speaking, level = self.waiting.popleft()
            self.powers.append(10 ** (level / 10))
        if self.speaking:
            self.level = 10 * math.log10(max(sum(self.powers) / AVERAGED, 1e-12))


class ActiveSpeaker:
    """Chooses the person who holds the floor as the partner.

    A partner stays the partner while speaking, also when others speak at the same time, and ``hold`` seconds after
    that. Then whoever spoke for ``take_after`` of the last ``window`` seconds, and still speaks, becomes the partner; a
    short "mhm" is not enough. Another person's voice in a channel does not count: speech there that is ``cross_talk``
    quieter than in another channel, each measured against the person's own loudness.

    People's frames are put in the order of their times before a decision. So the result does not depend on the order
    in which the frames of people who all send come, as long as no frame is ``wait`` older than the newest one.

    :param take_after: speech that makes a person the partner [s].
    :param window: length of the window in which speech counts [s].
    :param hold: silence after which another person may become the partner [s].
    :param cross_talk: difference of levels [dB]; infinite: all speech counts.
    :param wait: how long decisions wait for the frames of a person whose voice comes late [s].
    """

    def __init__(
        self,
        take_after: float = 0.7,
        window: float = 1.0,
        hold: float = 0.5,
        cross_talk: float = 7.0,
        wait: float = 0.2,
    ) -> None:
        self.take_after, self.window, self.hold, self.cross_talk = take_after, window, hold, cross_talk
        self.partner: str | None = None
        self.decided = -math.inf
        """Time of the last decision [s]: the end of the frame that it used last."""
        self._wait = round(wait / STEP)
        self._people: dict[str, _Channel] = {}
        self._next: int | None = None  # number of the next frame to decide
        self._first = 0  # number of the first frame that came

    def push(self, person: str, time: float, speaking: bool, level: float = 0.0) -> str | None:
        """Add a 20 ms frame of one person; returns the partner.

        :param time: of the frame's first sample [s].
        :param speaking: whether the frame is speech.
        :param level: of the frame [dB], on the same scale for all people.
        """
        channel = self._people.setdefault(person, _Channel())
        number = round(time / STEP)
        channel.waiting.append((number, speaking, level))
        channel.newest = max(channel.newest, number)
        newest = max(other.newest for other in self._people.values())
        if self._next is None:
            self._next = self._first = number
        # A long silence of everybody, or a clock that was set: nothing in between can be decided.
        if newest - self._next > self.window / STEP + self._wait:
            self._next = newest - round(self.window / STEP)
        if newest - self._first < self._wait:
            return self.partner  # others may have begun at the same time
        complete = min(other.newest for other in self._people.values() if newest - other.newest < self._wait)
        while self._next <= complete:
            self._decide(self._next)
            self._next += 1
        return self.partner

    def forget(self, person: str) -> None:
        """Remove a person who left."""
        self._people.pop(person, None)
        if self.partner == person:
            self.partner = None

    def _decide(self, number: int) -> None:
        people = self._people
        for channel in people.values():
            channel.take(number)
        for name in sorted(people):
            self._hear(people[name], number)
        partner = people.get(self.partner or "")
        self.decided = (number + 1) * STEP
        held = partner is not None and partner.last is not None and number - partner.last <= self.hold / STEP
        if self.partner is not None and held:
            return
        wanting = [
            (-len(channel.own), name)
            for name, channel in people.items()
            if len(channel.own) * STEP >= self.take_after
            and channel.last is not None
            and number - channel.last <= ONGOING / STEP
        ]
        if wanting:
            self.partner = min(wanting)[1]

    def _hear(self, channel: _Channel, number: int) -> None:
        """Count a frame as the person's own speech, if it is."""
        if channel.speaking and not any(
            self._louder(other, channel) for other in self._people.values() if other is not channel and other.speaking
        ):
            channel.own.append(number)
            if len(channel.own) >= RUN_FRAMES and channel.own[-RUN_FRAMES] > number - RUN / STEP:
                channel.last = number
                known = -math.inf if channel.loudness is None else channel.loudness - FADING * STEP
                channel.loudness = max(known, channel.level)
        while channel.own and channel.own[0] <= number - self.window / STEP:
            channel.own.popleft()

    def _louder(self, other: _Channel, channel: _Channel) -> bool:
        """Whether the voice in ``channel`` is that of ``other``."""
        difference = other.level - channel.level
        if other.loudness is not None and channel.loudness is not None:
            difference -= other.loudness - channel.loudness
        return difference > self.cross_talk


class PartnerChoice:
    """Chooses the partner from several people's sound: detectors of speech, and an :class:`ActiveSpeaker`.

    :param strictness: of the detectors; 0: much sound counts as speech, 3: little.
    """

    def __init__(self, rule: ActiveSpeaker, strictness: int = 2) -> None:
        self.rule = rule
        self.changes: deque[tuple[float, str]] = deque(maxlen=1000)
        """Times [s] of the newest choices, the ends of the frames that decided, and partners."""
        self._strictness = strictness
        self._ears: dict[str, tuple[int, VoiceActivity]] = {}

    def push(self, person: str, seconds: float, samples: npt.NDArray[np.float32], rate: int = MODEL_RATE) -> str | None:
        """Add a person's next samples [n] in [-1, 1], at ``rate`` [Hz] from a time [s] on; returns the partner."""
        if person not in self._ears or self._ears[person][0] != rate:
            self._ears[person] = rate, VoiceActivity(rate, self._strictness)
        for index, heard in enumerate(self._ears[person][1].push(samples)):
            partner = self.rule.push(person, seconds + index * STEP, heard.speaking, heard.level)
            if partner is not None and (not self.changes or self.changes[-1][1] != partner):
                self.changes.append((self.rule.decided, partner))
        return self.rule.partner

    def forget(self, person: str) -> None:
        """Remove a person who left."""
        self._ears.pop(person, None)
        self.rule.forget(person)
