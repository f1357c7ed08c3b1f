"""How the documentation is built: Markdown pages, with the reference filled in from the installed package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate  # found through the line above

import selfcfg

project = "selfcfg"
author = "the selfcfg authors"
copyright = "the selfcfg authors; Apache-2.0"
release = version = selfcfg.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"selfcfg {release}"
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "notes_style")]


def setup(app: object) -> None:
    """Fills the markers of the reference pages when they are read."""
    app.connect("source-read", generate.fill)  # type: ignore[attr-defined]
