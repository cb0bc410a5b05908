r"""The joint bound where all tokens can be summed over: log p(x, y), the bound, its gap, exactly.

Sums run over chunks of the K^N values of z, in memory that does not grow with their number.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from bounds._checks import at_least_float32, check_at_least, check_count
from bounds._joint import JointModel, _log_prob, _log_probs, _times, generative
from bounds._types import Objective, Params
from bounds._values import finite_or_zero, log_sum_exp

Chunk = Callable[[Array], tuple[Any, Any, Any]]
"""Index of a chunk -> log q(z | x), log p(y, z) and log p(x | y, z), each [..., C] over its z."""


class Values(NamedTuple):
    r"""What sums over all z give, in nats, shaped as one of the data.

    .. math:: D = \mathbb E_q[\log q(z | x) - \log p(y, z)], \qquad
       B_\beta = \mathbb E_q[\log p(x | y, z)] - \beta D \;\le\;
       \beta \log \sum_z p(y, z) \, p(x | y, z)^{1/\beta}

    Attributes:
      log_p: log p(x, y).
      reconstruction: E_q[log p(x | y, z)].
      divergence: D.
      bound: B_beta.
      supremum: that of B_beta over all q, the right side, at beta = 0 the largest log p(x | y, z)
        of a possible z. For beta >= 1 at most log p(x, y), at beta = 1 that.
    """

    log_p: Float[Array, "..."]
    reconstruction: Float[Array, "..."]
    divergence: Float[Array, "..."]
    bound: Float[Array, "..."]
    supremum: Float[Array, "..."]


def values(chunk: Chunk, num_chunks: int = 1, *, beta: ArrayLike = 1.0) -> Values:
    r"""Exact values of the joint bound and of log p(x, y), by summing over z.

    .. math:: \log p(x, y) = \log \sum_z p(y, z) \, p(x | y, z), \qquad
       B_\beta = \sum_z q(z | x) \, [\log p(x | y, z) - \beta \log \tfrac{q(z | x)}{p(y, z)}]

    A z with q(z | x) = 0 counts in the first alone. Differentiable; chunks are computed again for
    the gradient.

    Args:
      chunk: number of a chunk -> log q(z | x), log p(y, z) and log p(x | y, z), each [..., C] over
        the C values of z in it. The number may be traced; chunks are alike in shape and cover
        all z.
      num_chunks: how many.
      beta: at least 0, may be traced.

    Returns:
      `Values` of shape [...].

    Raises:
      TypeError: `num_chunks` is not an integer.
      ValueError: it is below 1, or a known beta is below 0.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> q, prior, likelihood = jnp.array([0.5, 0.5]), jnp.array([0.2, 0.1]), jnp.array([0.5, 0.5])
      >>> found = bounds.joint.values(lambda _: (jnp.log(q), jnp.log(prior), jnp.log(likelihood)))
      >>> round(float(jnp.exp(found.log_p)), 4), bool(found.bound < found.log_p)
      (0.15, True)

    Source: Ramesh et al. 2021 (arXiv 2102.12092), eq. 1.
    """
    num_chunks = check_count("num_chunks", num_chunks)
    beta = check_at_least("beta", beta, 0.0)
    inverse = 1 / jnp.where(beta > 0, jnp.maximum(beta, 1e-30), 1.0)

    def add(sums, index):
        log_q, log_prior, log_px = map(at_least_float32, chunk(index))
        joint = log_sum_exp(log_prior + log_px, -1)
        powered = log_sum_exp(log_prior + inverse * log_px, -1)
        possible = jnp.where(jnp.isneginf(log_prior), -jnp.inf, log_px)
        parts = (
            joint,
            powered,
            jnp.max(possible, axis=-1),
            _expected(log_q, log_px),
            _expected(log_q, log_q - log_prior),
        )
        old_joint, old_powered, old_best, reconstruction, divergence = sums
        return (
            _log_add(old_joint, parts[0]),
            _log_add(old_powered, parts[1]),
            jnp.maximum(old_best, parts[2]),
            reconstruction + parts[3],
            divergence + parts[4],
        ), None

    found = _over_chunks(add, chunk, num_chunks, (-jnp.inf,) * 3 + (0.0,) * 2)
    log_p, powered, best, reconstruction, divergence = found
    supremum = jnp.where(beta == 0, best, beta * powered)
    bound = reconstruction - _times(beta, divergence)
    return Values(log_p, reconstruction, divergence, bound, supremum)


def posterior_kl(chunk: Chunk, num_chunks: int = 1) -> Array:
    r"""The gap of the joint bound at beta = 1, by sums of its own, the normaliser included.

    .. math:: \mathrm{KL}(q(z | x) \| p(z | x, y)) = \sum_z q(z | x) \,
       \Bigl[\log q(z | x) - \log \frac{p(y, z) \, p(x | y, z)}
       {\sum_{z'} p(y, z') \, p(x | y, z')}\Bigr]

    Args:
      chunk: as for `values`.
      num_chunks: how many.

    Returns:
      nats [...].

    Raises:
      TypeError: `num_chunks` is not an integer.
      ValueError: it is below 1.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> q, prior, likelihood = jnp.array([0.5, 0.5]), jnp.array([0.2, 0.1]), jnp.array([0.5, 0.5])
      >>> chunk = lambda _: (jnp.log(q), jnp.log(prior), jnp.log(likelihood))
      >>> found = bounds.joint.values(chunk)
      >>> gap = bounds.joint.posterior_kl(chunk)
      >>> bool(jnp.allclose(gap, found.log_p - found.bound))
      True

    Source: Ramesh et al. 2021 (arXiv 2102.12092), eq. 1, of which this is the remainder.
    """
    num_chunks = check_count("num_chunks", num_chunks)

    def add(sums, index):
        log_q, log_prior, log_px = map(at_least_float32, chunk(index))
        log_joint = log_prior + log_px
        mean, total, normalizer, highest = sums
        # About the first chunk's largest: of the size of log p the two sums would drown the gap.
        largest = jax.lax.stop_gradient(jnp.max(log_joint, axis=-1))
        highest = jnp.where(jnp.isneginf(highest), largest, highest)
        log_joint = log_joint - finite_or_zero(highest)[..., None]
        return (
            mean + _expected(log_q, log_q - log_joint),
            total + jnp.sum(jnp.exp(log_q), axis=-1),
            _log_add(normalizer, log_sum_exp(log_joint, -1)),
            highest,
        ), None

    start = (0.0, 0.0, -jnp.inf, -jnp.inf)
    mean, total, normalizer, _ = _over_chunks(add, chunk, num_chunks, start)
    # `total` is 1 but for the rounding of q, which half precision makes felt.
    return mean + total * normalizer


def enumerated(
    model: JointModel, *, num_codes: int, beta: ArrayLike = 1.0, chunk_size: int | None = None
) -> Objective:
    r"""The joint bound as an objective without noise: value and gradient are sums over all z.

    .. math:: B_\beta = \sum_{z \in \{1..K\}^N} q(z | x) \,
       [\log p(x | y, z) - \beta \log \tfrac{q(z | x)}{p(y, z)}]

    K^N decoder passes for a datum: for tests, and models of few tokens.

    Args:
      model: the model.
      num_codes: K.
      beta: at least 0, may be traced.
      chunk_size: values of z in memory at once, a divisor of K^N; None for all.

    Returns:
      (params, key, (x, y)) -> [], an `Objective`; the key is not used.

    Raises:
      TypeError: a count is not an integer.
      ValueError: a count is below 1, `chunk_size` does not divide K^N, a known beta is below 0, or
        a function of the model returns a wrong shape.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.joint.JointModel(
      ...     encode=lambda phi, x: phi[x],
      ...     prior=lambda theta, y, z: (jnp.log(0.5), jnp.zeros((1, 3))),
      ...     log_px=lambda theta, x, y, codes: jnp.log(codes[0] @ theta[:, x]))
      >>> params = bounds.Params(jnp.full((3, 2), 0.5), jnp.zeros((2, 1, 3)))
      >>> objective = bounds.joint.enumerated(model, num_codes=3)
      >>> round(float(objective(params, None, (1, 0))), 4)  # log 1/4
      -1.3863

    Source: Ramesh et al. 2021 (arXiv 2102.12092), eq. 1.
    """
    num_codes = check_count("num_codes", num_codes)
    beta = check_at_least("beta", beta, 0.0)
    if chunk_size is not None:
        chunk_size = check_count("chunk_size", chunk_size)

    def objective(params: Params, key: Any, datum: PyTree) -> Float[Array, ""]:
        del key
        chunk, num_chunks = model_chunks(model, params, datum, num_codes, chunk_size)
        return values(chunk, num_chunks, beta=beta).bound

    return objective


def model_chunks(
    model: JointModel, params: Params, datum: PyTree, num_codes: int, chunk_size: int | None
) -> tuple[Chunk, int]:
    """The `Chunk` of a model and a datum, and how many there are."""
    log_probs = _log_probs(model.encode(params.phi, datum[0]))
    num_tokens = log_probs.shape[0]
    if log_probs.shape[1] != num_codes:
        raise ValueError(
            f"encode must return logits [N, {num_codes}], as num_codes says, "
            f"got shape {log_probs.shape}."
        )
    count = num_codes**num_tokens
    size = count if chunk_size is None else chunk_size
    if count % size:
        raise ValueError(f"chunk_size must divide the {count} values of z, got {size}.")
    places = num_codes ** jnp.arange(num_tokens - 1, -1, -1)

    def one(number):
        z = number // places % num_codes
        found = generative(model, params.theta, datum, z, shape=log_probs.shape)
        log_prior = found.log_text + _log_prob(found.log_prior, z)
        return _log_prob(log_probs, z), log_prior, found.reconstruction

    return lambda index: jax.vmap(one)(index * size + jnp.arange(size)), count // size


def _over_chunks(add: Callable, chunk: Chunk, num_chunks: int, start: PyTree) -> Any:
    shapes = jax.eval_shape(chunk, jax.ShapeDtypeStruct((), jnp.int32))
    shape = jnp.broadcast_shapes(*(s.shape for s in shapes))[:-1]
    dtype = jnp.result_type(float, *(s.dtype for s in shapes))
    start = jax.tree.map(lambda v: jnp.full(shape, v, dtype), start)
    # The first chunk by itself: what it makes varies over devices inside a shard_map, as the rest.
    first = add(start, jnp.asarray(0))[0]
    if num_chunks == 1:
        return first
    return jax.lax.scan(jax.checkpoint(add), first, jnp.arange(1, num_chunks))[0]


def _log_add(a: Array, b: Array) -> Array:
    return log_sum_exp(jnp.stack([a, b]), 0)


def _expected(log_q: Array, value: Array) -> Array:
    """sum q value over the last axis, where 0 times anything is 0."""
    q = jnp.exp(log_q)
    return jnp.sum(jnp.where(q > 0, q * jnp.where(q > 0, value, 0.0), 0.0), axis=-1)
