"""`timar audio`: lists sound devices, or tests one."""

from __future__ import annotations

import argparse
import time

from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE

SUMMARY = "list sound devices, or test a microphone or a loudspeaker"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`timar audio devices`, `timar audio test`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("devices", help="list all devices")
    test = actions.add_parser("test", help="open a device: meter a microphone, or play a tone on a loudspeaker")
    test.add_argument("--microphone", metavar="DEVICE", help="name or number, or 'default'")
    test.add_argument("--speaker", metavar="DEVICE", help="name or number, or 'default'")
    test.add_argument("--seconds", type=float, default=3.0, help="how long to listen or to play [s]")


def run(args: argparse.Namespace) -> int:
    """Carry out the chosen action."""
    from timar_ros.audio.devices import devices

    if args.action == "devices":
        from timar_ros.console import console, table

        found = devices()
        if not found:
            raise UserError("PortAudio finds no sound device; check the sound server ('pactl info') or plug one in")
        rows = [
            (
                f"{d.index}: {d.name}",
                d.host_api,
                d.input_channels,
                d.output_channels,
                f"{d.default_rate:.0f}",
                _default(d),
            )
            for d in found
        ]
        console.print(table("Sound devices", ("device", "host API", "inputs", "outputs", "rate [Hz]", "default"), rows))
        return 0
    if args.microphone is None and args.speaker is None:
        raise UserError("name the device: --microphone DEVICE or --speaker DEVICE (or 'default')")
    if args.seconds <= 0:
        raise UserError(f"--seconds must be positive, not {args.seconds:g}")
    if args.microphone is not None:
        _meter(args.microphone, args.seconds)
    if args.speaker is not None:
        _tone(args.speaker, args.seconds)
    return 0


def _default(device: object) -> str:
    kinds = [k for k in ("input", "output") if getattr(device, f"default_{k}")]
    return "/".join(kinds)


def _meter(name: str, seconds: float) -> None:
    import numpy as np

    from timar_ros.audio.input_device import Microphone

    microphone = Microphone(name, report=print)
    end = None
    peak, power, count = 0.0, 0.0, 0
    ages = []
    rate, channels = 0, 0
    try:
        while end is None or time.monotonic() < end:
            block = microphone.read(timeout=5.0)
            if block is None:
                raise UserError(f"microphone {name!r} opened but gave no samples in 5 s; is it muted or suspended?")
            end = end or time.monotonic() + seconds
            peak = max(peak, float(np.abs(block.samples).max()))
            power += float((block.samples**2).sum())
            count += block.samples.size
            rate, channels = block.rate, block.samples.shape[1]
            ages.append((time.time_ns() - block.stamp_ns) * 1e-6)
    finally:
        microphone.close()
    level = 10 * np.log10(power / count + 1e-12)
    c = microphone.counters
    print(
        f"microphone {name or '(default)'}: {rate} Hz, {channels} channel(s), level {level:.1f} dBFS, "
        f"peak {peak:.3f}, a block is {np.median(ages):.1f} ms old when read, "
        f"{c.overflows} overflows, {c.lost_samples} samples lost"
    )
    if peak == 0.0:
        print("the microphone gives digital silence: it is muted, or it is the wrong device")


def _tone(name: str, seconds: float) -> None:
    import numpy as np

    from timar_ros.audio.output_device import Speaker, Timeline

    rate = MODEL_RATE
    timeline = Timeline(rate, seconds + 2.0)
    samples = 0.2 * np.sin(2 * np.pi * 440.0 * np.arange(round(rate * seconds)) / rate)
    fade = np.minimum(1.0, np.minimum(np.arange(len(samples)), np.arange(len(samples))[::-1]) / (0.01 * rate))
    speaker = Speaker(timeline, name, report=print)
    try:
        if not speaker.ready.wait(10.0):
            raise UserError(f"loudspeaker {name!r} opened but took no samples in 10 s; is it suspended?")
        timeline.add(time.time_ns() + 300_000_000, (samples * fade).astype(np.float32))
        time.sleep(seconds + 0.6)  # the tone's length: no event tells its end
    finally:
        speaker.close()
    c = speaker.counters
    print(
        f"loudspeaker {name or '(default)'}: played {c.played_samples / rate:.2f} s of 440 Hz, latency "
        f"{speaker.latency_s * 1e3:.0f} ms, off its time by {abs(c.error_s) * 1e3:.2f} ms (at most "
        f"{c.max_error_s * 1e3:.2f} ms), {c.underflows} underflows"
    )
