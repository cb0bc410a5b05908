"""The audit of a latent-variable model and of the gradients of its objectives."""

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from bounds._audit_draws import Drawn, Simulate, check_simulate, draw, perturbed, twentieth
from bounds._audit_gradients import MEANINGS as GRADIENTS
from bounds._audit_gradients import arrays_of, compiled, differences, judged
from bounds._checks import check_count, check_log_q
from bounds._estimators import dreg, pathwise
from bounds._sampling import propose, sample_key
from bounds._score_function import reinforce, vimco
from bounds._types import Key, LatentModel, Objective, Params
from bounds._values import iwae
from bounds._verdicts import (
    LEAST_DATA,
    ROUNDING,
    Report,
    Test,
    bounded_zero,
    certain,
    check_rate,
    mean_one,
    report,
    undecided,
)

MEANINGS = {
    "log q at its own draw": (
        "propose returns another log q than log_q has at that z: that of a stale sample, of other "
        "parameters or another dropout mask, without a Jacobian, or no number at all."
    ),
    "same key, same draw": (
        "propose does not take its randomness from its key alone, so nothing that is drawn can be "
        "repeated or compared."
    ),
    "q integrates to 1": (
        "exp(log q) is no density of the z that propose draws: a constant, a Jacobian or a cell "
        "is missing, and every bound is off by it."
    ),
    "mean weight is p(x)": (
        "the mean of p(x, z) / q(z | x) is not the p(x) under which simulate draws z: log_p is "
        "not the joint that simulate draws from, or log_q not the density of propose."
    ),
    "posterior among draws of q": (
        "the z that made x stands out among draws of q otherwise than its weight says: log_p is "
        "not the joint that simulate draws from, or log_q not the density of propose."
    ),
    "another q, the same p(x)": (
        "two q do not give one p(x): log q is wrong in a way that depends on its parameters."
    ),
    "AIS against reverse AIS": (
        "annealing from q and back from the exact draw do not enclose one p(x): log_p is not the "
        "joint that simulate draws from."
    ),
}


def model(
    model: LatentModel,
    params: Params,
    key: Key,
    *,
    simulate: Simulate,
    objective: Objective | None = None,
    reference: Objective | None = None,
    other_phi: PyTree | None = None,
    num_data: int = 512,
    num_samples: int = 16,
    num_temperatures: int = 0,
    num_gradients: int = 512,
    chunk_size: int | None = None,
    false_alarm_rate: float = 1e-3,
) -> Report:
    r"""Whether a model, its q and its gradients are what a bound takes them for, on simulated data.

    .. math:: (x, z^*) \sim p(x, z): \qquad
       \mathbb E\Big[\tfrac1K \textstyle\sum_k w_k \,\frac{q(z^* | x)}{p(x, z^*)}\Big] = 1,
       \qquad w_k = \frac{p(x, z_k)}{q(z_k | x)}, \; z_k \sim q(z | x)

    for any model whose p(x) nobody knows. The checks, by name:

    * log q at its own draw: what propose returns is log_q at that z, but for rounding.
    * same key, same draw: and another one for another key.
    * q integrates to 1: E_q[r / (r + q)] = E_r[q / (r + q)], both bounded, with r a Gaussian
      fitted to other draws, or q with other parameters where z is not floating; undecided where
      entries of z have a fixed sum (a simplex) or are fixed.
    * mean weight is p(x): the equality above.
    * posterior among draws of q: with :math:`s = w / \sum w` over z* and z_1 .. z_K, the mean of
      s* is that of :math:`\sum_j s_j^2`. It is the equality made bounded, exact under any tails.
    * another q, the same p(x): the equality with w of another q.
    * AIS against reverse AIS: the equality by annealed weights, forwards from q and back from z*.
    * value of the objective, gradient in theta, gradient in phi: the objective and its reference
      have one mean, on the same keys and data. The gradient is judged along the mean difference
      of one half of the replicates, on the other half.
    * finite gradients, living gradients: of the objective.

    It runs on the host and compiles what it needs, anew in each call, as functions may close over
    what has changed; it is no function to be traced.

    Args:
      model: the model, with a log_q.
      params: its parameters.
      key: PRNG key.
      simulate: (theta, key) -> (x, z), a draw from the joint p(x, z).
      objective: to be audited; None for `dreg`, or `vimco` where z is not floating.
      reference: an objective with the same bound and an unbiased gradient; None for `pathwise`, or
        `reinforce` where z is not floating, of IWAE with `num_samples`.
      other_phi: parameters of another q; None to add noise of a twentieth to each entry of those of
        `params`, which keeps its sign; needed where entries depend on each other, as probabilities.
      num_data: simulated data, at least 100.
      num_samples: K.
      num_temperatures: of AIS on each datum; 0 for none, at least 3 otherwise.
      num_gradients: pairs of gradients, of one simulated datum each; 0 for none.
      chunk_size: data in memory at once; None for all.
      false_alarm_rate: the probability that any check says "violated" of what is right; each of
        them gets an equal share.

    Returns:
      `Report`. What cannot be told is "undecided", with the reason.

    Raises:
      TypeError: a count is not an integer.
      ValueError: a count is too small, the model has no log_q, simulate does not return (x, z)
        with a z like that of propose, or the rate is not between 0 and 1.

    Example:
      >>> import jax, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = x / 2 + phi * jax.random.normal(key)
      ...     return z, norm.logpdf(z, x / 2, phi)
      >>> def simulate(theta, key):
      ...     z, noise = jax.random.normal(key, (2,))
      ...     return theta + z + noise, z
      >>> model = bounds.LatentModel(
      ...     propose, lambda phi, x, z: norm.logpdf(z, x / 2, phi),
      ...     lambda theta, x, z: norm.logpdf(z) + norm.logpdf(x, theta + z))
      >>> found = bounds.audit.model(
      ...     model, bounds.Params(0.0, 0.8), jax.random.key(0), simulate=simulate)
      >>> found.violated
      ()

    Source: the bounds of bidirectional Monte Carlo, Grosse et al. 2015 (arXiv 1511.02543), taken
    as equalities; bridges, Meng & Wong 1996 (Statistica Sinica 6).
    """
    num_data = check_count("num_data", num_data, minimum=LEAST_DATA)
    num_samples = check_count("num_samples", num_samples)
    if num_temperatures:
        num_temperatures = check_count("num_temperatures", num_temperatures, minimum=3)
    if num_gradients:
        num_gradients = check_count("num_gradients", num_gradients, minimum=LEAST_DATA)
    check_rate(false_alarm_rate)
    check_log_q("audit.model", model.log_q, instead="bounds.audit.claim")
    floating = check_simulate(model, params, simulate)
    other = other_phi
    if other_phi is None:
        other = perturbed(params.phi, sample_key(key, 0), twentieth)
    has_other = bool(arrays_of(params.phi)[0]) or other_phi is not None
    temperatures = num_temperatures if floating else 0
    fixed = model, simulate, num_data, num_samples, temperatures, chunk_size, floating, has_other
    drawn = compiled(draw, fixed, params, other, sample_key(key, 1))
    tests = [_same_key(model, params, key, simulate)]
    tests += _of_draws(drawn, floating, has_other, num_temperatures)
    if num_gradients:
        make, plain = (dreg, pathwise) if floating else (vimco, reinforce)
        if num_samples == 1 and not floating:
            make = reinforce
        objective = objective or make(model, num_samples=num_samples)
        reference = reference or plain(model, num_samples=num_samples)
        pairs = objective, reference, simulate, num_gradients, chunk_size
        tests += judged(compiled(differences, pairs, params, sample_key(key, 2)), params)
    return report(tests, {**MEANINGS, **GRADIENTS}, false_alarm_rate)


def _of_draws(
    drawn: Drawn, floating: bool, has_other: bool, num_temperatures: int
) -> list[Test]:  # fmt: skip
    eps = float(jnp.finfo(drawn.log_p.dtype).eps)
    log_p = np.asarray(drawn.log_p, np.float64)
    size = float(np.abs(np.where(np.isfinite(log_p), log_p, 0.0)).mean())
    tolerance = ROUNDING * eps * (1 + size)
    exact = np.asarray(drawn.log_w_exact, np.float64)
    log_w = np.concatenate([exact[:, None], drawn.log_w], axis=1)
    greatest = log_w.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):  # z* where q has no support weighs infinitely much
        heaviest = (log_w == greatest) & (greatest > -np.inf)
        weights = np.where(heaviest, 1.0, np.exp(log_w - greatest))
    shares = weights / weights.sum(1, keepdims=True)
    squares = (shares**2).sum(1)

    def equality(name: str, log_w: Array) -> Test:
        estimate = np.asarray(iwae(log_w), np.float64)
        with np.errstate(invalid="ignore"):  # of weights that are 0 alone: NaN, undecided
            return mean_one(name, estimate - exact, tolerance=tolerance)

    # A q that is narrow for its distance from 0 has draws that are rounded coarsely.
    moved = jnp.where(jnp.isfinite(drawn.log_q_moved), drawn.log_q_moved, 0.0)
    allowed = drawn.log_q_rounding + ROUNDING * jnp.sqrt(jnp.mean(moved**2))
    worst = float(jnp.max(drawn.log_q_error / allowed))  # NaN where any is
    unknown = int(jnp.isnan(drawn.log_q_error).sum())
    why = "the largest difference, in units of what rounding explains"
    if unknown:
        why = f"log q is no finite number at {unknown} of {len(exact)} draws"
    tests = [certain("log q at its own draw", worst, 1.0, why)]
    if bool(drawn.in_a_plane.any()):
        why = "entries of z are fixed or add up to a fixed sum, so q is no density over all of them"
        tests.append(undecided("q integrates to 1", why))
    elif floating or has_other:
        overlap = float(drawn.overlap.mean())
        tests.append(
            bounded_zero("q integrates to 1", drawn.bridge, overlap=overlap, tolerance=tolerance)
        )
    else:
        why = "z is not floating and q has no parameters to move"
        tests.append(undecided("q integrates to 1", why))
    tests.append(equality("mean weight is p(x)", drawn.log_w))
    name, overlap = "posterior among draws of q", float((1 - squares).mean())
    tests.append(bounded_zero(name, shares[:, 0] - squares, overlap=overlap, tolerance=tolerance))
    if has_other:
        tests.append(equality("another q, the same p(x)", drawn.log_w_other))
    if num_temperatures:
        name = "AIS against reverse AIS"
        annealed = mean_one(name, drawn.annealed, tolerance=tolerance)
        cannot = undecided(name, "Hamiltonian dynamics cannot move this z")
        tests.append(annealed if floating else cannot)
    return tests


def _same_key(model: LatentModel, params: Params, key: Key, simulate: Simulate) -> Test:
    """Whether propose is a function of its key, and, of a floating z, not a constant one."""
    x, _ = simulate(params.theta, sample_key(key, 3))
    z = [propose(model, params.phi, sample_key(key, k), x)[0] for k in (4, 4, 5)]
    first, again, other = (ravel_pytree(draw)[0] for draw in z)
    changed = int((first != again).sum())
    stuck = jnp.issubdtype(first.dtype, jnp.floating) and bool((first == other).all())
    why = "entries that another key leaves alone" if stuck else "entries that change between calls"
    wrong = first.size if stuck else changed
    return certain("same key, same draw", wrong, 0, why)
