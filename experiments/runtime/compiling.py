"""How evaluations are compiled: full precision, and options that pay on a CPU."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from experiments.runtime import mesh as meshes


def precise(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with matmuls in full float32; accelerators round their inputs otherwise."""

    @functools.wraps(function)
    def in_full(*arguments):
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    return in_full


# The exponentials and logarithms of pixels outweigh the matmuls around them on a CPU. XLA's own
# code for them beats that of the library it fuses them into, and vectors of 512 bits, which XLA
# does not use of itself, help where the processor has them.
_WIDE = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_experimental_ynn_fusion_type": ""}


def wide_vectors() -> dict[str, int | str] | None:
    """`compiler_options` for a forward pass dominated by elementwise work; None for the default.

    They change rounding, nothing else, and are left out where this XLA does not know them.
    """
    return _if_known() if meshes.all_devices()[0].platform == "cpu" else None


@functools.cache
def _if_known() -> dict[str, int | str] | None:
    try:
        jax.jit(lambda: 0.0, compiler_options=_WIDE).lower().compile()
    except Exception:  # XLA's own error types are not public
        return None
    return _WIDE
