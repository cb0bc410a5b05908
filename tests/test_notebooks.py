"""The notebooks have what a lecture needs, run as a reader runs them, and their claims can fail."""

import ast
import re
import runpy
import shutil
import sys

import programs
import pytest
from repository import ROOT, imported

NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.md"))
TEXTS = {path.stem: path.read_text() for path in NOTEBOOKS}
CHANGES = re.compile(r"^(\w+ = )(\S+)(  # change me: )(\S+), (\S+)$", re.M)
# What Colab has besides Python and what the first cell installs.
IN_COLAB = {"jax", "matplotlib", "numpy", "optax", "sklearn"}
# Claims that rest on iwae: with a wrong one these notebooks have to stop.
OF_IWAE = ("audit", "dalle", "dequantization", "diffusion", "elbo", "snr", "surgery")

every_notebook = pytest.mark.parametrize("name", TEXTS)


def cells(text: str) -> list[str]:
    """The code of each code cell, without its options."""
    found = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```$", text, re.M | re.S)
    assert len(found) == text.count("```{code-cell}") > 0
    return [re.sub(r"\A(?::.*\n)+", "", code) for code in found]


def script(text: str) -> str:
    """All code cells as one program, each line at its number in the notebook."""
    lines, inside = [], False
    for line in text.splitlines():
        fence = line.startswith("```")
        inside = line.startswith("```{code-cell}") or (inside and not fence)
        code = inside and not fence and not line.startswith(":")
        lines.append(line if code else "")
    return "\n".join(lines) + "\n"


def start(name, text, folder, tmp_path_factory):
    """Starts a notebook's code from a folder, in a process that is set up as a reader's."""
    path = folder / f"{name}.py"
    path.write_text(script(text))
    cache = programs.shared_folder(tmp_path_factory) / "compiled"
    return programs.start_python(path, cache=cache, env={"XLA_FLAGS": "", "MPLBACKEND": "Agg"})


@every_notebook
def test_notebooks_say_what_is_seen_and_needed_and_have_answers(name):
    text = TEXTS[name]
    top, exercises = text.split("```{code-cell}")[0], text.split("## Exercises")[1]
    assert "format_name: myst" in top
    assert "display_name: Python 3" in top
    assert re.search(r"^# \w", top, re.M)
    assert "**What you will see.**" in top
    assert re.search(r"\*\*What you need\.\*\*[^*]*(minute|seconds)", top)
    assert len(CHANGES.findall(text)) == text.count("change me") == 1
    numbers = re.findall(r"^\*\*Exercise (\d)\.\*\*", exercises, re.M)
    assert numbers == ["1", "2", "3"]
    assert exercises.count("<summary>Answer</summary>") == exercises.count("</details>") == 3
    # A line of HTML ends the paragraph that it touches.
    assert not re.search(r"[^\n]\n</?details>|</?details>\n(?!\n|<summary>)", text)


@every_notebook
def test_cells_parse_assert_and_label_their_figures(name):
    code = "".join(cells(TEXTS[name]))
    asserts = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Assert)]
    assert len(asserts) >= 8
    assert code.count("plt.show()") >= 2
    assert code.count("xlabel=") >= code.count("plt.show()") <= code.count("ylabel=")
    for cell in cells(TEXTS[name]):
        ast.parse(cell)  # alone, too: no statement is cut in two
        assert max(map(len, cell.splitlines())) <= 100
    compiled = compile(script(TEXTS[name]), name, "exec")
    assert compiled is not None


@every_notebook
def test_the_first_cell_installs_and_the_others_import_what_is_there(name):
    first, *rest = cells(TEXTS[name])
    distribution = re.search(r'name="([\w-]+)"', (ROOT / "setup.py").read_text())[1]
    installed = set(re.findall(r'"([\w-]+)"', first)) & {distribution, "numpyro"}
    assert distribution in installed
    assert 'find_spec("bounds")' in first or '"bounds": ' in first
    used = set().union(*(imported(cell, "") for cell in rest)) - sys.stdlib_module_names
    assert "bounds" in used
    assert used - {"bounds"} <= IN_COLAB | installed


def test_the_first_cell_does_nothing_where_the_library_is(monkeypatch, tmp_path):
    def run(*arguments, **options):
        raise AssertionError(f"installs: {arguments}")

    monkeypatch.setattr("subprocess.run", run)
    for name, text in TEXTS.items():
        path = tmp_path / f"{name}.py"
        path.write_text(cells(text)[0])
        runpy.run_path(str(path))


@pytest.mark.parametrize("wheels", [[], ["variational_bounds-9.0-py3-none-any.whl"]])
def test_the_first_cell_installs_the_wheel_beside_it_or_the_release(monkeypatch, tmp_path, wheels):
    commands = []
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    for wheel in wheels:
        (tmp_path / wheel).touch()
    for text in TEXTS.values():
        exec(cells(text)[0], {})
        assert commands.pop()[5] == (wheels or ["variational-bounds"])[0]


def test_a_script_keeps_the_numbers_of_lines():
    text = "a\n```{code-cell} ipython3\n:tags: [hide-cell]\nx = 1\n```\n```\ny\n```\nb\n"
    assert script(text) == "\n\n\nx = 1\n\n\n\n\n\n"
    assert cells(text) == ["x = 1\n"]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["as it is", "first change", "second change"])
@every_notebook
def test_notebooks_run(name, which, tmp_path, tmp_path_factory):
    change = {"as it is": r"\2", "first change": r"\4", "second change": r"\5"}[which]
    text = CHANGES.sub(rf"\g<1>{change}\g<3>\4, \5", TEXTS[name])
    code, out, err = programs.finish(start(name, text, tmp_path, tmp_path_factory))
    assert code == 0, out[-2000:] + err[-4000:]


@pytest.fixture(scope="module")
def without_log_k(tmp_path_factory):
    """A folder with a copy of the library whose `iwae` lacks its - log K."""
    folder = tmp_path_factory.mktemp("mutant")
    shutil.copytree(ROOT / "bounds", folder / "bounds")
    values = folder / "bounds" / "_values.py"
    right = "    log_w, axis = check_log_w(log_w, axis)\n    return log_mean_exp(log_w, axis)\n"
    assert values.read_text().count(right) == 1
    values.write_text(values.read_text().replace(right, right.replace("log_mean", "log_sum")))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_IWAE)
def test_notebooks_stop_where_iwae_lacks_its_log_k(name, without_log_k, tmp_path_factory):
    # The folder of a program comes first on its path.
    process = start(name, TEXTS[name], without_log_k, tmp_path_factory)
    code, out, err = programs.finish(process)
    assert code == 1
    assert re.search(r"^AssertionError", err, re.M), out[-2000:] + err[-4000:]
