"""Measure echo and barge-in in simulated rooms: detected partners, and the robot's own voice judged as the partner's.

The robot's voice reaches the microphone 20 dB louder than the partner's, through a room of random reverberation, delay
(0 to 1.5 s) and colour, with a motor's noise. The voices are cut from the package's sample conversation.

    python scripts/measure_echo.py --rooms 40
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, lfilter

from timar_ros.data.audio_files import load_conversation
from timar_ros.resources import share
from timar_ros.streaming.activity import ActivityDetector
from timar_ros.streaming.echo_detector import BLOCK, EchoDetector
from timar_ros.streaming.resampling import resample_window

RATE = 16000
LOUDER = 20.0
LEARNING = 10.0
SECONDS = 36


def voices() -> list[NDArray[np.float32]]:
    """Both speakers of the sample, each without the pauses in which the other speaks."""
    found = []
    *speakers, rate = load_conversation(str(share("samples", "conversation.flac")))
    for speaker in speakers:
        mono = resample_window(
            lambda a, b, s=speaker: np.pad(s[max(a, 0) : b], (max(-a, 0), max(b - max(a, len(s)), 0)))[: b - a],
            rate, 0, len(speaker) * RATE // rate,
        ) if rate != RATE else speaker  # fmt: skip
        active = np.repeat(ActivityDetector().process(mono), 640)
        found.append(mono[: len(active)][active])
    return found


def room(rng: np.random.Generator, delay: float, decay: float) -> NDArray[np.float64]:
    """An impulse response: a direct path after ``delay`` [s], then noise that falls by 60 dB in ``decay`` [s]."""
    tail = rng.standard_normal(round(decay * RATE)) * np.exp(-6.9 * np.arange(round(decay * RATE)) / (decay * RATE))
    tail *= 0.5 / np.sqrt((tail**2).sum())
    response = np.concatenate([np.zeros(round(delay * RATE)), tail])
    response[round(delay * RATE)] += 1.0
    return lfilter([1.0, -0.5], [1.0, -0.3], response)


def level(samples: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    user, agent = voices()
    misjudged = own_blocks = detected = barge_ins = false_barge_ins = 0
    latencies, busy, seconds = [], 0.0, 0.0
    for number in range(args.rooms):
        rng = np.random.default_rng([args.seed, number])
        own, other = (agent, user) if number % 2 else (user, agent)
        delay, decay = float(rng.uniform(0.0, 1.5)), float(rng.uniform(0.15, 0.5))
        own = np.tile(np.roll(own, rng.integers(len(own))), 3)[: SECONDS * RATE] * rng.uniform(0.3, 1.0)
        echo = fftconvolve(own, room(rng, delay, decay))[: len(own)]
        echo *= 0.1 / level(echo)
        # Four interruptions of 1.5 s, after the time in which the filter learns.
        partner = np.zeros(len(own))
        starts = [round((LEARNING + 2.0 + 6.0 * k) * RATE) for k in range(4)]
        for start in starts:
            at = rng.integers(len(other) - 2 * RATE)
            piece = other[at : at + round(1.5 * RATE)]
            partner[start : start + len(piece)] = piece * (0.1 * 10 ** (-LOUDER / 20) / level(piece))
        hum = lfilter([1.0], [1.0, -0.95], rng.standard_normal(len(own)))
        noise = hum / level(hum) * 0.1 * 10 ** (-35 / 20)
        microphone = (echo + partner + noise).astype(np.float32)
        detector = EchoDetector()
        started = time.perf_counter()
        verdicts = [
            detector.judge(own[k : k + BLOCK], microphone[k : k + BLOCK]) for k in range(0, len(own) - BLOCK + 1, BLOCK)
        ]
        busy, seconds = busy + time.perf_counter() - started, seconds + len(own) / RATE
        at = np.arange(len(verdicts)) * BLOCK / RATE
        near = np.zeros(len(verdicts), bool)
        for start in starts:
            near |= (at > start / RATE - 0.1) & (at < start / RATE + 2.1)
            within = [t for t, j in zip(at, verdicts, strict=True) if j.barge_in and 0 <= t - start / RATE <= 1.6]
            barge_ins += 1
            detected += bool(within)
            latencies += [within[0] - start / RATE] if within else []
        alone = ~near & (at > LEARNING)
        own_blocks += int(alone.sum())
        misjudged += sum(j.partner for j, a in zip(verdicts, alone, strict=True) if a)
        false_barge_ins += sum(j.barge_in for j, n in zip(verdicts, near, strict=True) if not n)
    after = np.median(latencies or [0.0])
    print(
        f"barge-ins detected: {detected} of {barge_ins} ({100 * detected / barge_ins:.1f} %), after p50 {after:.2f} s"
    )
    print(
        f"own voice judged as the partner's: {misjudged} of {own_blocks} blocks ({100 * misjudged / own_blocks:.2f} %)"
    )
    print(f"barge-ins where nobody spoke: {false_barge_ins} in {seconds / 60:.0f} minutes, learning included")
    print(f"one core: {100 * busy / seconds:.0f} % of real time")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
