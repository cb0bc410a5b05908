"""The site: every name has an entry, every symbol is defined, and pages stand by themselves."""

import importlib.util
import inspect
import itertools
import json
import re
import subprocess
import sys

import pytest
from interface import library, public_names
from page_cases import Read
from repository import ROOT

DOCS = ROOT / "docs"
NAMES = public_names()
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("notebooks/*.md")])


def entries(text: str) -> list[str]:
    """Full names of what a page of the reference lists."""
    lists = re.findall(r"^\.\. members:: (\S+)\n((?:\n|   \S.*\n)*)", text, re.M)
    return [f"{module}.{name}" for module, names in lists for name in names.split()]


def test_every_public_name_has_one_entry_on_the_page_of_its_module():
    pages = {path.stem: entries(path.read_text()) for path in DOCS.glob("api/*.rst")}
    assert sorted(itertools.chain(*pages.values())) == sorted(NAMES)
    for page, names in pages.items():
        assert {name.rpartition(".")[0].rpartition(".")[2] for name in names} == {page}
    assert len(pages) == len(library())


# Of LaTeX: what places, measures or names an operation, and stands for no quantity.
OPERATIONS = set(
    re.findall(
        r"\\\w+",
        r"""\Rightarrow \Vert \approx \begin \big \Big \Bigl \Bigr \bigl \bigr \bmod \cdot \cos
        \cup \det \dots \end \exp \frac \ge \in \infty \int \langle \lceil \le \left \leftarrow \ln
        \log \lvert \max \mid \min \ne \notin \parallel \perp \pi \prod \propto \qquad \quad \rangle
        \rceil \right \rvert \sim \sqrt \sum \textstyle \tfrac \times \to \underbrace \varnothing
        \widehat""",
    )
)
SYMBOL = re.compile(
    r"\\(?:hat|bar|tilde|mathbb|mathcal)\s*\{?\\?[A-Za-z]+\}?"
    r"|\\(?:mathrm|operatorname)\s*\{?[A-Za-z_]+\}?"
    r"|\\[A-Za-z]+|[A-Za-z]"
)
# What stands on the left of an equation that begins here.
DEFINED = re.compile(r"(?:^|\\qquad|\\quad|\\;|,|&)([^=,&]*?)&?(?:=|\\leftarrow|\\propto)")
SCRIPT = re.compile(r"[_^](?:\{[^{}]*\}|\\?\w+)")
FENCE = re.compile(r"^( *)```(\{?[\w-]*\}?)[^\n]*\n(.*?)^\1```$", re.M | re.S)
FORMULA = re.compile(
    r"\.\. math:: ?(?P<block>.*(?:\n +\S.*)*)|:math:`(?P<role>[^`]*)`"
    r"|\$\$(?P<shown>[^$]*)\$\$|\$(?P<inline>[^$]*)\$"
)


def symbols(formula: str) -> list[str]:
    """What stands for something, in order: x, alpha, x_hat, KL, mathbbE."""
    formula = re.sub(r"\\text\s*\{[^}]*\}|\\(?:begin|end)\{\w+\}", " ", formula)
    formula = re.sub(r"\\[^A-Za-z]", " ", formula.replace(r"\_", "_"))
    found = [re.sub(r"[{}\s]", "", match) for match in SYMBOL.findall(formula)]
    found = [symbol for symbol in found if symbol not in OPERATIONS]
    found = [re.sub(r"^\\(mathrm|operatorname)", "", symbol) for symbol in found]
    return [re.sub(r"^\\(hat|bar|tilde)\\?(\w+)$", r"\2_\1", s).lstrip("\\") for s in found]


def formulas(text: str) -> tuple[list[str], str]:
    """The formulas of a docstring or of a page in Markdown, and the text around them."""
    text = FENCE.sub(lambda f: f"$${f[3]}$$" if f[2].strip("{}") == "math" else " ", text)
    text = re.sub(r"(?<![:`])`[^`]*`", lambda code: code[0].replace("$", ""), text)
    found = [next(filter(None, match.groups()), "") for match in FORMULA.finditer(text)]
    return found, FORMULA.sub(" ", text)


def first_column() -> set[str]:
    """The symbols that the glossary defines."""
    rows = re.findall(r"^\| (\$[^|]*) \|", (DOCS / "glossary.md").read_text(), re.M)
    assert len(rows) > 40
    return {symbol for row in rows for symbol in symbols(row)}


GLOSSARY = first_column()


def bare(formula: str) -> str:
    """A formula without its indices and exponents."""
    return SCRIPT.sub("", formula).strip()


def undefined(text: str) -> set[str]:
    """Symbols of formulas that are in neither the glossary nor the text, and introduced by none.

    Introduced is what a formula says nothing else about, and the one that the left of an equation
    is about.
    """
    found, prose = formulas(text)
    left = [set(symbols(part)) - GLOSSARY for f in found for part in DEFINED.findall(f)]
    alone = [set(symbols(f)) for f in map(bare, found) if SYMBOL.fullmatch(f)]
    introduced = {symbol for new in [*left, *alone] if len(new) == 1 for symbol in new}
    # "a" alone is an article more often than a symbol.
    prose = re.sub(r"\ba\b(?![.,:;)=_*]| and | [<>=])", " ", prose.replace("-hat", "_hat"))
    words = set(re.findall(r"\w+", prose))
    words |= {part for word in words for part in word.split("_")}
    return {s for f in found for s in symbols(f)} - GLOSSARY - introduced - words


@pytest.mark.parametrize("name", NAMES)
def test_symbols_of_docstrings_are_defined(name):
    assert not undefined(inspect.getdoc(NAMES[name]) or "")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_symbols_of_pages_are_defined(path):
    assert not undefined(path.read_text())


def test_the_check_of_symbols_sees_one_that_nobody_defines():
    text = r"""Sum.

    .. math:: \zeta_k + \hat h(x) = \mathrm{Foo}(\omega), \quad c = \sum_k w_k

    with omega as the paper has it, and :math:`\hat h` its estimate.
    """
    assert undefined(text) == {"zeta", "Foo"}
    assert undefined("the symbol a\n\n.. math:: a + 1") == {"a"}
    assert undefined("```math\n\\chi + 1\n```\n\n```python\nchi = $1$\n```\n") == {"chi"}


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"_sphinx/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LINKS = load("links")
WHOLE = """<link rel="stylesheet" href="a.css"><link rel="canonical" href="https://example.org/">
<h1 id="top">Top</h1><a href="#top">up</a><a href="b.html#there">on</a><img src="a.png">
<a href="https://example.org/a?b#c">out</a><img src="data:image/png;base64,AA">"""


def site(folder, page: str, style: str = ""):
    (folder / "a.html").write_text(page)
    (folder / "b.html").write_text('<p id="there">There</p>')
    (folder / "a.css").write_text(f'@font-face {{ src: url("a.png") }} {style}')
    (folder / "a.png").touch()
    return LINKS.faults(folder)


def test_a_page_that_stands_by_itself_has_no_faults(tmp_path):
    assert site(tmp_path, WHOLE) == []


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ('<a href="c.html">c</a>', "leads nowhere"),
        ('<a href="b.html#here">b</a>', "no such anchor"),
        ('<a href="#bottom">down</a>', "no such anchor"),
        ('<a href="https://example .org">out</a>', "no address"),
        ('<a href="file:///etc">out</a>', "no link for a page"),
        ('<img src="c.png">', "not there"),
        ('<img srcset="a.png 1x, //example.org/a.png 2x">', "from a network"),
        ('<script src="https://example.org/a.js"></script>', "from a network"),
        ('<script>fetch("https://example.org/a.json")</script>', "from a network"),
        ('<link rel="preconnect" href="https://example.org">', "from a network"),
        ('<style>@import "https://example.org/a.css";</style>', "from a network"),
        ('<p style="background: url(//example.org/a.png)"></p>', "from a network"),
    ],
)
def test_what_leads_nowhere_or_is_fetched_is_a_fault(tmp_path, added, fault):
    (found,) = site(tmp_path, WHOLE + added)
    assert fault in found


def test_styles_fetch_nothing_either(tmp_path):
    (found,) = site(tmp_path, WHOLE, "body { background: url(https://example.org/a.png) }")
    assert "a.css: loads from a network" in found


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The whole site but for what notebooks print."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--nitpicky"]
    command += ["-D", "nb_execution_mode=off", "-D", "suppress_warnings=myst-nb.lexer"]
    command += ["--doctree-dir", folder / "trees"]
    subprocess.run([*command, DOCS, folder / "html"], check=True)
    return folder / "html"


def test_the_site_is_built_without_a_warning_and_stands_by_itself(built):
    assert LINKS.faults(built) == []
    anchors = {path: LINKS.Page(path.read_text()).anchors for path in built.glob("api/*.html")}
    assert set().union(*anchors.values()) >= set(NAMES)


MEASURE = """<iframe id="frame" width="WIDTH" height="800"></iframe><script>
const frame = document.getElementById("frame"), wide = [];
async function measure() {
  for (const page of PAGES) {
    await new Promise((done) => { frame.onload = done; frame.src = page; });
    const root = frame.contentDocument.documentElement;
    if (root.scrollWidth > root.clientWidth) wide.push(page);
  }
  document.body.dataset.report = JSON.stringify(wide);
}
measure();
</script>"""


def wider_than(browser, folder, width: int) -> list[str]:
    """Pages that would scroll sideways in a window of that width."""
    pages = [path.as_uri() for path in sorted(folder.rglob("*.html"))]
    probe = folder / "probe.htm"
    probe.write_text(MEASURE.replace("WIDTH", str(width)).replace("PAGES", json.dumps(pages)))
    flags = ["--dump-dom", "--allow-file-access-from-files", "--virtual-time-budget=60000"]
    return json.loads(Read(browser(probe, *flags)).body["data-report"] or "")


@pytest.mark.parametrize("width", [400, 1400])
def test_no_page_is_wider_than_its_window(browser, built, width):
    assert wider_than(browser, built, width) == []


def test_a_page_that_is_too_wide_is_seen(browser, tmp_path):
    (tmp_path / "a.html").write_text('<p style="width: 390px">a</p>')
    (tmp_path / "b.html").write_text('<p style="width: 500px">b</p>')
    (found,) = wider_than(browser, tmp_path, 410)
    assert found.endswith("b.html")


def test_search_finds_a_function_without_a_network(browser, built):
    page = browser(built / "search.html", "--dump-dom", query="?q=reverse_ais")
    assert 'href="api/bounds.html#bounds.reverse_ais"' in page
