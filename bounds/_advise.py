"""Advice: which estimator, at how many samples, buys most of a gradient per second or FLOP."""

import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from bounds._advise_catalogue import BOUNDS, candidates
from bounds._advise_choices import COSTS, Choice, Measured, choices, measured, timed
from bounds._advise_measured import NUM_BLOCKS, Blocks, Numbers, blocks_of, seconds, traced
from bounds._checks import check_betas, check_count, is_known
from bounds._sampling import log_weights, sample_key
from bounds._thermodynamic import Betas
from bounds._types import Key, LatentModel, Params


class Advice(NamedTuple):
    """What `advise` found; `str` of it is a table with sentences.

    Attributes:
      rows: estimators, K and parts.
      choices: for each part and bound at each K, then for all K together.
      refused: estimator -> why it is not legal for this model, or could not be measured.
    """

    rows: tuple[Measured, ...]
    choices: tuple[Choice, ...]
    refused: dict[str, str]

    def __str__(self) -> str:
        head = (
            "bound",
            "estimator",
            "K",
            "SNR theta",
            "phi",
            "bias phi",
            "ms",
            "SNR^2/s theta",
            "phi",
        )
        cells: list[tuple[str, ...]] = [head]
        for _, same in itertools.groupby(
            self.rows, lambda r: (r.bound, r.estimator, r.num_samples)
        ):
            by = {r.of: r for r in same}
            r, phi = next(iter(by.values())), by.get("phi")
            bias = f"{phi.bias.value:.2g}" if phi and phi.biased else ""
            ratios = [f"{by[of].snr.value:.3g}" if of in by else "" for of in ("theta", "phi")]
            rates = [
                f"{by[of].per_second.value:.3g}" if of in by else "" for of in ("theta", "phi")
            ]
            ms = f"{1e3 * r.seconds.value:.3g}"
            cells.append((r.bound, r.estimator, str(r.num_samples), *ratios, bias, ms, *rates))
        widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
        pads = (str.ljust, str.ljust, *[str.rjust] * 7)
        lines = [
            "  ".join(pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True))
            for line in cells
        ]
        lines += ["", *(choice.reason for choice in self.choices)]
        lines += [f"not tried: {name}: {why}" for name, why in self.refused.items()]
        return "\n".join(lines)


def advise(
    model: LatentModel,
    params: Params,
    key: Key,
    x: PyTree,
    *,
    num_samples: Iterable[int] = (1, 4, 16, 64),
    bound: str | None = None,
    cost: str = "seconds",
    num_replicates: int = 400,
    num_calls: int = 15,
    betas: Betas = (0.0, 0.1, 0.3, 1.0),
    logits: Callable[[PyTree, PyTree], PyTree] | None = None,
    allow_biased: bool = False,
    level: float = 0.95,
) -> Advice:
    r"""Which gradient estimator, at which K, for THIS model, these parameters and this batch.

    .. math:: \mathrm{SNR}^2 = \frac{\|\mathbb E g\|^2}{\mathrm{tr}\,\mathrm{Cov}(g)}, \qquad
       \text{what is compared:} \quad \frac{\mathrm{SNR}^2}{\text{seconds}}
       \;\text{ or }\; \frac{\mathrm{SNR}^2}{\text{FLOPs}}

    for one gradient g, whose tr Cov(g) is the sum of the variances of its entries.

    Every legal estimator of the library is measured: its squared SNR in theta and in phi, its bias
    where it has one, and the cost of one compiled gradient of the mean over the batch. The mean of
    R gradients has a relative squared error of 1 / (R SNR^2), so squared SNR per cost is the rate
    at which precision is bought; what costs twice as much for twice the squared SNR is no better.

    What can be compared. Unbiased estimators of ONE bound have one expectation, and the ratio of
    their squared SNRs is that of their variances. The ELBO is one bound whatever K is; IWAE-K and
    the thermodynamic bound of K draws are another one at each K. Across bounds the ratio says how
    precisely a second buys each bound's own gradient, and NOT which bound is tighter or trains a
    better model: choose the bound first. So there is a choice at each K, and one over all K whose
    sentence says that the targets differ.

    What is refused. A best estimator is named only if its ratio to every rival is above 1 at
    `level` for all rivals together; otherwise the choice names those that cannot be told apart.
    An estimator that is known to be biased is measured and never chosen, unless `allow_biased`.

    What is not in it. The batch is fixed, so the noise of drawing batches is not there: where that
    is the larger one, training cannot tell estimators apart. The parameters are fixed as well, and
    q comes closer to the posterior in training: ask again then. Draws rarer than one in
    `num_replicates` are not seen: where they make most of a variance, as where weights have heavy
    tails (`pareto_k_hat`), its intervals are too narrow and too high, and more replicates tell.

    It times programs, so it is a host function and not for `jax.jit`. Most of its time is that of
    the compiler, which sees each estimator once at each K. All of them get the same draws, one
    replicate after the other, in 20 blocks; the mean gradients of the blocks are held in memory,
    those of two estimators at a time, whatever `num_replicates` is.

    Args:
      model: the model.
      params: where its gradients are taken; theta or phi may have no entries.
      key: PRNG key; replicate r uses `fold_in(key, r)`, datum i of it `fold_in(., i)`.
      x: a batch of data, arrays [N, ...].
      num_samples: each K to try. At K = 1 all bounds are the ELBO, where it is measured.
      bound: "elbo", "iwae" or "thermodynamic", to keep to one; None for all three.
      cost: "seconds" or "flops": what the choices divide by; the rows have both. The compiler
        counts the body of a loop once, so FLOPs of a model that loops are too few.
      num_replicates: gradients of each estimator, a multiple of 20, at least 40.
      num_calls: timed gradients of each, in turns, at least 2. At a level of 95% fewer than 6 tell
        nothing of seconds, and 15 are enough for choices among hundreds.
      betas: of the thermodynamic bound, see `thermodynamic`.
      logits: (phi, x) -> log-odds of independent Bernoulli z, see `disarm`, which is not tried
        without them.
      allow_biased: whether a biased estimator may be chosen; its sentence says that it is.
      level: of the intervals of the rows, and of each choice as a whole.

    Returns:
      `Advice`.

    Raises:
      TypeError: a count is not an integer, or x is not a batch of arrays.
      ValueError: a count is too small, `num_replicates` is no multiple of 20, `bound` or `cost` is
        none of those named, `level` is not between 0 and 1, `betas` are out of order, or no
        estimator is legal.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = phi * x + jax.random.normal(key)
      ...     return z, norm.logpdf(z, phi * x)
      >>> model = bounds.LatentModel(
      ...     propose=propose,
      ...     log_q=lambda phi, x, z: norm.logpdf(z, phi * x),
      ...     log_p=lambda theta, x, z: norm.logpdf(z, theta) + norm.logpdf(x, z))
      >>> advice = bounds.advise(
      ...     model, bounds.Params(0.0, 0.7), jax.random.key(0), jnp.array([1.0, -2.0]),
      ...     num_samples=[4], bound="iwae", cost="flops")
      >>> [sorted(c.best) for c in advice.choices if c.of == "phi"]  # no choice between these
      [[('ovis', 4), ('rloo', 4)]]

    Source: Rainforth et al. 2018 (arXiv 1802.04537) for the ratio; the criterion follows from the
    variance of a mean. Choices are multiple comparisons with the best (Hsu 1981) by Bonferroni.
    """
    if not isinstance(num_samples, Iterable):
        raise TypeError(f"num_samples must be each K to try, such as (1, 4), got {num_samples!r}.")
    counts = sorted({check_count("num_samples", k) for k in num_samples})
    if not counts:
        raise ValueError("num_samples must name at least one K, such as (1, 4, 16).")
    if check_count("num_replicates", num_replicates, minimum=2 * NUM_BLOCKS) % NUM_BLOCKS:
        raise ValueError(
            f"num_replicates must be a multiple of {NUM_BLOCKS}, got {num_replicates}."
        )
    rounds = check_count("num_calls", num_calls, minimum=2)
    for name, given, known in (("bound", bound, (None, *BOUNDS)), ("cost", cost, COSTS)):
        if given not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {given!r}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}.")
    path = check_betas(betas)
    _check_batch(model, params, key, x)

    each = jax.vmap(sample_key, (None, 0))(key, jnp.arange(num_replicates))
    keys = [each[r] for r in range(num_replicates)]
    refused: dict[str, str] = {}
    found: list[tuple[Callable, list[tuple[Measured, Numbers]]]] = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        todo = []
        for of_bound, count in itertools.product((bound,) if bound else BOUNDS, counts):
            for candidate in candidates(of_bound, path, logits):
                if candidate.name in refused or not candidate.takes(count):
                    continue
                try:
                    compiled = traced(candidate.make(model, count), params, keys[0], x)
                except (TypeError, ValueError) as error:
                    sentence = str(error).strip().splitlines()[0].partition(". ")[0]
                    refused[candidate.name] = f"{sentence.rstrip('.')}."
                    continue
                todo.append((of_bound, count, candidate, pool.submit(compiled)))
        references: dict[tuple[str, int], dict[str, Blocks]] = {}  # that of one bound and K
        for of_bound, count, candidate, compiling in todo:
            gradient = compiling.result()
            blocks = blocks_of(gradient.run, keys)
            if not all(np.isfinite(part).all() for both in blocks.values() for part in both):
                refused[f"{candidate.name} at K = {count}"] = "its gradient is not finite."
                continue
            if (of_bound, count) not in references:
                references = {(of_bound, count): blocks}
            reference = references[of_bound, count]
            where = of_bound, candidate.name, count, candidate.biased
            rows = [
                measured(of, *where, blocks[of], reference[of], gradient.flops, level)
                for of in blocks
            ]
            found.append((functools.partial(gradient.run, keys[0]), rows))
    if not found:
        why = next(iter(refused.values()), f"none takes K = {', '.join(map(str, counts))}.")
        raise ValueError(f"advise has no estimator to try for this model: {why}")
    times = seconds([call for call, _ in found], rounds)
    entries = [
        timed(row, squared, spent, cost, level)
        for (_, rows), spent in zip(found, times, strict=True)
        for row, squared in rows
    ]
    eligible = [e for e in entries if allow_biased or not e.row.biased]
    return Advice(tuple(e.row for e in entries), tuple(choices(eligible, cost, level)), refused)


def _check_batch(model: LatentModel, params: Params, key: Key, x: PyTree) -> None:
    """Raises where x is no batch, or what the model raises for one of its data."""
    leaves = jax.tree.leaves(x)
    if not is_known((params, x)):
        raise TypeError("advise times programs, so it cannot be called under jax.jit or jax.vmap.")
    sizes = {leaf.shape[0] if getattr(leaf, "ndim", 0) else None for leaf in leaves}
    if len(sizes) != 1 or sizes & {None, 0}:
        raise TypeError(
            "x must be a batch: arrays with one leading axis of data, not empty, got shapes "
            f"{[getattr(leaf, 'shape', None) for leaf in leaves]}."
        )
    first = jax.tree.map(lambda leaf: leaf[0], x)
    jax.eval_shape(lambda: log_weights(model, params, key, first, num_samples=1))
