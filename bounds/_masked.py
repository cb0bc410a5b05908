r"""Masked diffusion and any-order models: their ELBO by one time, one count or one order.

A network predicts every masked token of a sequence x of L tokens from the visible ones. With
c(M) = sum_{i in M} log p(x_i | the tokens outside M), three expectations are one number, the ELBO:

    E_{t ~ U(0, 1)} c(M_t) / t             each token is masked with probability t
    = E_{m ~ U{1 .. L}} (L / m) c(M_m)     m tokens are masked, every set of m alike
    = E_order sum_k log p(x_o(k) | x_o(1) .. x_o(k-1))

The first equals the second because m of L tokens are masked with the probability 1 / (L + 1)
whatever m is, and because E[1/t | m] = (L + 1) / m; the second equals the third because after k - 1
tokens of a random order the next one is any of the others, each as likely.

The first two are estimates of the ELBO by one evaluation of the network, the third by L of them.
`_masked_orders` has what is a log-weight.

Sources: Uria et al. 2014 (arXiv 1310.1757), Austin et al. 2021 (arXiv 2107.03006), Hoogeboom et al.
2022 (arXiv 2110.02037), Sahoo et al. 2024 (arXiv 2406.07524), Ou et al. 2024 (arXiv 2406.03736).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree

from bounds._checks import check_at_least, check_share, check_step, is_known, nan_unless
from bounds._densities import categorical_log_prob
from bounds._diffusion_estimates import BoundEstimate
from bounds._types import Key


class Masked(NamedTuple):
    r"""A network that predicts masked tokens, for ONE sequence x of L tokens, each one of V.

    .. math:: p(x_i | x_j, \ j \notin M) = \mathrm{softmax}(\ell_i)_{x_i}, \quad i \in M

    Attributes:
      predict: (theta, tokens [L]) -> logits :math:`\ell` [L, V], from tokens 0 .. V-1 where they
        are visible and V where they are masked. Rows of visible tokens are not looked at.
      length: L.
      levels: V; the token V stands for a masked one.
    """

    predict: Callable[[PyTree, Any], Any]
    length: int
    levels: int


def token_log_probs(
    model: Masked, theta: PyTree, x: ArrayLike, masked: ArrayLike
) -> Float[Array, "L"]:
    r"""Log-probability of every masked token given all that are visible.

    .. math:: \log p(x_i | x_j, \ j \notin M), \quad i \in M

    whose sum is c(M). As that of one set M it bounds nothing but the log-probability of its tokens
    under a model that draws all of them at once.

    Args:
      model: the model.
      theta: its parameters.
      x: one sequence, integers [L] from 0 to V - 1.
      masked: M as booleans [L], of which at least one is true.

    Returns:
      nats [L], 0 for a visible token.

    Raises:
      ValueError: x is not L tokens of the model, a known `masked` masks none, or `predict` returns
        a wrong shape.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> model = bounds.masked.Masked(lambda theta, tokens: jnp.zeros((3, 2)), length=3, levels=2)
      >>> found = bounds.masked.token_log_probs(
      ...     model, None, jnp.array([0, 1, 1]), jnp.array([True, False, True]))
      >>> [round(float(v), 4) for v in found]  # log 1/2
      [-0.6931, 0.0, -0.6931]
    """
    x, shape = check_tokens(model, x), jnp.shape(masked)
    if shape != (model.length,) or jnp.asarray(masked).dtype != bool:
        raise ValueError(f"masked must be {model.length} booleans, got shape {shape}.")
    if is_known(masked) and not np.any(np.asarray(masked)):
        raise ValueError("masked must mask at least one token: without one nothing is predicted.")
    masked = jnp.asarray(masked)
    return jnp.where(masked, token_scores(model, theta, x, masked), 0.0)


def by_time(
    model: Masked,
    theta: PyTree,
    key: Key,
    x: ArrayLike,
    time: ArrayLike,
    density: ArrayLike = 1.0,
) -> BoundEstimate:
    r"""The ELBO from one drawn time, by one evaluation of the network.

    .. math:: \frac{c(M_t)}{t \, r(t)}, \qquad c(M) = \sum_{i \in M} \log p(x_i | x_j, \ j \notin M)

    where every token is in M_t with probability t, and t has the density r. Its mean is the ELBO
    whatever r > 0 is; where r = 1 its variance is infinite but for a network that knows every
    token from all others: 1/t is squared where one token alone is masked. A smallest time above 0
    leaves out a part of the integral; `by_count` needs none.

    Args:
      model: the model.
      theta: its parameters.
      key: PRNG key of M_t.
      x: one sequence, integers [L] from 0 to V - 1.
      time: t in (0, 1], such as 1 - u with u of `diffusion.low_discrepancy_times`.
      density: r(t) with which it was drawn. A schedule 1 - t = alpha(s) at uniform s is such a
        density, one over the slope of t in s.

    Returns:
      A `diffusion.BoundEstimate`, to be averaged over data and times only; its `term` is c(M_t).
      NaN where a traced time or density is out of range.

    Raises:
      ValueError: a known time is not in (0, 1], a known density not above 0, x is not L tokens of
        the model, or `predict` returns a wrong shape.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.masked.Masked(lambda theta, tokens: jnp.zeros((3, 2)), length=3, levels=2)
      >>> found = bounds.masked.by_time(model, None, jax.random.key(0), jnp.array([0, 1, 1]), 1.0)
      >>> round(float(found.value), 4)  # all tokens masked: 3 log 1/2
      -2.0794

    Source: Sahoo et al. 2024 (arXiv 2406.07524), the bound in continuous time, in terms of t.
    """
    x, time = check_tokens(model, x), _check_time(time)
    density = check_at_least("density", density, 0.0, strictly=True)
    term = masked_log_prob(model, theta, x, masked_at(key, time, model.length))
    return BoundEstimate(term / (time * density), term)


def by_count(
    model: Masked,
    theta: PyTree,
    key: Key,
    x: ArrayLike,
    count: ArrayLike,
    probability: ArrayLike,
) -> BoundEstimate:
    r"""The ELBO from one drawn number of masked tokens, by one evaluation of the network.

    .. math:: \frac{c(M_m)}{m \, p_m}, \qquad c(M) = \sum_{i \in M} \log p(x_i | x_j, \ j \notin M)

    where M_m is any m of the L tokens, and m was drawn with probability p_m: 1/L from 1 .. L
    makes the weight L/m. `by_time` with its 1/t replaced by the mean of it given m is this one with
    p_m = 1 / (L + 1), which draws masks without a masked token for nothing; so L/m is the weight of
    counts, (L + 1)/m that of times, and each is another objective in the place of the other.

    Args:
      model: the model.
      theta: its parameters.
      key: PRNG key of M_m.
      x: one sequence, integers [L] from 0 to V - 1.
      count: m in 1 .. L, of `diffusion.discrete_times`; with the L times of
        `diffusion.low_discrepancy_times` each m comes up once, and the estimates vary less.
      probability: p_m with which it was drawn.

    Returns:
      A `diffusion.BoundEstimate`, to be averaged over data and counts only; its `term` is
      c(M_m) / m, the term of the count. NaN where a traced count or probability is out of range.

    Raises:
      ValueError: a known count is not in 1 .. L, a known probability not in (0, 1], x is not L
        tokens of the model, or `predict` returns a wrong shape.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.masked.Masked(lambda theta, tokens: jnp.zeros((3, 2)), length=3, levels=2)
      >>> found = bounds.masked.by_count(
      ...     model, None, jax.random.key(0), jnp.array([0, 1, 1]), count=2, probability=1/3)
      >>> round(float(found.value), 4)  # 3/2 times 2 log 1/2
      -2.0794

    Source: Hoogeboom et al. 2022 (arXiv 2110.02037), the objective of one step.
    """
    x = check_tokens(model, x)
    none = "without a masked token nothing is predicted, and there are no more tokens than that"
    count = check_step("count", count, model.length, f": {none}")
    probability = check_share("probability", probability)
    rank = jax.random.permutation(key, model.length)
    whole = masked_log_prob(model, theta, x, rank < count)
    term = whole / jnp.clip(count, 1).astype(whole.dtype)
    term += nan_unless((count >= 1) & (count <= model.length))
    return BoundEstimate(term / probability, term)


def by_order(model: Masked, theta: PyTree, key: Key, x: ArrayLike) -> BoundEstimate:
    r"""The ELBO from one drawn order of the tokens, by L evaluations of the network.

    .. math:: \sum_{k=1}^L \log p(x_{o(k)} | x_{o(1)}, \dots, x_{o(k-1)})

    with o uniform over the L! orders. For log-weights, which this number is one of, take
    `any_order`: a `diffusion.BoundEstimate` can be compared with those of the other forms and
    averaged as they are.

    Args:
      model: the model.
      theta: its parameters.
      key: PRNG key of o.
      x: one sequence, integers [L] from 0 to V - 1.

    Returns:
      A `diffusion.BoundEstimate`, whose `term` is its value.

    Raises:
      ValueError: x is not L tokens of the model, or `predict` returns a wrong shape.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.masked.Masked(lambda theta, tokens: jnp.zeros((3, 2)), length=3, levels=2)
      >>> found = bounds.masked.by_order(model, None, jax.random.key(0), jnp.array([0, 1, 1]))
      >>> round(float(found.value), 4)  # 3 log 1/2
      -2.0794

    Source: Uria et al. 2014 (arXiv 1310.1757).
    """
    rank = jax.random.permutation(key, model.length)
    value = in_stages(model, theta, check_tokens(model, x), rank, model.length)
    return BoundEstimate(value, value)


def cross_entropy(
    model: Masked, theta: PyTree, key: Key, x: ArrayLike, time: ArrayLike, *, mean: bool = False
) -> Float[Array, ""]:
    r"""The loss of masked tokens without the weight 1/t: an objective that bounds nothing.

    .. math:: - c(M_t) \quad\text{or}\quad - c(M_t) / \max(|M_t|, 1), \qquad
       c(M) = \sum_{i \in M} \log p(x_i | x_j, \ j \notin M)

    for the set M_t that holds every token with probability t. Over uniform times the sum is
    - sum_m E c(M_m) / (L + 1), smaller than minus the ELBO. The `mean` over masked tokens is
    minus the ELBO divided by L + 1: per token it is too small by L / (L + 1), the share of masks
    that mask a token. Averaged over all masked tokens of a batch together it is no multiple of a
    bound; with a weight 1/t beside that it is, in a large batch, twice minus the ELBO per token.

    Args:
      model: the model.
      theta: its parameters.
      key: PRNG key of M_t.
      x: one sequence, integers [L] from 0 to V - 1.
      time: t in (0, 1].
      mean: over masked tokens, in place of the sum.

    Returns:
      nats, to be minimised; 0 where no token was masked, NaN where a traced time is out of range.

    Raises:
      ValueError: a known time is not in (0, 1], x is not L tokens of the model, or `predict`
        returns a wrong shape.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.masked.Masked(lambda theta, tokens: jnp.zeros((3, 2)), length=3, levels=2)
      >>> found = bounds.masked.cross_entropy(
      ...     model, None, jax.random.key(0), jnp.array([0, 1, 1]), 1.0, mean=True)
      >>> round(float(found), 4)  # log 2
      0.6931

    Source: Chang et al. 2022 (arXiv 2202.04200), masked visual token modeling.
    """
    x, time = check_tokens(model, x), _check_time(time)
    masked = masked_at(key, time, model.length)
    whole = nan_unless(time > 0) - masked_log_prob(model, theta, x, masked)
    return whole / jnp.clip(jnp.sum(masked), 1).astype(whole.dtype) if mean else whole


def in_stages(
    model: Masked, theta: PyTree, x: Int[Array, "L"], stage: Int[Array, "L"], num_stages: int
) -> Float[Array, ""]:
    """log p(x) where the tokens of one stage are drawn at once, given those of earlier stages."""

    def one(number):
        scores = token_scores(model, theta, x, stage >= number)
        return jnp.sum(jnp.where(stage == number, scores, 0.0))

    # One after the other: memory does not grow with the stages.
    return jnp.sum(jax.lax.map(one, jnp.arange(num_stages)))


def token_scores(
    model: Masked, theta: PyTree, x: Int[Array, "L"], masked: Array
) -> Float[Array, "L"]:
    """log p(x_i | visible tokens) of every token; it says something for masked ones alone."""
    logits = jnp.asarray(model.predict(theta, jnp.where(masked, model.levels, x)))
    if logits.shape != (model.length, model.levels):
        raise ValueError(
            f"predict must return logits {(model.length, model.levels)}, a row per token and no "
            f"column for the mask, got shape {logits.shape}."
        )
    return categorical_log_prob(logits, x)


def masked_log_prob(model: Masked, theta: PyTree, x: Int[Array, "L"], masked: Array) -> Array:
    """c(M)."""
    return jnp.sum(jnp.where(masked, token_scores(model, theta, x, masked), 0.0))


def masked_at(key: Key, time: Array, length: int) -> Array:
    """Masks every token with probability t, at t = 1 all of them."""
    return jax.random.uniform(key, (length,), time.dtype) < time


def check_tokens(model: Masked, x: ArrayLike) -> Int[Array, "L"]:
    """Returns one sequence, or raises where it is none of this model."""
    shape, dtype = jnp.shape(x), jnp.asarray(x).dtype
    if shape != (model.length,) or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"x must be one sequence of {model.length} integers, got {dtype} of shape {shape}; "
            "jax.vmap over sequences, and give those of another length a model of that length."
        )
    if is_known(x):
        known = np.asarray(x)
        if known.min() < 0 or known.max() >= model.levels:
            raise ValueError(
                f"x must hold tokens from 0 to {model.levels - 1}, got {known.min()} to "
                f"{known.max()}; {model.levels} stands for a masked token, which x has none of."
            )
    # Small integers might not hold the mask.
    return jnp.asarray(x).astype(jnp.int32)


def _check_time(time: ArrayLike) -> Array:
    return check_share(
        "time", time, "at t = 0 nothing is masked and 1/t is infinite; of u in [0, 1) take 1 - u"
    )
