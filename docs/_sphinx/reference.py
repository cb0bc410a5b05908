"""The reference, from the docstrings of the library: what Sphinx's own extensions leave to do.

`members` puts functions and types on a page in the order that the page gives. Docstrings are plain
text with formulas in `.. math::`, so that `help` reads well; here their names become links, their
signs mean themselves, and signatures stand as they are written.
"""

import ast
import importlib
import inspect
import re
import textwrap
import types

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.domains.python import PyObject
from sphinx.util.docutils import SphinxDirective

import bounds

# Short name -> its full names: "terms" has several.
NAMES: dict[str, list[str]] = {}
for _module in (bounds, *vars(bounds).values()):
    if isinstance(_module, types.ModuleType) and hasattr(_module, "__all__"):
        for _name in _module.__all__:
            NAMES.setdefault(_name, []).append(f"{_module.__name__}.{_name}")
PUBLIC = {name for names in NAMES.values() for name in names}
# Pages on the library as a whole, where `iwae` is `bounds.iwae` and nothing else.
OF_THE_LIBRARY = {"index", "which", "library", "theory"}

OUTSIDE = {
    "../README.md": "index.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
}


class Members(SphinxDirective):
    """A table of names with their first lines, then each with all that its docstring says."""

    required_arguments = 1
    has_content = True

    def run(self):
        """The nodes of the page."""
        module = importlib.import_module(self.arguments[0])
        names = [line.strip() for line in self.content if line.strip()]
        lines = [f".. currentmodule:: {module.__name__}", ""]
        lines += [".. autosummary::", "   :nosignatures:", "", *(f"   {n}" for n in names), ""]
        for name in names:
            kind = "class" if isinstance(getattr(module, name), type) else "function"
            lines += [f".. auto{kind}:: {name}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def tidy(app, what, name, obj, options, lines):
    """A docstring in the markup that it leaves out for those who read it as text."""
    text = literal("\n".join(lines))
    text = re.sub(r"^(Args|Raises):\n  (There are none|Nothing)\.\n\n?", "", text, flags=re.M)
    text = re.sub(
        r"^Raises:\n  Nothing([.:] .*(?:\n {4}.*)*)",
        lambda found: "Raises nothing" + textwrap.dedent(found[1].replace("\n    ", "\n")),
        text,
        flags=re.M,
    )
    text = re.sub(r"^Source: ", "**Source:** ", text, flags=re.M)
    text = re.sub(
        r"arXiv\s+([a-z-]+/\d+|\d{4}\.\d{4,5})",
        r"`arXiv \1 <https://arxiv.org/abs/\1>`__",
        text,
    )
    lines[:] = text.split("\n")


def literal(text: str) -> str:
    """The text with its bars, stars and underscores escaped, outside of formulas and examples."""
    paragraphs = text.split("\n\n")
    for i, paragraph in enumerate(paragraphs):
        if re.match(r"\s*\.\. math::|Example:", paragraph):
            continue
        parts = re.split(r"((?::\w+:)?`[^`]*`)", paragraph)
        for k in range(0, len(parts), 2):
            starred = re.sub(r"(?<!^)(?<!\n)([|*])", r"\\\1", parts[k])
            parts[k] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", starred)
        paragraphs[i] = "".join(parts)
    return "\n\n".join(paragraphs)


def as_written(app, what, name, obj, options, signature, returns):
    """The annotations of the source, in place of what they stand for."""
    if what not in ("function", "class"):
        return None
    node = ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    if isinstance(node, ast.FunctionDef):
        module = name.rpartition(".")[0]
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and len(NAMES.get(part.id, [])) > 1:
                part.id = of_its_module(part.id, module, obj.__globals__.get(part.id))
        return f"({ast.unparse(node.args)})", node.returns and ast.unparse(node.returns)
    assert isinstance(node, ast.ClassDef)
    fields = [ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign)]
    return f"({', '.join(fields)})" if fields else "", None


def of_its_module(name: str, module: str, meant: object) -> str:
    """A name that several modules have, with its own before it where that is not the page's."""
    if f"{module}.{name}" in NAMES[name]:
        return name
    for full in NAMES[name]:
        home = full.rpartition(".")[0]
        if getattr(importlib.import_module(home), name) is meant:
            return full.removeprefix("bounds.")
    return name


def resolve(app, env, node, content):
    """A name as it is used inside of its module, and names that are of other libraries."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    found = NAMES.get(target, [])
    if len(found) == 1:
        domain = env.domains.python_domain
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, content)
    return None if target.startswith("bounds.") else content


def link(app, doctree):
    """In Markdown `bounds.iwae` leads to its entry, and theory.md is called by its title."""
    page = app.env.docname
    for other in doctree.findall(pending_xref):
        if other["refdomain"] == "doc" and re.fullmatch(r"(docs/)?[\w-]+\.md", other.astext()):
            other["refexplicit"] = False
    for code in list(doctree.findall(nodes.literal)):
        target = code.astext()
        if target in NAMES and page in OF_THE_LIBRARY and f"bounds.{target}" in NAMES[target]:
            target = f"bounds.{target}"
        if target not in PUBLIC or isinstance(code.parent, (pending_xref, nodes.title)):
            continue
        entry = pending_xref(
            "", refdomain="py", reftype="obj", reftarget=target, refdoc=page, refexplicit=False
        )
        code.replace_self(entry)
        entry += code


def inside(app, page, source):
    """Links to the files above `docs`, which are pages of the site under other names."""
    for outside, name in OUTSIDE.items():
        source[0] = source[0].replace(f"]({outside})", f"]({name})")


def setup(app):
    """Called by Sphinx."""
    app.add_directive("members", Members)
    app.connect("source-read", inside)
    app.connect("autodoc-process-docstring", tidy, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", as_written)
    app.connect("missing-reference", resolve)
    app.connect("doctree-read", link)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
