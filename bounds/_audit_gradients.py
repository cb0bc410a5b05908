"""Whether two objectives have one gradient, and whether it reaches every parameter."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from bounds._moments import gradient_moments
from bounds._sampling import is_number, over_samples, sample_key
from bounds._types import Key, Objective, Params
from bounds._verdicts import ROUNDING, Test, certain, mean_zero, undecided

MEANINGS = {
    "finite gradients": "a step along this gradient would make parameters NaN.",
    "living gradients": "parameters that no gradient reaches are not trained.",
    "value of the objective": (
        "the objective does not report the bound that its gradient is compared with: it returns "
        "a surrogate, or lacks a term."
    ),
    "gradient in theta": "the objective's gradient in theta is biased.",
    "gradient in phi": (
        "the objective's gradient in phi is biased: weights that are not detached, or a score "
        "term that is dropped where it does not vanish."
    ),
    "gradient in x": "the objective's gradient in x is biased: x is live where it is to stop.",
}


class Differences(NamedTuple):
    difference: Array  # of values, [R]
    value: Array  # mean of the objective's
    along: tuple[Array, ...]  # of theta, phi and x: differences along that of other replicates, [R]
    norms: tuple[Array, ...]  # of theta, phi and x: root mean square of the objective's gradient
    mean: tuple[list[Array], ...]  # of the objective's gradient in each array
    square: tuple[list[Array], ...]  # sum of its squares about the mean


def differences(
    objective: Objective,
    reference: Objective,
    simulate: Callable[[PyTree, Any], tuple[PyTree, PyTree]],
    num_pairs: int,
    chunk_size: int | None,
    params: Params,
    key: Key,
) -> Differences:
    (theta, put_theta), (phi, put_phi) = map(arrays_of, params)

    def pair(key):
        simulated, drawn = jax.random.split(key)
        x, put_x = arrays_of(simulate(params.theta, simulated)[0])

        def of(objective):
            def value(theta, phi, x):
                of_datum = Params(put_theta(theta), put_phi(phi)), jax.random.clone(drawn), put_x(x)
                return objective(*of_datum)

            return jax.value_and_grad(value, argnums=(0, 1, 2))(theta, phi, x)

        (value, gradient), (other, expected) = of(objective), of(reference)
        return value, value - other, gradient, jax.tree.map(jnp.subtract, gradient, expected)

    half = num_pairs // 2
    first = gradient_moments(
        lambda k: pair(k)[2:], key, num_replicates=half, chunk_size=chunk_size or half
    )
    mean, direction = first.mean
    square = first.m2[0]

    def second(r):
        value, difference, _, gradient = pair(sample_key(key, half + r))
        along = tuple(_dot(g, d) / _norm(d) for g, d in zip(gradient, direction, strict=True))
        return value, difference, along

    value, difference, along = over_samples(second, jnp.arange(num_pairs - half), chunk_size)
    norms = tuple(
        jnp.sqrt(_dot(m, m) + sum((jnp.sum(v) for v in s), jnp.zeros(())) / half)
        for m, s in zip(mean, square, strict=True)
    )
    return Differences(difference, jnp.mean(value), along, norms, mean, square)


def _dot(a: list[Array], b: list[Array]) -> Array:
    return sum((jnp.vdot(u, v) for u, v in zip(a, b, strict=True)), jnp.zeros(()))


def _norm(a: list[Array]) -> Array:
    square = _dot(a, a)
    return jnp.sqrt(jnp.where(square > 0, square, 1.0))


def judged(found: Differences, params: Params) -> list[Test]:
    mean, square = (jax.tree.map(np.asarray, tree) for tree in (found.mean, found.square))
    places = [place for name, tree in params._asdict().items() for place in _places(name, tree)]
    places += ["x"] * len(mean[2])
    infinite = [int(np.size(v) - np.isfinite(v).sum()) for v in jax.tree.leaves(mean)]
    dead = [
        [not (np.any(m) or np.any(s)) for m, s in zip(ms, ss, strict=True)]
        for ms, ss in zip(mean, square, strict=True)
    ]
    names = ("theta", "phi", "x")
    first = next((f", of {p} first" for p, n in zip(places, infinite, strict=True) if n), "")
    tests = [certain("finite gradients", sum(infinite), 0, f"entries that are not finite{first}")]
    without = [p for p, d in zip(places, itertools.chain(*dead), strict=True) if d]
    count = len(without)
    wholly = [n for n, d in zip(names, dead, strict=True) if d and all(d) and n != "x"]
    if count and not wholly:
        # An array may be right to have none: an offset that cancels, x that is looked up.
        more = f" and {count - 1} more" if count > 1 else ""
        tests.append(
            undecided("living gradients", f"none reaches {without[0]}{more}, others have one")
        )
    else:
        why = f"arrays without a gradient, all of {wholly[0]}" if wholly else "arrays without one"
        tests.append(certain("living gradients", count, 0, why))
    rounding = ROUNDING * float(jnp.finfo(found.value.dtype).eps)
    scale = rounding * (1 + float(jnp.abs(found.value)))
    tests.append(mean_zero("value of the objective", found.difference, tolerance=scale))
    for name, along, norm, arrays in zip(names, found.along, found.norms, mean, strict=True):
        if arrays:
            # The estimate is the bias along the direction in which the others are biased.
            own = f"gradient in {name}"
            tests.append(mean_zero(own, along, side=-1, tolerance=rounding * float(norm)))
    return tests


def _places(name: str, tree: PyTree) -> list[str]:
    """Of the arrays that `arrays_of` finds."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [name + jax.tree_util.keystr(path) for path, leaf in leaves if is_floating(leaf)]


def arrays_of(tree: PyTree) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """Its floating arrays, and what puts others in their places; the other leaves stay."""
    leaves, structure = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if is_floating(leaf)]

    def put(arrays):
        out = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            out[place] = array
        return jax.tree.unflatten(structure, out)

    return [jnp.asarray(leaves[i]) for i in places], put


def is_floating(leaf: Any) -> bool:
    """Whether a leaf is a number or an array that gradients are taken of."""
    return is_number(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def compiled(fn: Callable, fixed: tuple[Any, ...], *trees: PyTree) -> Any:
    """fn(*fixed, *trees), compiled."""
    leaves, structure = jax.tree.flatten(trees)
    arrays = [leaf if is_number(leaf) else None for leaf in leaves]
    # Functions and names among parameters are fixed as well.
    others = tuple(None if is_number(leaf) else leaf for leaf in leaves)
    return program(fn, fixed, structure, others)(arrays)


def program(fn: Callable, fixed: tuple[Any, ...], structure: Any, others: tuple) -> Callable:
    """Compiled anew for each report: what a model closes over may be another by then."""

    def called(arrays):
        leaves = [b if a is None else a for a, b in zip(arrays, others, strict=True)]
        return fn(*fixed, *jax.tree.unflatten(structure, leaves))

    return jax.jit(called)
