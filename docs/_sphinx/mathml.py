"""Formulas as MathML, which browsers draw by themselves: no script, and the font is in the site."""

import importlib.resources

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.util import logging

LOG = logging.getLogger(__name__)
TO_MATHML = LatexToMathML(fancy_error=False)


def _drawn(node, displaystyle):
    try:
        return TO_MATHML.convert_with_local_state(node.astext(), displaystyle=displaystyle)
    except LatexError as error:
        LOG.warning("a formula that is no LaTeX: %s in %s", error, node.astext(), location=node)
        return ""


def _inline(translator, node):
    translator.body.append(_drawn(node, False))
    raise nodes.SkipNode


def _block(translator, node):
    translator.body.append(f'<div class="formula">{_drawn(node, True)}</div>\n')
    raise nodes.SkipNode


def setup(app):
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    # A font with the table of mathematics, from a package that has it.
    font = importlib.resources.files("ziamath") / "fonts/STIXTwoMath-Regular.ttf"
    app.config.html_static_path.append(str(font))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
