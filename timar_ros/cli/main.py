"""The `timar` command: one file a subcommand in this folder, found by name, imported only when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

import timar_ros.cli
from timar_ros import __version__
from timar_ros.errors import UserError, not_installed

# Modules of this folder that are no subcommands.
HELPERS = {"main", "console"}


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something: not None, not False, not the empty string."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == "":
            return action.help
        return super()._get_help_string(action)


def subcommands() -> list[str]:
    """Names of the subcommands, in alphabetical order."""
    return sorted(m.name for m in pkgutil.iter_modules(timar_ros.cli.__path__) if m.name not in HELPERS)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line.

    Every subcommand's module defines ``SUMMARY`` (one line), ``add_arguments(parser)`` and ``run(args) -> int``, and
    imports nothing heavy at its top.
    """
    parser = argparse.ArgumentParser(prog="timar", description="A robot's conversational head on ROS 2 (TIMAR).")
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
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 1 a check failed, 2 bad input, 130 Ctrl-C)."""
    try:
        args = build_parser().parse_args(argv)
    except ModuleNotFoundError as error:
        print(f"timar: error: {not_installed(error)}", file=sys.stderr)
        return 2
    try:
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
        # The reader of our output went away (`timar … | head`); a second error at interpreter exit would be noise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
