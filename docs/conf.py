"""Settings of the documentation: `make docs` writes it to build/docs."""

import importlib.metadata
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "_sphinx"))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

project = "variational-bounds"
author = "The variational-bounds developers"
version = release = importlib.metadata.version(project)
html_title = project

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "mathml",
    "reference",
]

# Pages in Markdown are read on GitHub as well: formulas are blocks of ```math, links relative.
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3

# Notebooks run again when they change; `make clean` forgets what they said.
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / "build/notebooks")
nb_execution_timeout = 600
nb_execution_show_tb = True

autodoc_default_options = {"members": False}
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "py:obj"
add_module_names = False
python_maximum_signature_line_length = 72

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_sphinx/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
# A page opened from disk may not read others, so results of a search show titles alone.
html_show_search_summary = False
# The explorer is a page by itself.
html_extra_path = [str(path) for path in [HERE / "explore.html"] if path.exists()]
