r"""Estimates of the aggregated posterior, and of the mutual information, from a minibatch.

All take log q(z_i | x_j) for each pair of a batch, z_i ~ q(z | x_i), the data drawn without
replacement from N. `bounds.surgery.aggregated_log_prob` over all N is exact and belongs in a table;
these are for training, and for showing what they get wrong.
"""

import math

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bounds._checks import at_least_float32, check_count
from bounds._values import log_mean_exp, log_sum_exp


def minibatch_mean_log_prob(log_pairs: ArrayLike) -> Float[Array, "... B"]:
    r"""log q(z_i) as if the batch were all data.

    .. math:: \log \tfrac1B \sum_{j=1}^B q(z_i | x_j)

    The estimate of I it gives, mean_i log q(z_i | x_i) - this, is at most log B for any draw, and
    in expectation at most I: biased DOWN.

    Args:
      log_pairs: log q(z_i | x_j) at [..., i, j], shape [..., B, B].

    Returns:
      log q(z_i) in nats, [..., B].

    Raises:
      ValueError: `log_pairs` is not square in its last two axes.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> far_apart = jnp.where(jnp.eye(4) > 0, 0.0, -jnp.inf)
      >>> [round(float(v), 4) for v in bounds.surgery.minibatch_mean_log_prob(far_apart)]  # -log B
      [-1.3863, -1.3863, -1.3863, -1.3863]

    Source: the batch form of van den Oord et al. 2018 (arXiv 1807.03748), eq. 4.
    """
    log_pairs = _checked(log_pairs)
    return log_mean_exp(log_pairs, -1)


def minibatch_weighted_log_prob(log_pairs: ArrayLike, *, num_data: int) -> Float[Array, "... B"]:
    r"""log q(z_i) by minibatch-weighted sampling (MWS) of the beta-TCVAE.

    .. math:: \log \tfrac{1}{N B} \sum_{j=1}^B q(z_i | x_j)

    It is log N below `minibatch_mean_log_prob`, so its estimate of I is log N above: biased UP by
    up to log N, and log N itself where all posteriors are one and I = 0.

    Args:
      log_pairs: log q(z_i | x_j) at [..., i, j], shape [..., B, B].
      num_data: N, at least B.

    Returns:
      log q(z_i) in nats, [..., B].

    Raises:
      TypeError: `num_data` is not an integer.
      ValueError: `log_pairs` is not square in its last two axes, or N is below B.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> collapsed = jnp.zeros((4, 4))
      >>> found = bounds.surgery.minibatch_weighted_log_prob(collapsed, num_data=256)
      >>> [round(float(v), 4) for v in found]  # -log N, where log q(z) is 0
      [-5.5452, -5.5452, -5.5452, -5.5452]

    Source: Chen et al. 2018 (arXiv 1802.04942), appendix C.1.
    """
    log_pairs = _checked(log_pairs)
    return minibatch_mean_log_prob(log_pairs) - math.log(_num_data(num_data, log_pairs))


def minibatch_stratified_log_prob(log_pairs: ArrayLike, *, num_data: int) -> Float[Array, "... B"]:
    r"""log q(z_i) by stratified sampling: z_i's own posterior weighs 1/N, as it does in q(z).

    .. math:: \log \Big[\tfrac1N q(z_i | x_i)
       + \tfrac{N - 1}{N} \tfrac{1}{B - 1} \sum_{j \ne i} q(z_i | x_j)\Big]

    Its exponential is unbiased for q(z_i) given z_i, so by Jensen's inequality its estimate of I is
    biased UP in expectation; it is at most log N for any draw. The code published with the
    beta-TCVAE writes its 1/N into the first column in place of the diagonal, which is another and
    wrong estimate.

    Args:
      log_pairs: log q(z_i | x_j) at [..., i, j], shape [..., B, B].
      num_data: N, at least B.

    Returns:
      log q(z_i) in nats, [..., B].

    Raises:
      TypeError: `num_data` is not an integer.
      ValueError: `log_pairs` is not square in its last two axes, B is below 2, or N below B.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> far_apart = jnp.where(jnp.eye(4) > 0, 0.0, -jnp.inf)
      >>> found = bounds.surgery.minibatch_stratified_log_prob(far_apart, num_data=256)
      >>> [round(float(v), 4) for v in found]  # -log N, exactly
      [-5.5452, -5.5452, -5.5452, -5.5452]

    Source: what Chen et al. 2018 (arXiv 1802.04942), appendix C.2, set out to write.
    """
    log_pairs = _checked(log_pairs)
    size = log_pairs.shape[-1]
    count = _num_data(num_data, log_pairs)
    if size < 2:
        raise ValueError("a batch of one has no other posterior; give at least two data points.")
    others = math.log((count - 1) / count / (size - 1))
    weights = jnp.where(jnp.eye(size, dtype=bool), -math.log(count), others)
    weights = jnp.broadcast_to(weights.astype(log_pairs.dtype), log_pairs.shape)
    return log_sum_exp(log_pairs + weights, -1)


def information_sandwich(
    log_pairs: ArrayLike, *, num_data: int
) -> tuple[Float[Array, "... B"], Float[Array, "... B"]]:
    r"""Two estimates of the index-code mutual information I, from below and from above.

    .. math:: \mathbb E \big[\log q(z_i | x_i) - \log \hat q_{\mathrm{batch}}(z_i)\big] \le I \le
       \mathbb E \big[\log q(z_i | x_i) - \log \hat q_{\mathrm{stratified}}(z_i)\big]

    with the q_hat of `minibatch_mean_log_prob` and of `minibatch_stratified_log_prob`. The order
    holds in expectation; average over i and over batches. The lower one is at most log B,
    the upper one at most log N, for any draw.

    Args:
      log_pairs: log q(z_i | x_j) at [..., i, j], shape [..., B, B]; the batch drawn without
        replacement from N data points.
      num_data: N, at least B.

    Returns:
      (lower, upper) in nats for each z_i, [..., B].

    Raises:
      TypeError: `num_data` is not an integer.
      ValueError: as for `minibatch_stratified_log_prob`.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> far_apart = jnp.where(jnp.eye(4) > 0, 0.0, -jnp.inf)
      >>> lower, upper = bounds.surgery.information_sandwich(far_apart, num_data=256)
      >>> round(float(lower[0]), 4), round(float(upper[0]), 4)  # log B, log N
      (1.3863, 5.5452)

    Source: the lower one: Poole et al. 2019 (arXiv 1905.06922), section 2; the upper one: Jensen's
    inequality, see `minibatch_stratified_log_prob`.
    """
    log_pairs = _checked(log_pairs)
    own = jnp.diagonal(log_pairs, axis1=-2, axis2=-1)
    lower = own - minibatch_mean_log_prob(log_pairs)
    return lower, own - minibatch_stratified_log_prob(log_pairs, num_data=num_data)


def _checked(log_pairs: ArrayLike) -> Array:
    array = at_least_float32(log_pairs)
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or array.shape[-1] == 0:
        raise ValueError(
            "log_pairs must hold log q(z_i | x_j) for all pairs of a batch, [..., B, B], "
            f"got shape {array.shape}."
        )
    return array


def _num_data(num_data: object, log_pairs: Array) -> int:
    return check_count("num_data", num_data, log_pairs.shape[-1])
