"""Where the checkout lies, and what its files import."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]


def imported(source: str, package: str) -> set[str]:
    """Top-level names that a file imports anywhere, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(package if node.level else (node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__"):
                names.add(str(node.args[0].value).split(".")[0])
    return names
