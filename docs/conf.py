"""Sphinx configuration: MyST pages by Diátaxis; every warning is an error (`make docs`)."""

from importlib.metadata import version as distribution_version

project = "Fieldrelay"
author = "The Fieldrelay authors"
release = version = distribution_version("fieldrelay")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "plans"]
nitpicky = True

html_theme = "furo"
html_title = "Fieldrelay"
