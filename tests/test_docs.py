"""Pages, docstrings and the Makefile name flags, files, targets, tests and functions that exist."""

import ast
import functools
import operator
import pathlib
import re
import runpy

import pytest
from repository import ROOT

import bounds

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/notebooks/*.md")])
PROGRAMS = sorted([*ROOT.glob("experiments/*.py"), *ROOT.glob("experiments/*/__main__.py")])
CONFIGS = sorted(p for p in ROOT.glob("configs/*.py") if p.stem != "__init__")
OTHERS = [ROOT / "Makefile", ROOT / ".pre-commit-config.yaml", *sorted(ROOT.glob("launch/*.yaml"))]
SOURCES = [*PAGES, *PROGRAMS, *CONFIGS, *OTHERS]
# The changelog names flags and files of earlier versions beside those of today.
TODAY = [path for path in SOURCES if path.name != "CHANGELOG.md"]


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: pathlib.Path) -> str:
    """What a reader sees, with continued lines of commands joined: of code, its docstring."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    return re.sub(r"\\\n\s*", " ", text)


@functools.cache
def config_of(path: str, variant: str = "") -> dict:
    get_config = runpy.run_path(str(ROOT / path))["get_config"]
    return (get_config(variant) if variant else get_config()).to_dict()


def has_field(config: dict, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(config, dict) or part not in config:
            return False
        config = config[part]
    return True


def commands(text: str) -> list[tuple[str, str, list[str]]]:
    """(config, variant, fields) of every command that names a config and sets fields of it."""
    found = []
    for line in re.findall(r"python -m experiments\.\w+[^\n`]*", text):
        config = re.search(r"--config=(configs/\w+\.py)(?::([\w,]+)(?![\w,=]))?", line)
        if config:
            fields = re.findall(r"--config\.([\w.]*\w)=", line)
            found.append((config[1], config[2] or "", fields))
    return found


@pytest.mark.parametrize("path", TODAY, ids=name_of)
def test_flags_of_configs_exist(path):
    text = text_of(path)
    for config, variant, fields in commands(text):
        for field in fields:
            assert has_field(config_of(config, variant), field), f"{config} has no {field}"
    known = [config_of(name_of(file)) for file in CONFIGS]
    for field in re.findall(r"(?:--|\b)config\.([a-z]\w*(?:\.\w+)*)", text):
        if field in ("yaml", "json", "py") or field.endswith("NAME.run"):
            continue
        assert any(has_field(config, field) for config in known), f"no config has {field}"


def test_the_check_of_flags_sees_a_flat_one():
    digits = "configs/train_digits.py"
    text = f"python -m experiments.train --config={digits} --config.learning_rate=1e-2"
    assert commands(text) == [(digits, "", ["learning_rate"])]
    assert not has_field(config_of(digits), "learning_rate")
    assert has_field(config_of(digits), "optimizer.learning_rate")


@pytest.mark.parametrize("path", TODAY, ids=name_of)
def test_variants_of_configs_exist(path):
    for config, variant in re.findall(r"(configs/\w+\.py):([a-z_0-9,]+)(?![\w=])", text_of(path)):
        config_of(config, variant.rstrip(","))  # an unknown one raises


@pytest.mark.parametrize("path", TODAY, ids=name_of)
def test_files_exist(path):
    text = text_of(path)
    folders = "bounds|models|experiments|configs|tests|benchmarks|launch|docs"
    named = re.findall(rf"(?<![\w/.-])(?:{folders})/[\w/.-]*\w\.(?:py|md|yaml|png)\b", text)
    for name in named:
        assert (
            "FAMILY" in name
            or "NAME" in name
            or (ROOT / name).exists()
            or (path.parent / name).exists()
        ), name
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)  # a[k](x) of Python is no link
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", prose):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_targets_and_programs_exist(path):
    text = text_of(path)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    code = re.findall(r"`+[^`]+`+", text)
    for target in re.findall(r"(?<![\w-])make ([a-z][a-z-]+)", "\n".join(code)):
        assert target in targets, f"make {target}"
    for program in re.findall(r"python -m experiments\.([a-z_]+)", text):
        folder = ROOT / "experiments" / program
        assert folder.with_suffix(".py").exists() or (folder / "__main__.py").exists(), program
    for benchmark in re.findall(r"python -m benchmarks ([a-z]\w+)", text):
        assert (ROOT / f"benchmarks/{benchmark}.py").exists(), benchmark


@functools.cache
def known_tests() -> dict[str, set[str]]:
    """File -> names of its tests."""
    return {
        name_of(file): set(re.findall(r"^def (test_\w+)", file.read_text(), re.M))
        for file in ROOT.glob("tests/**/test_*.py")
    }


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_tests_exist(path):
    text = text_of(path)
    known = set().union(*known_tests().values())
    for name in re.findall(r"`(test_\w+)`", text):
        assert name in known, name
    for file, name in re.findall(r"(tests/[\w/]+\.py)[:,]\s+`(test_\w+)`", text):
        assert name in known_tests()[file], f"{file} has no {name}"


def of_the_library(text: str) -> list[str]:
    """Dotted names after `bounds.`, modules included."""
    return re.findall(r"(?<![\w./-])bounds\.([A-Za-z]\w+(?:\.[A-Za-z]\w+)*)", text)


@pytest.mark.parametrize("path", TODAY, ids=name_of)
def test_functions_of_the_library_exist(path):
    for name in of_the_library(text_of(path)):
        operator.attrgetter(name)(bounds)  # an unknown one raises


def test_the_check_of_functions_looks_into_modules():
    assert of_the_library("`bounds.diffusion.terms(x).prior`.") == ["diffusion.terms"]
    with pytest.raises(AttributeError, match="diffusion_terms"):
        operator.attrgetter("diffusion.diffusion_terms")(bounds)
