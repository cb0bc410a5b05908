"""Whether gradients can flow through a draw: looked for in the program of `propose` alone.

The program is traced, never run, and turned into a graph of its values. An edge is smooth where a
derivative passes: between floating values, except through steps such as floor. A choice is an
operation that takes a floating value made of noise and gives a value without derivative: an argmax
of logits plus Gumbel noise, a comparison of a probability with uniform noise. A function with a
rule of its own (`jax.custom_jvp`, `jax.custom_vjp`) is taken at its word.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import PyTree

from bounds._sampling import propose
from bounds._types import LatentModel

# Kinds of edges: with a derivative, continuous but cut off from it, and neither.
SMOOTH, STOP, BREAK = ANY = "smooth", "stop_gradient", "break"
STEPS = {"floor", "ceil", "round", "sign", "nextafter", "bitcast_convert_type"}


class _Graph:
    """Values of a program by number, equal operations on equal values counted once."""

    def __init__(self):
        self.floating: list[bool] = []
        self.into: dict[int, list[tuple[int, str]]] = defaultdict(list)
        self.out_of: dict[int, list[tuple[int, str]]] = defaultdict(list)
        self.breaks: list[tuple[list[int], list[int]]] = []  # inputs, and results without slope
        self.parts: dict[int, tuple[int, tuple]] = {}  # slice -> what it is of, and its box
        self.numbers: dict[Any, list[int]] = {}

    def new(self, aval: Any) -> int:
        dtype = getattr(aval, "dtype", None)
        self.floating.append(dtype is not None and jnp.issubdtype(dtype, jnp.inexact))
        return len(self.floating) - 1

    def join(self, source: int, target: int, kind: str = SMOOTH) -> None:
        if not (self.floating[source] and self.floating[target]):
            kind = BREAK
        self.into[target].append((source, kind))
        self.out_of[source].append((target, kind))

    def reached(self, starts: Iterable[int], *kinds: str, back: bool = False) -> set[int]:
        """What `starts` lead to by edges of these kinds, or what leads to them; with themselves."""
        edges, found, todo = self.into if back else self.out_of, set(starts), list(starts)
        while todo:
            for other, kind in edges[todo.pop()]:
                if other not in found and kind in kinds:
                    found.add(other)
                    todo.append(other)
        return found

    def run(self, jaxpr: Any, inputs: list[int]) -> list[int]:
        """Adds a program; the numbers of its results."""
        consts = getattr(jaxpr, "consts", ())
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        for index, variable in enumerate(jaxpr.constvars):
            same = ("const", id(consts[index]) if consts else variable)
            known[variable] = self.once(same, [variable.aval])[0]

        def number(atom):
            if hasattr(atom, "val"):
                value = id(atom.val) if jnp.ndim(atom.val) else str(atom.val)
                return self.once(("literal", value, str(atom.aval)), [atom.aval])[0]
            return known[atom]

        for equation in jaxpr.eqns:
            results = self.apply(equation, [number(v) for v in equation.invars])
            known |= dict(zip(equation.outvars, results, strict=True))
        return [number(v) for v in jaxpr.outvars]

    def once(self, same: Any, avals: list[Any]) -> list[int]:
        if same not in self.numbers:
            self.numbers[same] = [self.new(aval) for aval in avals]
        return self.numbers[same]

    def apply(self, equation: Any, inputs: list[int]) -> list[int]:
        name, params = equation.primitive.name, equation.params
        avals = [v.aval for v in equation.outvars]
        if name == "scan":
            return self.scan(params, inputs, avals)
        if name == "while":
            return self.loop(params, inputs, avals)
        if name == "cond":
            outputs = [self.new(aval) for aval in avals]
            for branch in params["branches"]:
                for result, output in zip(self.run(branch, inputs[1:]), outputs, strict=True):
                    self.join(result, output)
                    self.join(inputs[0], output)
            return outputs
        called = params.get("jaxpr", params.get("call_jaxpr"))
        takes = getattr(getattr(called, "jaxpr", called), "invars", ())
        if called is not None and len(takes) == len(inputs) and not name.startswith("custom_"):
            return self.run(called, inputs)
        same = (name, tuple(inputs), str(params))
        if same in self.numbers:
            return self.numbers[same]
        outputs = self.once(same, avals)
        kind = STOP if name == STOP else BREAK if name in STEPS else SMOOTH
        for output in outputs:
            for source in inputs:
                self.join(source, output, kind)
        if kind != STOP:
            flat = [v for v in outputs if kind == BREAK or not self.floating[v]]
            self.breaks.append((inputs, flat))
        if name == "slice":
            box = zip(params["start_indices"], params["limit_indices"], strict=True)
            self.parts[outputs[0]] = (inputs[0], tuple(box))
        if name == "split":
            shape, axis, start = equation.invars[0].aval.shape, params["axis"], 0
            for output, size in zip(outputs, params["sizes"], strict=True):
                box = [(0, length) for length in shape]
                box[axis] = (start, start + int(size))
                self.parts[output], start = (inputs[0], tuple(box)), start + int(size)
        return outputs

    def scan(self, params: Any, inputs: list[int], avals: list[Any]) -> list[int]:
        if "num_carry" in params:
            consts, carries = params["num_consts"], params["num_carry"]
        else:  # from jax 0.12 on
            consts, carries, _ = map(len, params["ft_in"].unpack())
        body = params["jaxpr"]
        inside = [self.new(v.aval) for v in getattr(body, "jaxpr", body).invars[consts:]]
        for source, target in zip(inputs[consts:], inside, strict=True):
            self.join(source, target)
        results = self.run(body, inputs[:consts] + inside)
        outputs = [self.new(aval) for aval in avals]
        for result, target in zip(results, outputs, strict=True):
            self.join(result, target)
        for result, target in zip(results[:carries], inside, strict=False):
            self.join(result, target)
        return outputs

    def loop(self, params: Any, inputs: list[int], avals: list[Any]) -> list[int]:
        tests, consts = params["cond_nconsts"], params["body_nconsts"]
        start = inputs[tests + consts :]
        inside = [self.new(aval) for aval in avals]
        results = self.run(params["body_jaxpr"], inputs[tests : tests + consts] + inside)
        (going_on,) = self.run(params["cond_jaxpr"], inputs[:tests] + inside)
        outputs = [self.new(aval) for aval in avals]
        for i, output in enumerate(outputs):
            self.join(start[i], inside[i])
            self.join(results[i], inside[i])
            self.join(inside[i], output)
            self.join(going_on, output)
        return outputs


class _Draw(NamedTuple):
    """The graph of (phi's leaves, key) -> (z's leaves, log q)."""

    graph: _Graph
    phi: dict[int, str]
    key: int
    z: dict[int, str]
    log_q: int


def check_gradient_paths(
    estimator: str, model: LatentModel, phi: PyTree, key: Any, x: PyTree
) -> None:
    """Raises where z follows phi by a choice, through which no gradient of it flows.

    Only leaves of phi that are traced are looked at: of others no gradient is taken.
    """
    leaves = jax.tree.leaves(phi)
    free = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tracer) and _is_floating(leaf)]
    draw = _traced(model, phi, key, x, free) if free else None
    at_fault = None if draw is None else _without_gradient(draw)
    if at_fault is not None:
        raise TypeError(
            f"{estimator} differentiates through z, so z must be reparameterised, but {at_fault} "
            "without a derivative: its gradient would silently be wrong. Use bounds.vimco, "
            "bounds.reinforce or bounds.rws for a z that is discrete or draws the component of a "
            "mixture; or draw z by a smooth map of noise (for a mixture: the inverse of its "
            "distribution function). What is to stay fixed takes jax.lax.stop_gradient in "
            "propose, in the draw and in log q."
        )


def check_smooth_noise(sampler: str, model: LatentModel, phi: PyTree, key: Any, x: PyTree) -> None:
    """Raises where a floating leaf of z takes isolated values, which dynamics would leave."""
    draw = _traced(model, phi, key, x, [])
    if draw is None:
        return
    graph = draw.graph
    drawn = graph.reached([draw.key], *ANY)
    floats = {v for v in drawn if graph.floating[v]}
    later = {w for v in floats for w, _ in graph.out_of[v]}
    smooth = graph.reached(floats - graph.reached(later, *ANY), SMOOTH, STOP)
    for leaf, name in draw.z.items():
        if leaf in drawn and leaf not in smooth:
            raise TypeError(
                f"{sampler} moves z along gradients, so z must be continuous, but {name} is drawn "
                "from isolated values; use bounds.log_likelihood for a discrete z."
            )


def _traced(model: LatentModel, phi: PyTree, key: Any, x: PyTree, free: list[int]) -> _Draw | None:
    """`propose` as a graph of phi's leaves `free`; None where it looks at numbers it is given."""
    leaves, structure = jax.tree.flatten(phi)

    def program(values, key):
        given = list(leaves)
        for i, value in zip(free, values, strict=True):
            given[i] = value
        return propose(model, jax.tree.unflatten(structure, given), key, x)

    try:
        jaxpr, (z, _) = jax.make_jaxpr(program, return_shape=True)([leaves[i] for i in free], key)
    except jax.errors.JAXTypeError:
        return None
    graph = _Graph()
    inputs = [graph.new(v.aval) for v in jaxpr.jaxpr.invars]
    try:
        *outputs, log_q = graph.run(jaxpr, inputs)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # a JAX that writes its programs in another way: nothing is looked for
    names = _names("phi", phi)
    return _Draw(
        graph,
        dict(zip(inputs[:-1], [names[i] for i in free], strict=True)),
        inputs[-1],
        dict(zip(outputs, _names("z", z), strict=True)),
        log_q,
    )


def _names(root: str, tree: PyTree) -> list[str]:
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [root + jax.tree_util.keystr(path) for path, _ in paths]


def _without_gradient(draw: _Draw) -> str | None:
    """What is at fault, or None."""
    graph = draw.graph
    of_phi = graph.reached(draw.phi, SMOOTH)
    of_key = graph.reached([draw.key], *ANY)
    to_z = graph.reached(draw.z, *ANY, back=True)
    smoothly_to_z = graph.reached(draw.z, SMOOTH, back=True)
    smoothly_to_log_q = graph.reached([draw.log_q], SMOOTH, back=True)
    chosen_by, chosen = set(), set()
    for inputs, outputs in graph.breaks:
        results, operands = to_z.intersection(outputs), of_phi.intersection(inputs)
        if results and operands and not of_key.isdisjoint(inputs):
            chosen_by |= operands
            chosen |= results
    behind = graph.reached(chosen_by, SMOOTH, back=True)
    for leaf, name in draw.phi.items():
        if leaf not in smoothly_to_z and (
            leaf in behind or (leaf in to_z and leaf in smoothly_to_log_q)
        ):
            return f"it depends on {name}"
    discrete = graph.reached(chosen, *ANY)
    for leaf, name in draw.z.items():
        if leaf in discrete and leaf not in of_phi:
            return f"{name} depends on phi"
    for part, (whole, box) in graph.parts.items():
        if part in behind & of_phi and part not in smoothly_to_z:
            others = [w for w, kind in graph.out_of[whole] if kind == SMOOTH and w in smoothly_to_z]
            if others and all(w in graph.parts and _apart(box, graph.parts[w][1]) for w in others):
                slices = ", ".join(f"{start}:{stop}" for start, stop in box)
                return f"it depends on the entries [{slices}] of an array made from phi"
    return None


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _apart(one: tuple, other: tuple) -> bool:
    return any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(one, other, strict=True))
