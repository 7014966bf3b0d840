"""`timar say`: lets the head of the running graph say a text, or raw PCM from standard input."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timar_ros.ros.head_client import Head

SUMMARY = "let the head of the running graph say a text, or raw PCM from standard input"

ENGINES = ("espeak-ng", "piper", "command")  # as in timar_ros.audio.text_to_speech, which imports numpy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("text", nargs="*", help="text to say")
    parser.add_argument("--pcm", action="store_true", help="say 16-bit mono samples from standard input, as they come")
    parser.add_argument("--rate", type=int, default=22050, metavar="HZ", help="sample rate of --pcm or of --command")
    parser.add_argument("--engine", choices=ENGINES, default="espeak-ng", help="engine that converts text to speech")
    parser.add_argument("--voice", default="", help="espeak-ng: a voice's name; piper: the path of an .onnx voice")
    parser.add_argument("--speed", type=int, default=160, metavar="N", help="espeak-ng: words a minute")
    parser.add_argument("--command", dest="program", default="", help="engine command: reads text, writes raw PCM")
    parser.add_argument("--namespace", default="", help="namespace of the graph")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="how long to wait for the graph")


def run(args: argparse.Namespace) -> int:
    """Say the text, and wait until the loudspeaker has played it; Ctrl-C interrupts the head."""
    from timar_ros.audio.text_to_speech import text_to_speech
    from timar_ros.errors import UserError, require

    if args.pcm == bool(args.text):
        raise UserError('give a text (timar say "hello"), or --pcm and samples on standard input')
    voice = None if args.pcm else text_to_speech(args.engine, args.voice, args.speed, args.program, args.rate)
    require("rclpy", "see docs/installation.md", "timar say")
    from timar_ros.ros.head_client import Head

    with Head(args.namespace, timeout=args.timeout) as head:
        try:
            if voice is None:
                _pass_on(head, args.rate)
            else:
                for samples, rate in voice.speak(" ".join(args.text)):
                    head.say(samples, rate)
            head.finish()
            if not head.wait():
                raise UserError("the speech was not played to its end: was it interrupted, or is audio_sink missing?")
        except KeyboardInterrupt:
            head.cancel()
            raise
        print(f"played {head.played().seconds:.2f} s")
    return 0


def _pass_on(head: Head, rate: int) -> None:
    """Send standard input to the head, as it comes."""
    import sys
    import time
    from io import BufferedReader
    from typing import cast

    from timar_ros.audio.speech_queue import MOST_WAITING

    pipe = cast(BufferedReader, sys.stdin.buffer)
    rest = b""
    while piece := pipe.read1(8192):
        rest += piece
        whole = len(rest) // 2 * 2
        head.say(rest[:whole], rate)
        rest = rest[whole:]
        while head.waiting() > MOST_WAITING:  # the full pipe then blocks the sender
            time.sleep(0.1)
