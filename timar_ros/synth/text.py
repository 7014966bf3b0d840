"""The synthetic speakers' text: a small phrase grammar of our own, enough to vary rhythm and sounds.

Meaning does not matter to a motion model; stress, length, questions, fillers and answers do. A template's ``{slot}`` is
filled from the table of that name; slots may hold further slots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

SLOTS: dict[str, tuple[str, ...]] = {
    "who": (
        "my sister", "our neighbour", "the new teacher", "Daniel", "a friend of mine", "my old boss", "the two of them",
        "your cousin", "the woman next door", "Julia", "everybody at work", "the driver", "my grandfather", "Oscar",
    ),
    "place": (
        "the harbour", "the station", "a tiny village", "the market", "Lisbon", "the north coast", "our kitchen",
        "the office", "the mountains", "that old cinema", "the garden", "a small island", "the library", "the beach",
    ),
    "thing": (
        "a wooden boat", "the guitar", "that strange machine", "a yellow bicycle", "the whole cake", "three parcels",
        "the camera", "my keys", "an enormous dog", "some fresh bread", "the last ticket", "a box of photographs",
        "the garden chairs", "a very thin book", "the coffee pot", "both umbrellas",
    ),
    "did": (
        "found", "lost", "bought", "borrowed", "painted", "carried", "fixed", "sold", "dropped", "forgot", "packed",
        "looked for", "talked about", "brought back", "cleaned",
    ),
    "do": (
        "find", "buy", "borrow", "paint", "carry", "fix", "sell", "pack", "look for", "talk about", "bring back",
        "clean", "choose", "check",
    ),
    "when": (
        "yesterday", "last summer", "on Friday", "early in the morning", "two weeks ago", "after lunch", "at midnight",
        "before the storm", "when it was raining", "the other day", "in the spring", "just now", "around six",
    ),
    "how": (
        "wonderful", "awful", "a bit odd", "much too loud", "really quiet", "surprisingly cheap", "beautiful",
        "so slow", "pretty good", "difficult", "completely different", "very funny", "almost perfect", "rather cold",
    ),
    "feel": ("happy", "tired", "nervous", "proud", "hungry", "confused", "relaxed", "excited", "worried", "fine"),
    "very": ("really", "quite", "so", "kind of", "absolutely", "not very", "pretty"),
    "count": ("two", "three", "five", "about ten", "fifteen", "nearly forty", "a hundred"),
    "unit": ("minutes", "hours", "days", "people", "pages", "miles", "tries"),
    "reason": (
        "because {who} {did} {thing}", "because the weather was {how}", "since nobody could {do} {thing}",
        "because I was {very} {feel}", "and that took {count} {unit}", "which was {how}", "so we had to {do} {thing}",
    ),
}  # fmt: skip

STATEMENTS = (
    "{who} {did} {thing} {when}",
    "I think {place} was {very} {how}",
    "we went to {place} {when}",
    "it took us {count} {unit} to {do} {thing}",
    "I never wanted to {do} {thing}",
    "{when} I was {very} {feel}",
    "there were {count} {unit} left and {who} just laughed",
    "the food at {place} is {how}",
    "my idea was to {do} {thing} first",
    "{who} told me about {place}",
    "so I {did} {thing} {reason}",
    "we stayed at {place} for {count} {unit} {reason}",
    "the best part was {place}",
    "I could see {place} from the window",
    "and then {who} {did} {thing} again",
    "it felt {how} at first",
    "nobody knew where {place} was",
    "I would like to {do} {thing} some day",
    "the music was {how} and {who} started to dance",
    "that is why {who} looked so {feel}",
    "you could hear the water all the way from {place}",
    "I am going back to {place} soon",
    "the whole thing was {very} {how}",
    "every morning we would {do} {thing} together",
)
QUESTIONS = (
    "have you ever been to {place}",
    "did {who} really {do} {thing}",
    "what did you do {when}",
    "how long did it take",
    "was it {how}",
    "do you want to {do} {thing}",
    "who {did} {thing}",
    "why would anybody {do} {thing}",
    "are you still {feel} about it",
    "and how was {place}",
    "do you remember {who}",
    "could you {do} {thing} for me",
)
AGREEMENTS = (
    "yes exactly",
    "that sounds {how}",
    "I know what you mean",
    "you are right about that",
    "oh that is {how}",
    "I was {very} {feel} too",
    "yes {who} said the same",
    "of course you did",
)
DENIALS = (
    "no not at all",
    "no I never did that",
    "I don't think so",
    "well no it was {how}",
    "no {who} didn't {do} {thing}",
)
OPENINGS = ("hello there", "hi how are you", "good morning", "oh hello", "hey nice to see you", "so here we are")
FILLERS = ("um", "uh", "well", "you know", "I mean", "so", "let me think", "hmm", "er", "like")
BACKCHANNELS = ("mhm", "yeah", "uh huh", "right", "okay", "I see", "mm", "oh", "really", "wow", "sure", "yes")
LAUGHS = ("ha ha ha", "heh heh heh", "hah hah", "ha ha ha ha ha")


@dataclass(frozen=True)
class Line:
    """One thing to say. ``kind``: statement, question, agreement, denial, opening, filler, backchannel or laugh."""

    text: str
    kind: str


def fill(template: str, rng: np.random.Generator) -> str:
    """A template with its slots filled."""
    while (match := re.search(r"\{(\w+)\}", template)) is not None:
        choices = SLOTS[match.group(1)]
        template = template[: match.start()] + choices[rng.integers(len(choices))] + template[match.end() :]
    return template


def pick(kind: str, rng: np.random.Generator) -> Line:
    """A line of a kind, with punctuation for the voices' intonation."""
    table = {
        "statement": STATEMENTS,
        "question": QUESTIONS,
        "agreement": AGREEMENTS,
        "denial": DENIALS,
        "opening": OPENINGS,
        "filler": FILLERS,
        "backchannel": BACKCHANNELS,
        "laugh": LAUGHS,
    }[kind]
    text = fill(table[rng.integers(len(table))], rng)
    if kind == "statement" and rng.random() < 0.15:
        text = f"{FILLERS[rng.integers(len(FILLERS))]}, {text}"
    mark = {"question": "?", "laugh": "!", "filler": ","}.get(kind, "." if rng.random() < 0.8 else "!")
    return Line(text + mark, kind)


def phrases_of_turn(rng: np.random.Generator, phrases: int, answers: bool) -> list[Line]:
    """One speaker's phrases while holding the floor.

    :param phrases: how many phrases.
    :param answers: whether the previous turn ended in a question.
    """
    lines: list[Line] = []
    if answers:
        lines.append(pick("agreement" if rng.random() < 0.65 else "denial", rng))
    elif rng.random() < 0.2:
        lines.append(pick("filler", rng))
    while len(lines) < phrases:
        lines.append(pick("statement" if rng.random() < 0.85 else "agreement", rng))
    if rng.random() < 0.4:
        lines[-1] = pick("question", rng)
    return lines
