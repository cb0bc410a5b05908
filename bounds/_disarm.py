"""DisARM: antithetic score-function gradients for independent Bernoulli z."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from bounds._checks import at_least_float32, check_chunk_size, check_count, nan_unless
from bounds._densities import bernoulli_log_prob
from bounds._estimators import finish
from bounds._sampling import (
    add_gradient_of,
    log_weight,
    over_samples,
    propose,
    sample_key,
    stop,
)
from bounds._types import Key, LatentModel, Objective, Params
from bounds._values import elbo


def disarm(
    model: LatentModel,
    *,
    num_samples: int,
    logits: Callable[[PyTree, PyTree], PyTree],
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""DisARM, or U2G: antithetic gradient of the ELBO for independent Bernoulli z.

    .. math:: \nabla_\phi: \frac2K \sum_{\mathrm{pairs}} \sum_d \frac12
       [\log w(z) - \log w(z')] (-1)^{z'_d}\, 1[z_d \ne z'_d]\, \sigma(|\ell_d|) \nabla \ell_d,
       \quad z_d = 1[u_d > \sigma(-\ell_d)],\; z'_d = 1[u_d < \sigma(\ell_d)]

    with the logits :math:`\ell` of q(z|x) and one uniform u for each entry of a pair. Both z and
    z' are draws of q, so the value is the ELBO, averaged over K draws; in theta its gradient is
    that of the mean. Unbiased in theta and phi, with at most the variance of ARM, and zero in phi
    wherever log w does not depend on z, as where q is the posterior. A pair with a sample of
    weight zero contributes nothing.

    Of the model, log p alone is asked for: draws and log q are made from the logits. The draw of
    pair j uses `fold_in(key, j)`.

    Args:
      model: a model whose z has entries 0 and 1 of any dtype, independent given x. `log_q` may be
        None.
      num_samples: K, even: K/2 pairs.
      logits: (phi, x) -> log-odds of z = 1, shaped as z.
      has_aux: whether the objective also returns `Aux(log_w, z)`, in which pairs are neighbours.
      chunk_size: samples in memory at once, at least one pair; None for all.

    Returns:
      An `Objective`. It is NaN where `logits` are not those of the model's log_q.

    Raises:
      TypeError: a count is not an integer.
      ValueError: K is odd or below 2 or, when called, the logits are not shaped as z, as those of
        a categorical z are not, or a model function does not return one number.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> bernoulli = lambda logit, z: bounds.densities.bernoulli_log_prob(logit, z)
      >>> def propose(phi, key, x):
      ...     z = jax.random.bernoulli(key, jax.nn.sigmoid(phi)).astype(jnp.int32)
      ...     return z, bernoulli(phi, z)
      >>> model = bounds.LatentModel(
      ...     propose=propose,
      ...     log_q=lambda phi, x, z: bernoulli(phi, z),
      ...     log_p=lambda theta, x, z: bernoulli(theta, z) + bernoulli(jnp.where(z, 1.0, -1.0), x))
      >>> objective = bounds.disarm(model, num_samples=2, logits=lambda phi, x: phi)
      >>> jax.grad(objective)(bounds.Params(0.0, 0.5), jax.random.key(0), 1).phi.shape
      ()

    Source: Dong et al. 2020 (arXiv 2006.10680); Yin et al. 2020, U2G, is the same; Yin &
    Zhou 2018 (arXiv 1807.11143) for ARM.
    """
    if check_count("num_samples", num_samples, minimum=2) % 2:
        raise ValueError(
            f"num_samples must be even, got {num_samples}: disarm draws antithetic pairs."
        )
    chunk_size = check_chunk_size(chunk_size)
    num_pairs = num_samples // 2

    def objective(params: Params, key: Key, x: PyTree):
        live = jax.tree.map(at_least_float32, logits(params.phi, x))
        like = jax.eval_shape(lambda k: propose(model, params.phi, k, x)[0], key)
        _check_independent(live, like)
        fixed = stop(live)

        def pair(j):
            z, other = _antithetic(sample_key(key, j), fixed, like)
            log_w, log_w_other = weigh(z), weigh(other)
            half = 0.5 * stop(log_w - log_w_other)
            # A weight of zero is no signal for the other of its pair.
            half = jnp.where(jnp.isfinite(half), half, 0.0)
            signal = jax.tree.map(lambda a, b, c: half * _share(a, b != 0, c != 0), fixed, z, other)
            both = jax.tree.map(lambda b, c: jnp.stack([b, c]), z, other)
            return jnp.stack([log_w, log_w_other]), signal, both if has_aux else ()

        def weigh(z):
            terms = jax.tree.map(lambda a, b: jnp.sum(bernoulli_log_prob(a, b)), fixed, z)
            log_q = sum(jax.tree.leaves(terms), jnp.zeros(()))
            if model.log_q is not None:
                own = stop(model.log_q(params.phi, x, z))
                # What rounding does to a sum, and far less than other logits would.
                log_q += nan_unless(jnp.abs(own - log_q) <= 1e-2 + 1e-3 * jnp.abs(log_q))
            return log_weight(model, params.theta, x, z, log_q)

        pairs_at_once = None if chunk_size is None else max(chunk_size // 2, 1)
        log_w, signal, z = over_samples(pair, jnp.arange(num_pairs), pairs_at_once)
        log_w = log_w.reshape(num_samples)
        z = jax.tree.map(lambda leaf: leaf.reshape(num_samples, *leaf.shape[2:]), z)
        terms = jax.tree.map(lambda s, a: jnp.sum(jnp.mean(s, axis=0) * a), signal, live)
        value = add_gradient_of(elbo(log_w), sum(jax.tree.leaves(terms), jnp.zeros(())))
        return finish(value, log_w, z, has_aux)

    return objective


def _antithetic(key: Key, logits: PyTree, like: PyTree) -> tuple[PyTree, PyTree]:
    """Two draws from one uniform number an entry, as far apart as their marginals allow."""
    leaves, structure = jax.tree.flatten(logits)
    keys = jax.random.split(key, len(leaves))
    uniforms = [jax.random.uniform(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
    uniforms = jax.tree.unflatten(structure, uniforms)
    first = jax.tree.map(
        lambda u, a, z: (u > jax.nn.sigmoid(-a)).astype(z.dtype), uniforms, logits, like
    )
    second = jax.tree.map(
        lambda u, a, z: (u < jax.nn.sigmoid(a)).astype(z.dtype), uniforms, logits, like
    )
    return first, second


def _share(logits: Array, z: Array, other: Array) -> Array:
    """(-1)^z' 1[z != z'] sigma(|logit|), entry by entry."""
    sign = jnp.where(other, -1.0, 1.0)
    return jnp.where(z != other, sign * jax.nn.sigmoid(jnp.abs(logits)), 0.0)


def _check_independent(logits: PyTree, z: PyTree) -> None:
    """Raises unless there is one logit for each entry of z."""
    found, wanted = (jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (logits, z))
    if found != wanted:
        raise ValueError(
            "disarm is for independent Bernoulli z, so logits must return one log-odds for each "
            f"entry of z, shaped {wanted}, got {found}; use bounds.rloo, bounds.ovis or "
            "bounds.vimco for a categorical z."
        )
