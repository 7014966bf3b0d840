"""Paths of the package's shared files: launch, config, urdf, models, samples."""

from __future__ import annotations

from pathlib import Path

from timar_ros.errors import UserError


def share(*parts: str) -> Path:
    """Path of a shared file or folder of the package, such as ``share("config", "timar.yaml")``.

    This works without ROS and without a sourced environment. The root is the checkout (also after ``pip install -e``),
    else ``share/timar_ros`` of the prefix that contains this module.

    :raises UserError: when the package's installation is incomplete, or the file does not exist.
    """
    package = Path(__file__).absolute().parent  # not resolved: colcon's --symlink-install links single files
    roots = [package.parent, *(above / "share" / "timar_ros" for above in package.parents)]
    for root in roots:
        if (root / "package.xml").is_file():
            path = root.joinpath(*parts)
            if path.exists():
                return path
            raise UserError(f"timar_ros has no '{'/'.join(parts)}' in {root}: reinstall it or name another file")
    raise UserError(f"the shared files of timar_ros were not found from {package}: reinstall it (docs/installation.md)")
