"""The public names of the library, wherever they are."""

import types
from typing import Any

import bounds


def library() -> dict[str, types.ModuleType]:
    """The library itself and its public modules by their full names."""
    tops = [getattr(bounds, name) for name in bounds.__all__]
    modules = [value for value in tops if isinstance(value, types.ModuleType)]
    return {module.__name__: module for module in (bounds, *modules)}


def public_names() -> dict[str, Any]:
    """Full name, as in "bounds.diffusion.terms", -> what it names; modules are not among them."""
    named = {
        f"{place}.{name}": getattr(module, name)
        for place, module in library().items()
        for name in module.__all__
    }
    return {name: value for name, value in named.items() if name not in library()}
