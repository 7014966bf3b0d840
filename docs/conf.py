"""Sphinx configuration of the documentation site: `make docs` builds it into build/docs/, warnings are errors."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from timar_ros import __version__  # noqa: E402 (the checkout is put on the path first)

project = "timar_ros"
author = "timar_ros developers"
copyright = author  # noqa: A001 (Sphinx's name)
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxarg.ext",
    "sphinxcontrib.mermaid",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]

html_theme = "furo"
html_title = f"timar_ros {release}"
html_static_path: list[str] = []
exclude_patterns: list[str] = []

# The Python reference: written from the docstrings of the packages whose names are kept (QUALITY_DECLARATION.md).
PUBLIC = ("model", "streaming", "retarget", "evaluation/metrics")
apidoc_modules = [
    {
        "path": str(ROOT / "timar_ros" / name),
        "destination": f"reference/{name.replace('/', '_')}",
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members", "show-inheritance"},
    }
    for name in PUBLIC
]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "code"
# Names of other projects are not looked up, and a module may be described by its package and by itself.
suppress_warnings = ["ref.python", "autodoc.import_object", "myst.xref_missing", "sphinxcontrib_mermaid"]
