"""Sphinx configuration: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import click
from sphinx.application import Sphinx

from brainfeat import __version__

project = "brainfeat"
author = "the brainfeat authors"
project_copyright = "the brainfeat authors"
version = release = __version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx_click"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # the docstrings say it with shapes and units
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# A reference that leads nowhere fails the build; these lead to other projects.
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(builtins\.)?[A-Z]\w*(Error|Exception)|Exception")]

smartquotes_action = "qe"  # two hyphens stay, as in --help

html_theme = "furo"
html_title = f"brainfeat {release}"
html_copy_source = False
html_show_sourcelink = False


def show_examples(_app: Sphinx, _context: click.Context, lines: list[str]) -> None:
    """Turn the examples at the end of a command's help into a block of shell."""
    if lines[:1] == ["| Examples:"]:
        commands = [line.removeprefix("| ") for line in lines[1:]]
        lines[:] = [".. rubric:: Examples", "", ".. code-block:: sh", "", *commands]


def setup(app: Sphinx) -> None:
    """Connect to sphinx-click."""
    app.connect("sphinx-click-process-epilog", show_examples)
