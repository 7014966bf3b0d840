"""The `timar` command. Each subcommand is a file of this folder, found by its name."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Sequence

import timar_ros.cli
from timar_ros import __version__
from timar_ros.errors import UserError, not_installed

# Modules of this folder that are no subcommand.
HELPERS = {"main"}


EXAMPLES = {
    "audio": ["timar audio devices", "timar audio test --microphone default --seconds 5"],
    "bench": ["timar bench", "timar bench --size large --dtype bfloat16 --context-policy stepped"],
    "data": ["timar data check data/dualtalk", "timar data corrupt data/dualtalk data/noisy noise=10"],
    "demo": ["timar demo", "timar demo --user me.wav --agent robot.wav --out out/mine"],
    "evaluate": [
        "timar evaluate --model timar-mini mean-pose --data data/synth --split test",
        "timar evaluate --bag out/demo/bag",
    ],
    "generate": [
        "timar generate --conversation samples/conversation.flac --out motion.npz",
        "timar generate --agent speech.wav --out motion.npz",
    ],
    "record": ["timar record my_bag --duration 60"],
    "replay": ["timar replay out/demo/bag --out out/again"],
    "report": ["timar report out/demo", "timar report motion.npz --user me.wav --agent robot.wav"],
    "reproduce": ["timar reproduce --data data/dualtalk --checkpoint downloads/timar.pth --speech downloads/wav2vec2"],
    "retarget": ["timar retarget --motion motion.npz --robot tiago --out joints.csv"],
    "robots": ["timar robots list", "timar robots new my.urdf --neck yaw,pitch,roll --jaw jaw"],
    "status": ["timar status", "timar status --namespace robot1 --without timar_inference --json"],
    "synth": ["timar synth data/synth --conversations 20"],
    "train": ["timar train config/train/timar_mini.yaml --data data/synth --folder runs/mine"],
    "up": ["timar up --source microphone --microphone default --speaker default --robot tiago"],
}
"""Examples at the end of each command's help."""


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows non-empty defaults as a user types them; keeps the lines of the examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default in (None, False, "", argparse.SUPPRESS) or default == [] or "default" in (action.help or ""):
            return action.help
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"{action.help} (default: on)"
        if isinstance(default, (list, tuple)):
            return f"{action.help} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)


def subcommands() -> list[str]:
    """Names of the subcommands, in alphabetical order."""
    return sorted(m.name for m in pkgutil.iter_modules(timar_ros.cli.__path__) if m.name not in HELPERS)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line.

    Every subcommand's module defines ``SUMMARY`` (one line), ``add_arguments(parser)`` and ``run(args) -> int``, and
    imports nothing heavy at its top.
    """
    parser = argparse.ArgumentParser(
        prog="timar",
        description="A robot's conversational head on ROS 2 (TIMAR).",
        epilog="'timar COMMAND --help' describes a command. Exit codes: 0 done, 1 a check failed, 2 bad input.",
    )
    parser.add_argument("--version", action="version", version=f"timar_ros {__version__}")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in subcommands():
        module = importlib.import_module(f"timar_ros.cli.{name}")
        sub = parsers.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            formatter_class=_Formatter,
        )
        module.add_arguments(sub)
        if name in EXAMPLES:
            notes = [sub.epilog] if sub.epilog else []
            sub.epilog = "\n".join([*notes, "examples:", *(f"  {line}" for line in EXAMPLES[name])])
        sub.set_defaults(run=module.run)
    return parser


FILES = {"json": ".json", "markdown": ".md", "plot": "", "csv": ".csv"}
"""Options of all commands that name an output file, with the file's kind; "": by the file's own ending."""
OUT_FILES = {"generate": ".npz", "report": ".html", "retarget": ".csv", "robots": ".yaml"}
"""Commands whose ``--out`` is a file, with its kind; for other commands ``--out`` is a folder."""


def check_outputs(args: argparse.Namespace) -> None:
    """Check every output path of a command against its inputs and existing files, before the work begins.

    :raises UserError: see :mod:`timar_ros.files.outputs`.
    """
    values = {name: value for name, value in vars(args).items() if name not in ("command", "run", "action")}
    outputs = {name: str(values.pop(name)) for name in ("out", *FILES) if values.get(name) is not None}
    if not outputs:
        return
    from timar_ros.files.outputs import check_folder, check_output

    values_in_lists = [
        part for value in values.values() for part in (value if isinstance(value, (list, tuple)) else [value])
    ]
    inputs = [part for part in values_in_lists if isinstance(part, (str, os.PathLike)) and os.path.lexists(part)]
    for name, path in outputs.items():
        if name != "out":
            check_output(path, FILES[name], inputs)
        elif args.command in OUT_FILES:
            check_output(path, OUT_FILES[args.command], inputs)
        else:
            check_folder(path, inputs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 1 a check failed, 2 bad input, 130 Ctrl-C)."""
    for stream in (sys.stdout, sys.stderr):
        # File names may contain characters outside the terminal's encoding (LANG=C, names not in UTF-8): print \\x...
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        args = build_parser().parse_args(argv)
    except ModuleNotFoundError as error:
        print(f"timar: error: {not_installed(error)}", file=sys.stderr)
        return 2
    try:
        check_outputs(args)
        return int(args.run(args) or 0)
    except UserError as error:
        print(f"timar {args.command}: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"timar {args.command}: error: {not_installed(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"timar {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has ended (`timar … | head`); avoid a second error at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
