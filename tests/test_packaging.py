"""The package as others see it: imports, documentation, metadata and the fixed signatures."""

import ast
import inspect
import json
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import types

import pytest
from interface import library, public_names
from repository import ROOT, imported

import bounds

OURS = {"bounds", "models", "experiments", "configs", "tests", "benchmarks"}
MAY_IMPORT = {
    "bounds": {"bounds"},
    "models": {"bounds", "models"},
    "experiments": {"bounds", "models", "experiments"},
    "configs": set(),
}
LIBRARY = {"jax", "jaxtyping", "numpy"}  # all that `bounds` may use
# What an adapter is for, in a file that is imported when the adapter is called.
ADAPTED = {"bounds/_numpyro_sites.py": {"numpyro"}, "bounds/_ode_solver.py": {"diffrax"}}


def imports_of(package: str) -> dict[str, set[str]]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no files: the test looks in the wrong place"
    return {str(f.relative_to(ROOT)): imported(f.read_text(), package) for f in files}


@pytest.mark.parametrize(
    "source",
    [
        "import flax.linen as nn",
        "from flax import linen",
        "from flax.linen import Dense as Dense",
        "def f():\n    import flax",
        "if False:\n    from flax import struct",
        "import importlib\nflax = importlib.import_module('flax.linen')",
        "flax = __import__('flax')",
    ],
)
def test_import_check_sees_every_form_of_import(source):
    assert "flax" in imported(source, "bounds")


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_from_experiments_to_models_to_bounds(package):
    forbidden = {
        file: names & OURS - MAY_IMPORT[package] for file, names in imports_of(package).items()
    }
    assert not {file: names for file, names in forbidden.items() if names}


# Rooms of `experiments`, each with what it may use beside itself; a program at the top is in the
# room of what it runs.
SHARED = {"runtime", "data", "studies"}
ROOMS = {
    "runtime": set(),
    "data": {"runtime"},
    "studies": {"runtime", "data"},
    "vae": SHARED,
    "dequantize": SHARED,
    "diffusion": SHARED,
    "dalle": SHARED,
    "masked": SHARED,
    "snr": SHARED | {"vae"},
    "surgery": SHARED | {"vae"},
    "estimators": SHARED,
    "advise": SHARED | {"vae"},
    "audit": SHARED | {"vae", "dequantize", "diffusion", "dalle", "masked"},
    "compare": SHARED | {"vae", "dequantize", "diffusion", "dalle", "masked"},
    "compile": SHARED | {"vae", "dequantize", "diffusion", "dalle", "masked", "snr"},
    "explore": SHARED | {"snr"},
    "reproduced": SHARED | {"vae", "dequantize", "diffusion", "dalle", "snr", "surgery", "compare"},
    "accelerator": SHARED | {"vae", "diffusion", "snr", "compile"},
}
AT_THE_TOP = {
    "train": "vae", "evaluate": "vae", "reference": "vae", "dequantize_exact": "dequantize",
    "download": "data",
}  # fmt: skip


def rooms_used(source: str) -> set[str]:
    """Rooms that a file of `experiments` imports from anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("experiments.")}
    return {AT_THE_TOP.get(room, room) for room in found}


@pytest.mark.parametrize(
    ("source", "room"),
    [
        ("from experiments.dalle import build", "dalle"),
        ("from experiments.dalle.build import make", "dalle"),
        ("from experiments import dalle", "dalle"),
        ("def f():\n    import experiments.dalle.build as b", "dalle"),
        ("from experiments import evaluate", "vae"),
    ],
)
def test_check_of_rooms_sees_every_form_of_import(source, room):
    assert rooms_used(source) == {room}


def test_every_folder_and_program_of_experiments_has_its_place():
    top = (ROOT / "experiments").iterdir()
    names = {p.stem for p in top if p.suffix == ".py" or any(p.glob("*.py"))} - {"__init__"}
    assert names - {"__pycache__"} == ROOMS.keys() | AT_THE_TOP.keys()


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_use_what_lies_below_them_alone(room):
    files = [*(ROOT / "experiments" / room).rglob("*.py")]
    files += [ROOT / f"experiments/{name}.py" for name, of in AT_THE_TOP.items() if of == room]
    used = {str(f.relative_to(ROOT)): rooms_used(f.read_text()) for f in files}
    wrong = {file: rooms - ROOMS[room] - {room} for file, rooms in used.items()}
    assert not {file: rooms for file, rooms in wrong.items() if rooms}


def test_below_the_door_settings_have_types():
    """A config that may be anything is not handed on: sections are, whose fields are known."""
    sources = {f: f.read_text() for f in (ROOT / "experiments").rglob("*.py")}
    assert [str(f) for f, text in sources.items() if "config: Any" in text] == []
    # ml_collections ends at the door, and where files of configs are read.
    knowing = {str(f.relative_to(ROOT)) for f, t in sources.items() if "ml_collections" in t}
    assert knowing <= {
        f"experiments/{name}.py"
        for name in (
            "__init__",
            "runtime/cli",
            "runtime/exits",
            "runtime/settings",
            "runtime/subprograms",
        )
    }


def test_library_imports_only_jax_numpy_and_jaxtyping():
    allowed = LIBRARY | {"bounds"} | set(sys.stdlib_module_names)
    imports = imports_of("bounds")
    assert imports.keys() >= ADAPTED.keys()
    found = {file: names - allowed - ADAPTED.get(file, set()) for file, names in imports.items()}
    assert not {file: names for file, names in found.items() if names}


def test_importing_the_library_loads_none_of_the_experiments_libraries():
    unwanted = [
        "diffrax",
        "flax",
        "optax",
        "absl",
        "sklearn",
        "matplotlib",
        "ml_collections",
        "orbax",
        "models",
        "numpyro",
        "distrax",
        "tensorflow_probability",
        "flowjax",
    ]
    code = (
        "import json, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import bounds\n"
        "print(json.dumps([bounds.__file__, sorted({m.split('.')[0] for m in sys.modules})]))"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    file, loaded = json.loads(answer.stdout)
    assert pathlib.Path(file) == ROOT / "bounds/__init__.py"
    assert {"bounds", "jax"} <= set(loaded)
    assert not set(unwanted) & set(loaded)
    assert answer.stderr == ""


FUNCTIONS = {n: value for n, value in public_names().items() if not isinstance(value, type)}


@pytest.mark.parametrize("module", library().values(), ids=library())
def test_all_lists_exactly_the_public_names(module):
    # The hook that checks shapes in tests puts `jaxtyping` into every module.
    public = {name for name in vars(module) if not name.startswith("_")} - {"jaxtyping"}
    assert set(module.__all__) == public
    assert module.__all__ == sorted(set(module.__all__))


def test_every_public_module_is_listed():
    files = {p.stem for p in (ROOT / "bounds").glob("*.py") if not p.stem.startswith("_")}
    assert library().keys() == {"bounds", *(f"bounds.{name}" for name in files)}


def test_nothing_public_has_two_names():
    by_object: dict[int, list[str]] = {}
    for name, value in public_names().items():
        by_object.setdefault(id(value), []).append(name)
    assert [names for names in by_object.values() if len(names) > 1] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_function_is_documented_with_an_example(name):
    doc = inspect.getdoc(FUNCTIONS[name]) or ""
    assert re.match(r".+\.(\n\n|$)", doc), "a one-line summary comes first"
    assert "Example:" in doc
    example = doc.split("Example:")[1]
    assert ">>> " in example
    # With its module: many a variable is called `terms` or `bound` too.
    own = re.escape(".".join(name.split(".")[-2:]))
    assert re.search(rf"\b{own}\b", example), "the example uses the name"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_function_documents_arguments_result_and_errors(name):
    function = FUNCTIONS[name]
    doc = inspect.getdoc(function) or ""
    same_as = re.search(r"^Args, Returns, Raises: as `(\w+)`", doc, re.MULTILINE)
    if same_as:
        neighbor = f"{name.rpartition('.')[0]}.{same_as[1]}"
        doc = inspect.getdoc(FUNCTIONS[neighbor]) or ""
    sections = dict(re.findall(r"^(Args|Returns|Raises):\n((?:  .*\n?|\n)+)", doc, re.MULTILINE))
    assert sections.keys() == {"Args", "Returns", "Raises"}
    described = set(re.findall(r"^  (\w+): \S", sections["Args"], re.MULTILINE))
    assert described >= set(inspect.signature(function).parameters)


SIGNATURES = """
elbo(log_w, *, axis=-1)
iwae(log_w, *, axis=-1)
renyi(log_w, alpha, *, axis=-1)
ciwae(log_w, beta, *, axis=-1)
normalized_weights(log_w, *, axis=-1)
effective_sample_size(log_w, *, axis=-1)
log_weights(model, params, key, x, *, num_samples, chunk_size=None)
log_likelihood(model, params, key, x, *, num_samples, chunk_size)
pathwise(model, *, num_samples, bound=iwae, has_aux=False, chunk_size=None)
stl(model, *, num_samples, bound=iwae, has_aux=False, chunk_size=None)
dreg(model, *, num_samples, alpha=0., has_aux=False, chunk_size=None)
reinforce(model, *, num_samples, has_aux=False, chunk_size=None)
vimco(model, *, num_samples, has_aux=False, chunk_size=None)
miwae(model, *, num_groups, num_samples, has_aux=False, chunk_size=None)
piwae(model, *, num_groups, num_samples, has_aux=False, chunk_size=None)
rws(model, *, num_samples, simulate=None, has_aux=False, chunk_size=None)
merge_moments(a, b)
gradient_moments(grad_fn, key, *, num_replicates, chunk_size)
snr(moments)
snr_squared(moments)
snr_interval(moments, *, level=.95)
snr_floor(num_replicates)
dsnr(grad_fn, key, *, direction, num_replicates, chunk_size)
power_law(x, y, y_standard_error, *, level=.95)
""".strip().splitlines()


@pytest.mark.parametrize("text", SIGNATURES)
def test_contract_signature_stands(text):
    """Names, order, keyword-only marks and defaults stay; more keywords may come."""
    scope = {"iwae": bounds.iwae}
    exec(f"def {text}: pass", scope)
    name = text.split("(")[0]
    wanted = inspect.signature(scope[name]).parameters
    actual = inspect.signature(getattr(bounds, name)).parameters
    for parameter in wanted.values():
        found = actual[parameter.name]
        assert (found.kind, found.default) == (parameter.kind, parameter.default)
    more = [p for p in actual.values() if p.name not in wanted]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in more)
    positional = [p.name for p in wanted.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert list(actual)[: len(positional)] == positional


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("Params", "theta phi"),
        ("LatentModel", "propose log_q log_p"),
        ("Aux", "log_w z"),
        ("Moments", "count mean m2 m3 m4"),
    ],
)
def test_contract_tuple_has_its_fields_in_order(name, fields):
    assert getattr(bounds, name)._fields == tuple(fields.split())


def metadata(monkeypatch) -> dict:
    """What setup.py passes to setuptools, which need not be installed."""
    given: dict = {}
    stand_in = types.ModuleType("setuptools")
    stand_in.setup = lambda **fields: given.update(fields)
    monkeypatch.setitem(sys.modules, "setuptools", stand_in)
    runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    return given


def test_version_is_the_same_everywhere(monkeypatch):
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [bounds.__version__]
    assert metadata(monkeypatch)["version"] == bounds.__version__


def test_distribution_requires_what_the_library_imports_and_nothing_else(monkeypatch):
    required = {re.match(r"[\w-]+", r)[0] for r in metadata(monkeypatch)["install_requires"]}
    files = {f: names - ADAPTED.get(f, set()) for f, names in imports_of("bounds").items()}
    used = set().union(*files.values()) - set(sys.stdlib_module_names) - {"bounds"}
    assert required == used


def test_extras_exist(monkeypatch):
    extras = metadata(monkeypatch)["extras_require"]
    assert {"experiments", "test", "benchmark", "cuda", "tpu"} <= extras.keys()


@pytest.mark.slow
def test_installing_brings_the_library_alone(tmp_path):
    # From a copy: a build leaves its traces beside setup.py.
    skip = shutil.ignore_patterns(".*", "__pycache__", "runs", "build", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "source", ignore=skip)
    target = tmp_path / "target"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, "."],
        cwd=tmp_path / "source",
        check=True,
        timeout=600,
    )
    installed = {path.name for path in target.iterdir()}
    assert installed == {"bounds", f"variational_bounds-{bounds.__version__}.dist-info"}
    assert (target / "bounds/py.typed").is_file()
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "bounds").rglob("*.py")}
    assert {str(p.relative_to(target)) for p in (target / "bounds").rglob("*.py")} == modules
