"""The common parts of all nodes: base class, endpoints, parameters, quality of service, messages; and client `Head`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timar_ros.ros.head_client import Head

__all__ = ["Head"]


def __getattr__(name: str) -> Any:
    # Imported at the first use, so that the modules of this package can be imported one by one.
    if name == "Head":
        from timar_ros.ros.head_client import Head

        return Head
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
