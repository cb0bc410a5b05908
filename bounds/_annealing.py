r"""Annealed importance sampling: log p(x) from below, and from above on simulated data.

The path leads from the encoder to the joint, log f_b(z) = (1 - b) log q(z|x) + b log p(x, z) at
b from 0 to 1, so its normalisers begin at 1 and end at p(x). Each transition is Hamiltonian Monte
Carlo with a fresh momentum and a Metropolis test: it leaves f_b invariant and is its own reversal,
which is all that the two bounds rest on. Step sizes are given beforehand; adapting them to the
chain that is counted would break the invariance.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from bounds._checks import (
    at_least_float32,
    check_betas,
    check_continuous,
    check_count,
    check_log_q,
    check_step_sizes,
)
from bounds._gradient_paths import check_smooth_noise
from bounds._hmc import start_of, transition
from bounds._sampling import log_weight, propose, sample_key, stop
from bounds._types import Key, LatentModel, Params

_FIRST_STEP_SIZE = 0.1
_FIRST_GAIN = 3.0


def ais(
    model: LatentModel,
    params: Params,
    key: Key,
    x: PyTree,
    *,
    betas: ArrayLike,
    step_sizes: ArrayLike,
    num_leapfrog: int = 10,
) -> tuple[Float[Array, ""], Float[Array, "steps"]]:
    r"""Annealed importance sampling for one datum: the log-weight of one chain from q to p.

    .. math:: \log w = \sum_{t=1}^{T-1} (b_t - b_{t-1})
       [\log p(x, z_{t-1}) - \log q(z_{t-1} | x)], \qquad \mathbb E[w] = p(x)

    where z_0 ~ q(z | x), and z_t is z_{t-1} after a transition that leaves
    :math:`f_{b_t} \propto q(z|x)^{1-b_t}\, p(x,z)^{b_t}` invariant. So log w is a log-weight
    like any other: it is a lower bound on log p(x) in expectation, and so is `iwae` over chains.
    With the betas 0 and 1 alone it is `log_weights` with one sample.

    The transition at b_t uses `fold_in(key, t)`; z_0 uses t = 0. Memory does not grow with T.
    The result is a number to report and carries no gradient: Metropolis decisions have none.

    Args:
      model: the model; its z is floating, and its log_q is not None.
      params: its parameters.
      key: PRNG key of this chain; `jax.vmap` over keys for several.
      x: one datum; `jax.vmap` over data.
      betas: b_0 = 0 < ... < b_{T-1} = 1, shape [T], as from `annealing_schedule`.
      step_sizes: of the leapfrog steps, one for each beta strictly between 0 and 1, shape
        [T-2], or one number for all; in the unit of z. They must not depend on this `key`.
      num_leapfrog: leapfrog steps of a transition.

    Returns:
      (log w in nats, acceptance probabilities of the transitions, shape [T-2]).

    Raises:
      TypeError: z is not floating-point or takes isolated values, as a discrete one cast to
        float does, or `num_leapfrog` is not an integer.
      ValueError: `betas` or `step_sizes` are not as described (their values are looked at
        unless traced), the model has no log_q, or `num_leapfrog` is below 1.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = phi + jax.random.normal(key)
      ...     return z, norm.logpdf(z, phi)
      >>> model = bounds.LatentModel(
      ...     propose, lambda phi, x, z: norm.logpdf(z, phi),
      ...     lambda theta, x, z: norm.logpdf(z) + norm.logpdf(x, z))
      >>> def chain(key):
      ...     return bounds.ais(model, bounds.Params(None, -1.0), key, 2.0,
      ...                       betas=bounds.annealing_schedule(20), step_sizes=0.3)
      >>> log_w, acceptance = jax.vmap(chain)(jax.random.split(jax.random.key(0), 100))
      >>> exact = norm.logpdf(2.0, 0.0, jnp.sqrt(2.0))
      >>> bool(abs(bounds.iwae(log_w) - exact) < 0.1)
      True

    Source: Neal 2001 (Statistics and Computing 11; arXiv physics/9803008); Wu et al. 2017
    (arXiv 1611.04273) for decoders, starting from the encoder.
    """
    betas, step_sizes, num_leapfrog = _check("ais", model, betas, step_sizes, num_leapfrog)
    params, x = stop((params, x))
    betas, step_sizes = jax.lax.stop_gradient((betas, step_sizes))
    first_key = sample_key(key, 0)
    z, log_q = propose(model, params.phi, first_key, x)
    check_continuous("ais", z)
    check_smooth_noise("ais", model, params.phi, first_key, x)
    first = log_weight(model, params.theta, x, z, log_q)
    order = jnp.arange(1, betas.shape[0] - 1)
    rest, acceptance = _chain(model, params, key, x, z, betas, step_sizes, order, num_leapfrog)
    log_w = jnp.concatenate([first[None], rest])
    return stop((_weighted_sum(jnp.diff(betas), log_w), acceptance))


def reverse_ais(
    model: LatentModel,
    params: Params,
    key: Key,
    x: PyTree,
    z: PyTree,
    *,
    betas: ArrayLike,
    step_sizes: ArrayLike,
    num_leapfrog: int = 10,
) -> tuple[Float[Array, ""], Float[Array, "steps"]]:
    r"""The chain of `ais` run backwards from an exact draw of the posterior: an upper bound.

    .. math:: z \sim p(z | x): \quad
       \mathbb E[\log w] \ge \log p(x), \qquad \mathbb E[1 / w] = 1 / p(x)

    with the same sum :math:`\log w` over the states, met in the order T-1, ..., 1. (If p(x, z)
    is zero where q is not, E[1/w] is below 1/p(x) and every bound here still holds.)

    The z must be an EXACT draw, which simulated data provide: for (x, z) ~ p(x, z), z is one
    draw of p(z | x). A z from q, or from a sampler that has not converged, bounds nothing.

    Several chains, each from an exact draw: as E[1/w] = 1/p(x) holds for each of them,
    `-iwae(-log_w)` over chains, :math:`-\log \frac1M \sum_m 1/w_m`, is an upper bound in
    expectation, by Jensen's inequality, and never above the mean of the log w. This asks for
    the marginal law of each chain alone, so the chains may share their start, as they must when
    there is one exact z; but only with independent starts does it converge to log p(x) as M
    grows. `iwae(log_w)` of reverse chains is never below their mean: valid, and the loosest.

    The result carries no gradient.

    Args:
      model: the model; its z is floating, and its log_q is not None.
      params: its parameters.
      key: PRNG key of this chain, independent of z.
      x: one datum.
      z: an exact draw from p(z | x).
      betas: as for `ais`, ascending, shape [T].
      step_sizes: as for `ais`, shape [T-2] in the order of `betas`. They may depend on x, not
        on z.
      num_leapfrog: leapfrog steps of a transition.

    Returns:
      (log w in nats, acceptance probabilities, shape [T-2] in the order of `betas`).

    Raises:
      TypeError: z is not floating-point (a discrete z cast to float is not found, and bounds
        nothing), or `num_leapfrog` is not an integer.
      ValueError: as for `ais`.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> model = bounds.LatentModel(
      ...     lambda phi, key, x: (phi + jax.random.normal(key),) * 2,  # not used here
      ...     lambda phi, x, z: norm.logpdf(z, phi),
      ...     lambda theta, x, z: norm.logpdf(z) + norm.logpdf(x, z))
      >>> def chain(key):
      ...     key_x, key_chain = jax.random.split(key)
      ...     z, noise = jax.random.normal(key_x, (2,))
      ...     log_w, _ = bounds.reverse_ais(
      ...         model, bounds.Params(None, 0.0), key_chain, z + noise, z,
      ...         betas=bounds.annealing_schedule(20), step_sizes=0.3)
      ...     return log_w - norm.logpdf(z + noise, 0.0, jnp.sqrt(2.0))
      >>> excess = jax.vmap(chain)(jax.random.split(jax.random.key(0), 1000))
      >>> bool(excess.mean() > 0)
      True

    Source: Grosse et al. 2015 (arXiv 1511.02543).
    """
    betas, step_sizes, num_leapfrog = _check("reverse_ais", model, betas, step_sizes, num_leapfrog)
    check_continuous("reverse_ais", z)
    params, x, z = stop((params, x, z))
    betas, step_sizes = jax.lax.stop_gradient((betas, step_sizes))
    assert model.log_q is not None  # _check has raised
    first = log_weight(model, params.theta, x, z, model.log_q(params.phi, x, z))
    order = jnp.arange(betas.shape[0] - 2, 0, -1)
    rest, acceptance = _chain(model, params, key, x, z, betas, step_sizes, order, num_leapfrog)
    log_w = jnp.concatenate([first[None], rest])
    return stop((_weighted_sum(jnp.diff(betas)[::-1], log_w), acceptance[::-1]))


def tune_step_sizes(
    model: LatentModel,
    params: Params,
    key: Key,
    x: PyTree,
    *,
    betas: ArrayLike,
    num_leapfrog: int = 10,
    num_rounds: int = 16,
    num_chains: int = 16,
    target: float = 0.65,
) -> Float[Array, "steps"]:
    r"""Step sizes for `ais` and `reverse_ais`, from pilot chains that are thrown away.

    .. math:: \log \epsilon_t \leftarrow
       \log \epsilon_t + \frac{3}{1 + n_t} (\bar a_t - a^*)

    where :math:`\bar a_t` is the mean acceptance at b_t over the chains of a round, a* the
    target, and n_t how often :math:`\bar a_t` has crossed it. All start at 0.1. Returned is,
    for each temperature, the step size of the later half of the rounds that came closest.

    The chains that are COUNTED must use another key: to them these step sizes are then
    constants, and their bounds hold however well or badly the pilot went.

    Args:
      model: the model; its z is floating, and its log_q is not None.
      params: its parameters.
      key: PRNG key of the pilot alone. Round r, from 0, uses `fold_in(key, r)`.
      x: one datum.
      betas: as for `ais`, shape [T].
      num_leapfrog: leapfrog steps of a transition, as the counted chains will take.
      num_rounds: updates of the step sizes.
      num_chains: chains in each round, in memory together.
      target: acceptance aimed at, between 0 and 1.

    Returns:
      Step sizes in the unit of z, shape [T-2].

    Raises:
      TypeError: as for `ais`, or a count is not an integer.
      ValueError: a count is below 1, or `target` not between 0 and 1; else as for `ais`.

    Example:
      >>> import jax, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = phi + jax.random.normal(key)
      ...     return z, norm.logpdf(z, phi)
      >>> model = bounds.LatentModel(
      ...     propose, lambda phi, x, z: norm.logpdf(z, phi),
      ...     lambda theta, x, z: norm.logpdf(z) + norm.logpdf(x, z))
      >>> params, betas = bounds.Params(None, -1.0), bounds.annealing_schedule(5)
      >>> pilot, counted = jax.random.split(jax.random.key(0))
      >>> step_sizes = bounds.tune_step_sizes(model, params, pilot, 2.0, betas=betas)
      >>> log_w, acceptance = bounds.ais(
      ...     model, params, counted, 2.0, betas=betas, step_sizes=step_sizes)
      >>> step_sizes.shape == acceptance.shape == (3,)
      True

    Source: 0.65 is the best acceptance of HMC in high dimension, Beskos et al. 2013
    (arXiv 1001.4460); the gain is that of Kesten 1958 (Annals of Mathematical Statistics 29).
    """
    betas, start, num_leapfrog = _check(
        "tune_step_sizes", model, betas, _FIRST_STEP_SIZE, num_leapfrog
    )
    num_rounds = check_count("num_rounds", num_rounds)
    num_chains = check_count("num_chains", num_chains)
    if not 0 < target < 1:
        raise ValueError(f"target must be an acceptance between 0 and 1, got {target}.")
    chain = functools.partial(ais, model, params, x=x, betas=betas, num_leapfrog=num_leapfrog)

    def update(state, index):
        log_step_sizes, crossings, previous = state
        keys = jax.random.split(sample_key(key, index), num_chains)
        _, acceptance = jax.vmap(lambda k: chain(k, step_sizes=jnp.exp(log_step_sizes)))(keys)
        excess = jnp.mean(acceptance, axis=0).astype(start.dtype) - target
        # A gain that falls with the rounds alone would be too small for a step that has far to
        # go, or too large for one that stands at the limit of stability, where acceptance drops.
        crossings = crossings + (excess * previous < 0).astype(start.dtype)
        moved = log_step_sizes + _FIRST_GAIN / (1 + crossings) * excess
        return (moved, crossings, excess), (log_step_sizes, jnp.abs(excess))

    state = (jnp.log(start), jnp.zeros_like(start), jnp.zeros_like(start))
    _, (tried, missed) = jax.lax.scan(update, state, jnp.arange(num_rounds))
    # By then the chains that lead to each temperature move well, too.
    late = num_rounds // 2
    best = jnp.argmin(missed[late:], axis=0)
    return stop(jnp.exp(jnp.take_along_axis(tried[late:], best[None], axis=0)[0]))


def annealing_schedule(num_temperatures: int, *, radius: float = 4.0) -> Float[Array, "T"]:
    r"""Betas from 0 to 1 that lie densest near both ends, where the path changes fastest.

    .. math:: b_t = \frac{\sigma(r (2 t / (T - 1) - 1)) - \sigma(-r)}{\sigma(r) - \sigma(-r)},
       \qquad \sigma(s) = 1 / (1 + e^{-s})

    Args:
      num_temperatures: T, both ends included; the chain makes T - 2 transitions.
      radius: r, positive; towards 0 the schedule becomes linear.

    Returns:
      The betas, ascending, shape [T].

    Raises:
      TypeError: `num_temperatures` is not an integer.
      ValueError: it is below 2, or `radius` is not positive, or so large that neighbouring
        betas round to the same number.

    Example:
      >>> import bounds
      >>> [round(float(b), 3) for b in bounds.annealing_schedule(5)]
      [0.0, 0.105, 0.5, 0.895, 1.0]

    Source: Grosse et al. 2015 (arXiv 1511.02543); r = 4 in the code that Wu et al. 2017
    (arXiv 1611.04273) released.
    """
    num_temperatures = check_count("num_temperatures", num_temperatures, minimum=2)
    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}.")
    # tanh(s/2) = 2 sigmoid(s) - 1: odd, so that both ends come out exact.
    heights = np.tanh(radius / 2 * np.linspace(-1.0, 1.0, num_temperatures))
    return check_betas(0.5 + 0.5 * heights / heights[-1])


def _check(
    name: str, model: LatentModel, betas: ArrayLike, step_sizes: ArrayLike, num_leapfrog: int
) -> tuple[Array, Array, int]:
    check_log_q(name, model.log_q, instead="bounds.log_likelihood")
    betas = check_betas(betas)
    step_sizes = check_step_sizes(step_sizes, betas.shape[0] - 2)
    return betas, step_sizes, check_count("num_leapfrog", num_leapfrog)


def _chain(
    model: LatentModel,
    params: Params,
    key: Key,
    x: PyTree,
    z: PyTree,
    betas: Array,
    step_sizes: Array,
    order: Array,
    num_leapfrog: int,
) -> tuple[Array, Array]:
    """Transitions at betas[order] from z: log p - log q after each, and its acceptance."""
    if order.shape[0] == 0:
        return jnp.zeros(0, jnp.float32), jnp.zeros(0, jnp.float32)
    # Small steps would be lost in half precision.
    z = jax.tree.map(at_least_float32, z)
    bits = jax.random.key_data(jax.random.fold_in(key, 0))
    at, start = start_of(model, params, x, z, bits, betas, step_sizes)

    def step(point, t):
        point, acceptance = transition(
            at, point, sample_key(key, t), betas[t], step_sizes[t - 1], num_leapfrog
        )
        return point, (point.log_p - point.log_q, acceptance)

    return jax.lax.scan(step, start, order)[1]


def _weighted_sum(weights: Array, log_w: Array) -> Array:
    return jnp.sum(weights.astype(log_w.dtype) * log_w)
