"""Sphinx configuration: MyST pages by Diátaxis; every warning is an error (`make docs`)."""

from importlib.metadata import version as distribution_version

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

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


def setup(app: Sphinx) -> None:
    """Diagrams stay text here; the code hosting's viewer draws them."""
    app.add_lexer("mermaid", TextLexer)
