"""Drawing z_1..z_K and their log-weights: the one place where samples get their keys."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from bounds._checks import check_chunk_size, check_count, check_scalar
from bounds._types import Key, LatentModel, Params

# Not `jax.typing.ArrayLike`: tracers are no instances of a union.
_NUMBERS = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)


def stop(tree: PyTree) -> Any:
    """Constants to every gradient; leaves that are no arrays, such as functions, are so already."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if is_number(leaf) else leaf, tree)


def is_number(leaf: Any) -> bool:
    """Whether a leaf is a number or an array of them, and no function or name."""
    return isinstance(leaf, _NUMBERS)


def sample_key(key: Any, number: Any) -> Any:
    """fold_in(key, number): whatever is drawn with it does not depend on what is drawn beside it.

    Draws of keys other than threefry's change under vmap with the batch, and so with chunks and
    devices; of such a key a threefry key is made first.
    """
    if jax.random.key_impl(key) != "threefry2x32":
        first, second, *rest = jax.random.key_data(key)
        key = jax.random.wrap_key_data(jnp.stack([first, second]), impl="threefry2x32")
        for word in rest:
            key = jax.random.fold_in(key, word)
    return jax.random.fold_in(key, number)


def log_weights(
    model: LatentModel,
    params: Params,
    key: Key,
    x: PyTree,
    *,
    num_samples: int,
    chunk_size: int | None = None,
) -> Float[Array, "num_samples"]:
    r"""Log importance weights of K draws for one datum.

    .. math:: \log w_k = \log p(x, z_k) - \log q(z_k | x), \quad z_k \sim q(z | x)

    Sample k uses `fold_in(key, k)`, so the first weights do not depend on K, and
    every `chunk_size` gives the same numbers. That takes threefry keys, JAX's default: bits
    of other kinds (rbg) change with the batch, so of such a key `propose` gets a threefry
    key made of it. All that draws samples, replicates or chains here does so.

    They are values to report. Differentiated they are a path estimator that nothing looks
    at: `pathwise` and its kin refuse a z that carries no gradient of phi.

    Args:
      model: the model.
      params: its parameters.
      key: PRNG key.
      x: one datum.
      num_samples: K.
      chunk_size: how many samples are in memory at once; None for all. It need not
        divide K.

    Returns:
      log-weights in nats, shape [K].

    Raises:
      TypeError: `num_samples` or `chunk_size` is not an integer.
      ValueError: either is below 1, or a model function does not return one number.

    Example:
      >>> import jax, bounds
      >>> from jax.scipy.stats import norm
      >>> model = bounds.LatentModel(
      ...     propose=lambda phi, key, x: (phi + jax.random.normal(key),) * 2,
      ...     log_q=None, log_p=lambda theta, x, z: norm.logpdf(z, theta))
      >>> bounds.log_weights(model, bounds.Params(0.0, 0.5), jax.random.key(0), None,
      ...                    num_samples=5, chunk_size=2).shape
      (5,)
    """
    check_count("num_samples", num_samples)

    def one(k):
        z, log_q = propose(model, params.phi, sample_key(key, k), x)
        return log_weight(model, params.theta, x, z, log_q)

    return over_samples(one, jnp.arange(num_samples), chunk_size)


def propose(model: LatentModel, phi: PyTree, key: Any, x: PyTree) -> tuple[PyTree, Array]:
    """model.propose with its log q checked."""
    pair = model.propose(phi, key, x)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"propose must return (z, log_q), got {type(pair).__name__}.")
    z, log_q = pair
    return z, check_scalar("propose's log_q", log_q)


def log_weight(model: LatentModel, theta: PyTree, x: PyTree, z: PyTree, log_q: Any) -> Array:
    """log p(x, z) - log q(z | x), cut off from every gradient where it is -inf."""
    log_p = check_scalar("log_p", model.log_p(theta, x, z))
    log_w = log_p - check_scalar("log_q", log_q)
    # With the cut, a weight of zero contributes exactly 0 to every estimator; without
    # it, the -log q of a dead sample would still push phi through the ELBO.
    return jnp.where(jnp.isneginf(log_w), -jnp.inf, log_w)


def over_samples(fn: Callable[..., PyTree], xs: PyTree, chunk_size: int | None) -> PyTree:
    """Maps `fn` over the leading axis of `xs`: at once, or chunk by chunk.

    In chunks, `fn` is rematerialised in the backward pass, so that memory holds the
    intermediate results of one chunk and the outputs of all.
    """
    chunk_size = check_chunk_size(chunk_size)
    total = jax.tree.leaves(xs)[0].shape[0]
    if chunk_size is None or chunk_size >= total:
        return jax.vmap(fn)(xs)
    # In a scan XLA cannot undo rematerialisation, so no barrier is needed against it.
    return jax.lax.map(jax.checkpoint(fn, prevent_cse=False), xs, batch_size=chunk_size)


def drawn(
    draw: Callable[[Any], PyTree], indices: Array, chunk_size: int | None
) -> tuple[PyTree, Callable[[Any], PyTree]]:
    """Draws for two passes over the samples: (items to map over, item -> draw).

    Without chunks they are made once; XLA does not merge two equal random streams inside a
    scan. With chunks each pass makes them again, so that memory holds one chunk.
    """
    if chunk_size is None or chunk_size >= indices.shape[0]:
        return jax.vmap(draw)(indices), lambda item: item
    return indices, draw


def varying_with(z: PyTree, other: Array) -> PyTree:
    """z, made to vary over whatever `other` varies over (vmap's batch, shard_map's devices).

    Cotangents of a z that does not vary are summed over the batch or the devices BEFORE they
    reach a rule of ours; they have to meet their own weight first. XLA removes the select.
    """
    return jax.tree.map(lambda leaf: jnp.where(jnp.isnan(other), leaf, leaf), z)


def add_gradient_of(value: Array, surrogate: Array) -> Array:
    """`value`, with the gradient of `surrogate` added to its own."""
    # inf - inf would make a NaN of a value that is fine.
    surrogate = jnp.where(jnp.isfinite(surrogate), surrogate, 0.0)
    return value + (surrogate - stop(surrogate))
