r"""Masked diffusion as latent-variable models, whose log-weights every bound takes.

The latent of an any-order model is the order in which tokens are revealed, and that of the
absorbing chain of T steps is the step at which each token is masked. Under p and under q they have
one law, which no parameter is in, so that a log-weight is the log-probability of the tokens alone:

    log w = sum_i log p(x_i | the tokens that are revealed before it).

Few tokens have few sets of visible ones: `enumerated` sums over all orders by way of them.

Sources: Austin et al. 2021 (arXiv 2107.03006), Hoogeboom et al. 2022 (arXiv 2110.02037).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from bounds._checks import is_known
from bounds._diffusion import Terms
from bounds._masked import Masked, check_tokens, in_stages, masked_at, masked_log_prob, token_scores
from bounds._sampling import over_samples, sample_key
from bounds._types import Key, LatentModel
from bounds._values import log_mean_exp

MOST_ENUMERATED = 20  # tokens


class Enumerated(NamedTuple):
    r"""What is exact of one sequence, in nats; of :math:`2^L - 1` evaluations of the network.

    .. math:: \log p(x) = \log \frac{1}{L!} \sum_o \prod_{k=1}^L p(x_{o(k)} | x_{o(1)}, \dots,
       x_{o(k-1)})

    The variances are those of one estimate; that of `by_time` at uniform times is infinite.

    Attributes:
      log_prob: log p(x) of the any-order model, the mixture over all orders o of L tokens.
      elbo: the mean of all three forms of the estimates.
      by_count: variance of `by_count` at uniform counts, by one evaluation.
      by_every_count: variance of the mean of `by_count` with every count once, by L of them.
      by_order: variance of `by_order`, by L evaluations.
    """

    log_prob: Float[Array, "*batch"]
    elbo: Float[Array, "*batch"]
    by_count: Float[Array, "*batch"]
    by_every_count: Float[Array, "*batch"]
    by_order: Float[Array, "*batch"]


def any_order(model: Masked) -> LatentModel:
    r"""The mixture over all orders of the tokens, as a model whose latent is the order.

    .. math:: p(x, o) = \frac{1}{L!} \prod_{k=1}^L p(x_{o(k)} | x_{o(1)}, \dots, x_{o(k-1)}),
       \qquad q(o | x) = \frac{1}{L!}

    Its ELBO is that of `by_time`, `by_count` and `by_order`; its IWAE-K rises to the log p(x)
    of `enumerated`. One log-weight takes L evaluations of the network.

    Args:
      model: the model.

    Returns:
      A `LatentModel` whose x is one sequence, integers [L], and whose z is an order o, the places
      of all tokens as they are revealed, integers [L]; it has no phi. Train theta by `vimco`,
      `rloo` or `reinforce`, since z is discrete.

    Raises:
      ValueError: when called, x is not L tokens of the model, or `predict` returns a wrong shape.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> def predict(theta, tokens):  # what a visible neighbour is, with probability theta
      ...     return jnp.log(jnp.stack([
      ...         jnp.where(n == 2, 0.5, jnp.where(jnp.arange(2) == n, theta, 1 - theta))
      ...         for n in (tokens[1], tokens[0])]))
      >>> model = bounds.masked.any_order(bounds.masked.Masked(predict, length=2, levels=2))
      >>> log_w = bounds.log_weights(model, bounds.Params(0.75, ()), jax.random.key(0),
      ...                            jnp.array([1, 1]), num_samples=3)
      >>> [round(float(v), 4) for v in log_w]  # log 1/2 + log 3/4 in either order
      [-0.9808, -0.9808, -0.9808]

    Source: Hoogeboom et al. 2022 (arXiv 2110.02037), order-agnostic models; for the mixture over
    orders Uria et al. 2014 (arXiv 1310.1757).
    """
    log_q = -math.lgamma(model.length + 1)

    def propose(phi, key, x):
        return jax.random.permutation(key, model.length), log_q

    def log_p(theta, x, z):
        tokens = check_tokens(model, x)
        return in_stages(model, theta, tokens, jnp.argsort(z), model.length) + log_q

    return LatentModel(propose, lambda phi, x, z: log_q, log_p)


def trajectory(model: Masked, times: ArrayLike) -> LatentModel:
    r"""The absorbing chain of T steps, as a model whose latent is the step of every token.

    .. math:: q(z | x) = \prod_i (t_{z_i} - t_{z_i - 1}), \qquad
       p(x, z) = q(z | x) \prod_i p(x_i | x_j, \ z_j > z_i)

    with :math:`t_0 = 0` and z_i in 1 .. T the step at which token i is masked. The whole
    trajectory x_1 .. x_T says no more than z, and the probabilities of staying masked,
    t_{s} / t_{s+1} for each later step, multiply to the same law under p. Tokens of one step are
    predicted at once, so that with many steps the log-weights are those of `any_order`.

    Args:
      model: the model.
      times: t_1 .. t_T, the probabilities of being masked, rising to 1; may be traced.

    Returns:
      A `LatentModel` whose x is one sequence, integers [L], and whose z is L steps; it has no phi.
      A log-weight takes T evaluations of the network.

    Raises:
      ValueError: `times` does not have shape [T], or is known not to rise from above 0 to 1.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> network = bounds.masked.Masked(
      ...     lambda theta, tokens: jnp.zeros((3, 2)), length=3, levels=2)
      >>> model = bounds.masked.trajectory(network, jnp.array([0.5, 1.0]))
      >>> log_w = bounds.log_weights(model, bounds.Params((), ()), jax.random.key(0),
      ...                            jnp.array([0, 1, 1]), num_samples=2)
      >>> [round(float(v), 4) for v in log_w]  # 3 log 1/2
      [-2.0794, -2.0794]

    Source: Austin et al. 2021 (arXiv 2107.03006), absorbing state.
    """
    times = _check_times(times)
    log_steps = jnp.log(jnp.diff(times, prepend=0.0))

    def log_q(phi, x, z):
        return jnp.sum(log_steps[z - 1])

    def propose(phi, key, x):
        z = 1 + jax.random.categorical(key, log_steps, shape=(model.length,))
        return z, log_q(phi, x, z)

    def log_p(theta, x, z):
        tokens = check_tokens(model, x)
        return in_stages(model, theta, tokens, times.size - z, times.size) + log_q((), x, z)

    return LatentModel(propose, log_q, log_p)


def terms(model: Masked, theta: PyTree, key: Key, x: ArrayLike, times: ArrayLike) -> Terms:
    r"""Every term of the bound of the absorbing chain of T steps, for one sequence.

    .. math:: L_k = - \frac{t_k - t_{k-1}}{t_k} \, c(M_k), \qquad
       c(M) = \sum_{i \in M} \log p(x_i | x_j, \ j \notin M)

    for k = 2 .. T, where M_k holds every token with probability t_k, and c(M_1) as the
    reconstruction; L_prior is 0. Their sum is a Riemann sum of the integral over t that `by_time`
    estimates, and reaches it with many steps. Fewer steps predict more tokens at once: that lowers
    the bound where more visible tokens predict better, which a trained network does on the average
    over data, and any network may fail to do for one x.

    Args:
      model: the model.
      theta: its parameters.
      key: PRNG key; M_k uses fold_in(key, k).
      x: one sequence, integers [L] from 0 to V - 1.
      times: t_1 .. t_T, the probabilities of being masked, rising to 1; may be traced.

    Returns:
      `diffusion.Terms`, of which `diffusion.bound` makes the bound; T evaluations of the network.

    Raises:
      ValueError: `times` does not have shape [T], or is known not to rise from above 0 to 1, x is
        not L tokens of the model, or `predict` returns a wrong shape.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.masked.Masked(lambda theta, tokens: jnp.zeros((3, 2)), length=3, levels=2)
      >>> times = jnp.array([0.25, 0.5, 1.0])
      >>> terms = bounds.masked.terms(model, None, jax.random.key(0), jnp.array([0, 1, 1]), times)
      >>> round(float(terms.diffusion[-1]), 4)  # half of 3 log 2
      1.0397

    Source: Austin et al. 2021 (arXiv 2107.03006), the variational bound, absorbing state.
    """
    times, x = _check_times(times), check_tokens(model, x)

    def one(step):
        number, time = step
        masked = masked_at(sample_key(key, number), time, model.length)
        return masked_log_prob(model, theta, x, masked)

    found = jax.lax.map(one, (jnp.arange(1, times.size + 1), times))
    shares = jnp.diff(times) / times[1:]
    return Terms(jnp.zeros_like(found[0]), -shares * found[1:], found[0])


def enumerated(
    model: Masked, theta: PyTree, x: ArrayLike, *, chunk_size: int | None = None
) -> Enumerated:
    r"""log p(x) over all L! orders, the ELBO and variances of its estimates, by all visible sets.

    .. math:: A(S) = \log \frac{1}{L - |S|} \sum_{i \notin S} e^{A(S \cup i) + \log p(x_i | x_S)},
       \qquad \log p(x) = A(\varnothing)

    with A of all tokens 0: the orders that reveal one set S first share what comes after it.

    Args:
      model: of at most 20 tokens.
      theta: its parameters.
      x: one sequence, integers [L] from 0 to V - 1.
      chunk_size: evaluations of the network at once, of all :math:`2^L - 1`; None for all.

    Returns:
      `Enumerated`, differentiable in theta.

    Raises:
      TypeError: `chunk_size` is not an integer.
      ValueError: it is below 1, the model has more than 20 tokens, x is not L tokens of the model,
        or `predict` returns a wrong shape.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> def predict(theta, tokens):  # the first token knows the second, and not the reverse
      ...     return jnp.log(jnp.stack([
      ...         jnp.where(tokens[1] == 2, 0.5, jnp.where(jnp.arange(2) == tokens[1], 0.9, 0.1)),
      ...         jnp.full(2, 0.5)]))
      >>> model = bounds.masked.Masked(predict, length=2, levels=2)
      >>> found = bounds.masked.enumerated(model, None, jnp.array([1, 1]))
      >>> round(float(jnp.exp(found.log_prob)), 4)  # (1/2 0.9 + 1/2 1/2) / 2
      0.35
    """
    x, length = check_tokens(model, x), model.length
    if length > MOST_ENUMERATED:
        raise ValueError(
            f"enumerated evaluates the network at all 2^L sets of visible tokens, so length must "
            f"be at most {MOST_ENUMERATED}, got {length}; use by_count, or iwae of any_order."
        )
    sets = np.arange(2**length)  # of visible tokens, a bit for each
    visible = (sets[:, None] >> np.arange(length)) % 2 == 1
    size = visible.sum(axis=1)
    scores = over_samples(
        lambda seen: token_scores(model, theta, x, ~seen), jnp.asarray(visible[:-1]), chunk_size
    )
    # Of what comes after each set: log of the mean over orders, and mean and variance of the log.
    log_mean = mean = variance = jnp.zeros(2**length, scores.dtype)
    counts, strata = [], []
    for seen in range(length - 1, -1, -1):
        here, left = sets[size == seen], length - seen
        hidden = np.nonzero(~visible[here])[1].reshape(len(here), left)
        after = here[:, None] | 1 << hidden
        step = scores[here[:, None], hidden]
        log_mean = log_mean.at[here].set(log_mean_exp(step + log_mean[after], 1))
        total = step + mean[after]
        mean = mean.at[here].set(jnp.mean(total, 1))
        variance = variance.at[here].set(jnp.mean(variance[after], 1) + jnp.var(total, 1))
        counts.append(jnp.mean(step, 1))  # c(M) / |M| of every M of this size
        strata.append(jnp.var(counts[-1]))
    elbo = mean[0]
    spread = jnp.stack([jnp.mean(jnp.square(length * count - elbo)) for count in counts])
    return Enumerated(log_mean[0], elbo, jnp.mean(spread), jnp.sum(jnp.stack(strata)), variance[0])


def _check_times(times: Any) -> Float[Array, "T"]:
    array = jnp.asarray(times, float)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"times must have shape [T] with T at least 1, got shape {array.shape}.")
    if is_known(times):
        known = np.asarray(times, array.dtype)
        if not (np.all(np.diff(known, prepend=0) > 0) and known[-1] == 1):
            raise ValueError(
                "times must rise from above 0 to 1, where every token is masked, got "
                f"{np.array2string(known, threshold=6)}."
            )
        return array
    rises = jnp.all(jnp.diff(array, prepend=0.0) > 0) & (array[-1] == 1)
    return jnp.where(rises, array, jnp.nan)
