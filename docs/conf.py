"""Sphinx builds the documentation: `make docs`."""

from importlib.metadata import version as installed

project = "dareu"
author = "the dareu authors"
copyright = "the dareu authors"  # noqa: A001
release = installed("dareu")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "dareu"

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
nitpicky = False
