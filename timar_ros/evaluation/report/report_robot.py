"""A robot's shape in a page's block, for ``report/src/payload.ts``."""

from __future__ import annotations

from typing import Any

from timar_ros.evaluation.report.report_block import Block
from timar_ros.simulation.robot_shape import Link, RobotShape, Visual


def shape(block: Block, robot: RobotShape) -> dict[str, Any]:
    """A ShapeSpec for the page: links with their visuals, surfaces, and the head's place."""
    return {
        "links": [_link(link) for link in robot.links],
        "surfaces": [
            {"points": block.add(surface.vertices), "faces": block.add_integers(surface.faces.reshape(-1))}
            for surface in robot.surfaces
        ],
        "centre": list(robot.centre),
        "radius": robot.radius,
    }


def _link(link: Link) -> dict[str, Any]:
    return {
        "parent": link.parent,
        "position": list(link.position),
        "rotation": list(link.rotation),
        "joint": link.joint,
        "axis": list(link.axis),
        "multiplier": link.multiplier,
        "offset": link.offset,
        "visuals": [_visual(visual) for visual in link.visuals],
    }


def _visual(visual: Visual) -> dict[str, Any]:
    return {
        "kind": visual.kind,
        "size": list(visual.size),
        "surface": visual.surface,
        "position": list(visual.position),
        "rotation": list(visual.rotation),
        "color": list(visual.color),
    }
