"""Operations of matrix products and convolutions in a traced program, loops counted as they run."""

import math
from typing import Any


def count(jaxpr: Any) -> float:
    r"""Multiplications and additions of all matrix products and convolutions.

    .. math:: 2 \prod_i n_i \quad (i: \text{dimensions of the output, and those summed over})

    XLA's own count has the body of a loop once; here it counts as often as it runs, but that of a
    `while`, whose length nobody knows, once. Of branches the longest counts. What is computed again
    to save memory counts again, and so do zeros around an image.

    Args:
      jaxpr: of `jax.make_jaxpr` or `jax.stages.Traced.jaxpr`.
    """
    return sum(_of_equation(e) for e in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _of_equation(equation: Any) -> float:
    name, given = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = given["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * _size(equation) * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        return (
            2.0 * _size(equation) * math.prod(kernel[i] for i in given["dimension_numbers"][1][1:])
        )
    if name == "cond":
        return max(count(branch) for branch in given["branches"])
    inner = sum(count(v) for v in given.values() if hasattr(getattr(v, "jaxpr", v), "eqns"))
    if name == "shard_map":  # inside it is what one device does
        return inner * given["mesh"].size
    return inner * given["length"] if name == "scan" else inner


def _size(equation: Any) -> int:
    return math.prod(equation.outvars[0].aval.shape)
