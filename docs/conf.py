"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "prewarmkit"
author = "the prewarmkit authors"
project_copyright = author
release = version = version_of("prewarmkit")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3  # links from page to page may name a heading

html_theme = "furo"
html_title = "prewarmkit"
