"""`timar data`: check, describe, corrupt and convert data sets."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass

SUMMARY = "check, describe, corrupt and convert conversation data"


@dataclass(frozen=True)
class Action:
    """An action of `timar data`; its module is imported only when the command line names or lists the action."""

    summary: str
    module: str
    add: str
    run: str

    def load(self, name: str) -> Callable[..., int]:
        """A function of the module."""
        function: Callable[..., int] = getattr(importlib.import_module(self.module), name)
        return function


# One entry per action; the modules import nothing heavy at their top.
ACTIONS = {
    "check": Action("list every fault of a data set", "timar_ros.data.data_commands", "add_check", "run_check"),
    "stats": Action("statistics of motion against speech", "timar_ros.data.data_commands", "add_stats", "run_stats"),
    "corrupt": Action(
        "write a noisy copy, to measure robustness", "timar_ros.data.data_commands", "add_corrupt", "run_corrupt"
    ),
    "from-bag": Action(
        "convert recorded bags to a DualTalk folder",
        "timar_ros.bags.bag_convert",
        "add_from_bag_arguments",
        "run_from_bag",
    ),
    "to-bag": Action(
        "convert a conversation of a DualTalk folder to a bag",
        "timar_ros.bags.bag_convert",
        "add_to_bag_arguments",
        "run_to_bag",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, action in ACTIONS.items():
        sub = actions.add_parser(
            name,
            help=action.summary,
            description=action.summary,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        action.load(action.add)(sub)


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    action = ACTIONS[args.action]
    return action.load(action.run)(args)
