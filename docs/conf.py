"""Sphinx's configuration."""

from importlib.metadata import version as version_of

project = "pmlog"
author = "The pmlog authors"
copyright = "The pmlog authors"
release = version_of("pmlog")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "examples"]
nitpicky = False  # types of numpy and msgspec are not linked

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"pmlog {release}"
