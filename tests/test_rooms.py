"""Inside experiments imports point one way: runtime <- data <- studies <- families <- compare."""

import ast

import pytest
from repository import ROOT

BELOW = {  # room -> rooms that it may import from
    "runtime": (),
    "data": ("runtime",),
    "studies": ("runtime", "data"),
    "vae": ("runtime", "data", "studies"),
    "dequantize": ("runtime", "data", "studies"),
    "diffusion": ("runtime", "data", "studies"),
    "dalle": ("runtime", "data", "studies"),
    "snr": ("runtime", "data", "studies", "vae"),
    "surgery": ("runtime", "data", "studies", "vae"),
    "compare": ("runtime", "data", "studies", "vae", "dequantize", "diffusion", "dalle"),
    "compile": ("runtime", "data", "studies", "vae", "dequantize", "diffusion", "dalle", "snr"),
}


def rooms_in(source: str) -> set[str]:
    """Rooms of experiments, or single programs, that a file imports from, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {n.split(".")[1] for n in names if n.startswith("experiments.")}


def test_every_room_has_its_place():
    folders = {path.parent.name for path in ROOT.glob("experiments/*/__init__.py")}
    assert folders == set(BELOW)
    assert rooms_in("def f():\n    from experiments import dalle") == {"dalle"}


@pytest.mark.parametrize("room", BELOW)
def test_imports_point_down(room):
    files = sorted(ROOT.glob(f"experiments/{room}/*.py"))
    assert files
    for file in files:
        # Families run their programs, so single files of experiments are no rooms.
        above = rooms_in(file.read_text()) & BELOW.keys() - {room, *BELOW[room]}
        assert not above, f"{file.name} imports from {above}"
