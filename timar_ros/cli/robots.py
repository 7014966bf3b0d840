"""`timar robots`: which robots there are, what they can do, and profiles for new ones."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from timar_ros.motion import HEAD

if TYPE_CHECKING:
    from timar_ros.retarget.profile import RobotProfile

SUMMARY = "List, show and check robot profiles; make one from a URDF"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `timar robots`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="all robots, in a table")
    show = actions.add_parser("show", help="one robot's joints and limits")
    show.add_argument("robot", help="name or YAML file")
    check = actions.add_parser(
        "check", help="nod, shake, tilt and talk against the limits; exit code 1 if one is broken"
    )
    check.add_argument("robot", help="name or YAML file")
    check.add_argument("--plot", metavar="FILE.svg", help="draw the motions with their limits")
    new = actions.add_parser("new", help="write a profile from a URDF")
    new.add_argument("urdf", help="URDF file (expand a xacro first)")
    new.add_argument("--neck", required=True, help="the neck's joints, separated by commas, from the body to the head")
    new.add_argument("--jaw", help="the jaw's joint")
    new.add_argument("--name", help="the robot's name; default: the file's")
    new.add_argument(
        "--forward", default="x", choices=("x", "minus-x", "y", "minus-y"), help="root axis along which it looks"
    )
    new.add_argument("--out", metavar="FILE.yaml", help="profile to write; default: NAME.yaml in this folder")


def run(args: argparse.Namespace) -> int:
    """Run `timar robots`."""
    return {"list": _list, "show": _show, "check": _check, "new": _new}[args.action](args)


def _chain(profile: RobotProfile) -> str:
    return " > ".join("xyz"[_largest(joint.axis)] for joint in profile.neck)


def _largest(axis: tuple[float, float, float]) -> int:
    return max(range(3), key=lambda i: abs(axis[i]))


def _list(_args: argparse.Namespace) -> int:
    from timar_ros.console import console, table
    from timar_ros.retarget import list_profiles, load_profile

    rows = []
    for name in list_profiles():
        p = load_profile(name)
        jaw = p.jaw.joint.name if p.jaw.joint else "-"
        rows.append((p.name, p.title, _chain(p), jaw, p.output, p.licence))
    console.print(table("Robots", ("name", "robot", "neck axes", "jaw", "output", "licence of the source"), rows))
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
    from timar_ros.retarget.check import check_motion, sweeps

    if args.plot and not args.plot.lower().endswith(".svg"):
        raise UserError(f"--plot {args.plot}: the plot is an SVG, name it so")
    profile = load_profile(args.robot)
    checks, motions, missing = [], {}, []
    for name, frames in sweeps().items():
        check, motions[name] = check_motion(profile, name, frames)
        checks.append(check)
        wanted = float(np.median(np.linalg.norm(frames[:, HEAD], axis=1)))
        if check.lost > 0.5 * wanted:
            missing.append(f"{name}: {np.degrees(check.lost):.1f}° of {np.degrees(wanted):.1f}° are lost")
    rows = [
        (
            c.motion,
            *(f"{100 * c.use[limit]:.0f} %" for limit in ("position", "velocity", "acceleration", "jerk")),
            f"{1000 * c.lag:.0f} ms",
            f"{c.correlation:.3f}",
            f"{np.degrees(c.lost):.1f}°",
            "pass" if c.passed else f"FAIL by {c.worst:.2g}",
        )
        for c in checks
    ]
    columns = ("motion", "pos.", "vel.", "acc.", "jerk", "lag", "corr.", "lost", "limits")
    console.print(table(f"{profile.title}: largest share of each limit", columns, rows))
    for motion in missing:
        console.print(f"{motion}: the neck has no joint for it, or an axis is wrong (for `new`: see --forward)")
    if args.plot:
        from timar_ros.data.files import atomic_path
        from timar_ros.retarget.plot import draw

        with atomic_path(args.plot) as temporary:
            temporary.write_text(draw(profile, motions), encoding="utf-8")
        console.print(f"plot -> {args.plot}")
    return 0 if all(c.passed for c in checks) else 1


def _new(args: argparse.Namespace) -> int:
    from pathlib import Path

    import yaml

    from timar_ros.console import console
    from timar_ros.data.files import atomic_path
    from timar_ros.errors import UserError
    from timar_ros.retarget.profile import profile_from_dict
    from timar_ros.retarget.urdf import new_profile

    try:
        urdf = Path(args.urdf).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {args.urdf}: {getattr(error, 'strerror', None) or error}") from error
    name = args.name or Path(args.urdf).stem
    out = Path(args.out or f"{name}.yaml")
    if out.exists():
        raise UserError(f"{out} exists already: choose another --out or remove it")
    text, doubts = new_profile(urdf, name, [x for x in args.neck.split(",") if x], args.jaw, args.forward)
    profile_from_dict(yaml.safe_load(text))
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    console.print(f"profile -> {out}; look at these before it moves a robot:")
    for doubt in doubts:
        console.print(f"  - {doubt}")
    console.print(f"then: timar robots check {out}")
    return 0
