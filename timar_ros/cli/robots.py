"""`timar robots`: lists, shows and checks robot profiles, and creates new ones."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from timar_ros.motion import HEAD

if TYPE_CHECKING:
    from timar_ros.retarget.profile import RobotProfile

SUMMARY = "list, show and check robot profiles; create one from a URDF"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `timar robots`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="all robots, in a table")
    show = actions.add_parser("show", help="one robot's joints and limits")
    show.add_argument("robot", help="name or YAML file")
    check = actions.add_parser(
        "check", help="check nods, shakes, tilts and talking against the limits; exit code 1 for a violation"
    )
    check.add_argument("robot", help="name or YAML file")
    check.add_argument("--plot", metavar="FILE.svg", help="draw the motions with their limits")
    new = actions.add_parser("new", help="write a profile from a URDF")
    new.add_argument("urdf", help="URDF file (expand a xacro first)")
    new.add_argument("--neck", default="", help="the neck's joints from body to head, with commas; default: a guess")
    new.add_argument("--jaw", help="the jaw's joint")
    new.add_argument("--name", help="the robot's name; default: the file's")
    new.add_argument(
        "--forward", default="x", choices=("x", "minus-x", "y", "minus-y"), help="root axis of the robot's view"
    )
    new.add_argument("--out", metavar="FILE.yaml", help="profile to write; default: NAME.yaml in this folder")


def run(args: argparse.Namespace) -> int:
    """Run `timar robots`."""
    return {"list": _list, "show": _show, "check": _check, "new": _new}[args.action](args)


def _chain(profile: RobotProfile) -> str:
    return ">".join("xyz"[_largest(joint.axis)] for joint in profile.neck)


def _largest(axis: tuple[float, float, float]) -> int:
    return max(range(3), key=lambda i: abs(axis[i]))


def _list(_args: argparse.Namespace) -> int:
    from timar_ros.console import console, table
    from timar_ros.retarget import list_profiles, load_profile

    rows = []
    for name in list_profiles():
        p = load_profile(name)
        jaw = p.jaw.joint.name if p.jaw.joint else "-"
        rows.append((p.name, p.title.split(",")[0], _chain(p), jaw, p.output))
    console.print(table("Robots", ("name", "robot", "neck axes", "jaw", "output"), rows))
    return 0


def _show(args: argparse.Namespace) -> int:
    from timar_ros.console import console, table
    from timar_ros.retarget import load_profile
    from timar_ros.retarget.kinematics import Neck

    p = load_profile(args.robot)
    console.print(f"{p.title}\n  source: {p.source}\n  licence: {p.licence}\n  output: {p.output} on {p.command_topic}")
    console.print(
        f"  neck: {'closed form' if Neck(p).closed_form else 'bounded least squares'}, bandwidth {p.bandwidth:g} Hz"
    )
    axes = {joint.name: " ".join(f"{x:g}" for x in joint.signed_axis.round(3)) for joint in p.neck}
    rows = [
        (
            joint.name,
            axes.get(joint.name, "-"),
            f"{joint.lower:.3f} .. {joint.upper:.3f}",
            f"{joint.neutral:.3f}",
            f"{joint.velocity:g}",
            f"{joint.acceleration:g}",
            f"{joint.jerk:g}",
        )
        for joint in p.joints
    ]
    columns = ("joint", "axis", "range [rad]", "neutral", "rad/s", "rad/s²", "rad/s³")
    console.print(table("Joints", columns, rows))
    for coupling in p.couplings:
        console.print(f"{coupling.joint} is limited by {coupling.by}:")
        for at, lower, upper in coupling.table:
            console.print(f"  at {at:7.3f}: {lower:.3f} .. {upper:.3f}")
    for note in p.notes:
        console.print(f"note: {note}")
    return 0


def _check(args: argparse.Namespace) -> int:
    import numpy as np

    from timar_ros.console import console, table
    from timar_ros.errors import UserError
    from timar_ros.retarget import load_profile
    from timar_ros.retarget.robot_check import check_motion, sweeps

    if args.plot and not args.plot.lower().endswith(".svg"):
        raise UserError(f"--plot {args.plot}: the plot is an SVG; the name must end in .svg")
    profile = load_profile(args.robot)
    checks, motions, missing = [], {}, []
    for name, frames in sweeps().items():
        if name == "jaw" and profile.jaw.joint is None:
            continue
        check, motions[name] = check_motion(profile, name, frames)
        checks.append(check)
        angle = float(np.median(np.linalg.norm(frames[:, HEAD], axis=1)))
        if check.lost > 0.5 * angle:
            share = min(100.0, 100 * check.lost / angle)
            missing.append(f"{name}: {share:.0f} % of its angle (median {np.degrees(angle):.0f}°) is lost")
    rows = [
        (
            c.motion,
            *(f"{100 * c.use[limit]:.0f} %" for limit in ("position", "velocity", "acceleration", "jerk")),
            f"{round(1000 * c.lag)} ms",
            f"{c.correlation:.3f}",
            f"{np.degrees(c.lost):.0f}°",
            "pass" if c.passed else f"FAIL by {c.worst:.2g}",
        )
        for c in checks
    ]
    columns = ("motion", "pos.", "vel.", "acc.", "jerk", "lag", "corr.", "lost", "limits")
    console.print(f"{profile.title}: the largest share of each limit, over all joints", soft_wrap=True, markup=False)
    console.print(table("", columns, rows))
    if profile.jaw.joint is None:
        console.print("jaw: this robot has no jaw joint")
    for motion in missing:
        console.print(f"{motion}: the neck has no joint for it, or an axis is wrong (for `new`: see --forward)")
    if args.plot:
        from timar_ros.files import atomic_path
        from timar_ros.retarget.plot import draw

        with atomic_path(args.plot) as temporary:
            temporary.write_text(draw(profile, motions), encoding="utf-8")
        console.print(f"plot -> {args.plot}")
    return 0 if all(c.passed for c in checks) else 1


def _new(args: argparse.Namespace) -> int:
    from pathlib import Path

    import yaml

    from timar_ros.console import console
    from timar_ros.errors import UserError
    from timar_ros.files import atomic_path
    from timar_ros.files.reading import LARGEST_TEXT, existing_file, shown
    from timar_ros.retarget.profile import profile_from_dict
    from timar_ros.retarget.urdf import new_profile

    file = existing_file(args.urdf, "URDF")
    if file.stat().st_size > LARGEST_TEXT:
        raise UserError(f"URDF {shown(file)} has {file.stat().st_size >> 20} MB: too large for a description")
    try:
        urdf = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {shown(file)}: {error.strerror}") from error
    name = args.name or Path(args.urdf).stem
    out = Path(args.out or f"{name}.yaml")
    if out.exists():
        raise UserError(f"{out} exists already: choose another --out or remove it")
    text, doubts = new_profile(urdf, name, [x for x in args.neck.split(",") if x], args.jaw, args.forward)
    profile_from_dict(yaml.safe_load(text))
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    console.print(f"profile -> {out}; check these points before it moves a robot:")
    for doubt in doubts:
        console.print(f"  - {doubt}")
    console.print(f"next: timar robots check {out}; then: timar demo --robot {out}", markup=False, soft_wrap=True)
    return 0
