r"""Annealing that trains: the chain of uncorrected Hamiltonian steps as a latent variable.

Without a Metropolis test every step is a differentiable map that keeps volumes, so the whole chain
from z_0 ~ q to its end is one importance sampler: z_0 and the noise of its momenta are the latent
variable, and the end of the chain, with what its momenta gained, is weighed by the model.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

from bounds._checks import (
    at_least_float32,
    check_betas,
    check_continuous,
    check_count,
    check_log_q,
    check_step_sizes,
    is_known,
)
from bounds._gradient_paths import check_smooth_noise
from bounds._hmc import kinetic_energy, leapfrog, start_of
from bounds._sampling import propose
from bounds._types import Key, LatentModel, Params


class Annealing(NamedTuple):
    """The theta of an `annealed` model: what its path from q to p is made of, all trainable.

    The weight is unbiased for p(x) at ANY values, if only the damping is below 1 in size; good
    ones make it vary less. So they may be trained without constraints, as
    `jnp.exp(log_step_sizes)`, `jax.nn.sigmoid(logit)` and, for the betas,
    `jnp.concatenate([jnp.zeros(1), jnp.cumsum(jax.nn.softmax(scores))])`.

    Attributes:
      params: theta and phi of the model that is annealed. The phi here is that of the path, whose
        start is drawn with the phi of the annealed model: pass the same one to both.
      step_sizes: of the leapfrog steps at each bridge, shape [T], or one for all, in the unit of z.
      betas: 0, an inverse temperature for each bridge, and 1, ascending, shape [T + 2].
      damping: the share of its momentum that a chain keeps from one bridge to the next, in [0, 1);
        at 0 each bridge draws a new one.
    """

    params: Params
    step_sizes: ArrayLike
    betas: ArrayLike
    damping: ArrayLike = 0.0


class Chain(NamedTuple):
    """z of an annealed model: where the chain starts, and the noise of its momenta, [T, ...]."""

    start: PyTree
    noise: PyTree


def annealed(model: LatentModel, *, num_bridges: int, num_leapfrog: int = 1) -> LatentModel:
    r"""A model whose latent variable is a whole annealed chain: UHA, or DAIS.

    .. math:: \log w = \log p(x, z_T) - \log q(z_0 | x)
       + \sum_{t=1}^T \log \frac{\mathcal N(\rho'_t; 0, 1)}{\mathcal N(\rho_t; 0, 1)}, \qquad
       \mathbb E[w] = p(x)

    where :math:`z_0 \sim q(z|x)`, :math:`(z_t, \rho'_t)` is where leapfrog steps under
    :math:`q^{1-b_t} p^{b_t}` take :math:`(z_{t-1}, \rho_t)`, and
    :math:`\rho_{t+1} = \eta \rho'_t + \sqrt{1-\eta^2}\, \xi_{t+1}` refreshes the momentum in part,
    with standard normal :math:`\xi` and damping :math:`\eta`; :math:`\rho_1 = \xi_1`. There is no
    Metropolis test, so log w is differentiable in theta, phi, step sizes, betas and damping.

    What comes back is a `LatentModel`: every bound and every estimator applies to it, and so do
    `log_weights` and `log_likelihood`; `iwae` is that over chains. Its parameters are
    `Params(theta=Annealing(params, ...), phi=params.phi)`. With 0 bridges its log-weights are those
    of the model, bit for bit.

    `dreg` and `stl` are right as they are: the latent variable is the start and the noise, so they
    stop phi in log q(z_0 | x) alone, and only what phi does by moving the start is weighted by the
    squares. What phi does in the path is a parameter of the model like theta: to weight it by the
    squares would be biased, and its own signal-to-noise ratio falls with K as under `pathwise`.
    Where that hurts, the path may have a phi of its own, `stop_gradient(params.phi)` for one, at
    which the weight is as unbiased.

    Its densities are relative to standard normal noise, which cancels in every weight.

    Args:
      model: the model; its z is floating, and its log_q is not None.
      num_bridges: T, from 0 on.
      num_leapfrog: leapfrog steps at each bridge, each with one gradient of log p and of log q.

    Returns:
      A `LatentModel` with theta = `Annealing`, phi of the model, and z = (start, noise).

    Raises:
      TypeError: a count is not an integer or, when called, z is not floating-point or takes
        isolated values, as a discrete one cast to float does.
      ValueError: a count is too small, the model has no log_q or, when called, the fields of
        `Annealing` are not as described (their values are looked at unless traced).

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = phi + jax.random.normal(key)
      ...     return z, norm.logpdf(z, phi)
      >>> model = bounds.LatentModel(
      ...     propose, lambda phi, x, z: norm.logpdf(z, phi),
      ...     lambda theta, x, z: norm.logpdf(z, theta) + norm.logpdf(x, z))
      >>> chains = bounds.annealed(model, num_bridges=4)
      >>> objective = bounds.pathwise(chains, num_samples=2)
      >>> def bound(params, log_step_size, key, x):  # trains the step size as well
      ...     betas = bounds.annealing_schedule(6)
      ...     path = bounds.Annealing(params, jnp.exp(log_step_size), betas, damping=0.5)
      ...     return objective(bounds.Params(path, params.phi), key, x)
      >>> params = bounds.Params(0.0, -1.0)
      >>> jax.grad(bound, argnums=1)(params, jnp.log(0.3), jax.random.key(0), 2.0).shape
      ()

    Source: Geffner & Domke 2021 (arXiv 2107.04150), UHA; Zhang et al. 2021 (arXiv 2107.10211),
    DAIS.
    """
    check_log_q("annealed", model.log_q, instead="the model as it is")
    num_bridges = check_count("num_bridges", num_bridges, minimum=0)
    num_leapfrog = check_count("num_leapfrog", num_leapfrog)

    def propose_chain(phi: PyTree, key: Key, x: PyTree) -> tuple[Chain, Any]:
        if num_bridges == 0:
            start, log_q = propose(model, phi, key, x)
            return Chain(start, ()), log_q
        start_key, noise_key = jax.random.split(key)
        check_smooth_noise("annealed", model, phi, start_key, x)
        start, log_q = propose(model, phi, start_key, x)
        check_continuous("annealed", start)
        leaves, structure = jax.tree.flatten(jax.tree.map(at_least_float32, start))
        keys = jax.random.split(noise_key, len(leaves))
        noise = [
            jax.random.normal(k, (num_bridges, *leaf.shape), leaf.dtype)
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        return Chain(start, jax.tree.unflatten(structure, noise)), log_q

    def log_q(phi: PyTree, x: PyTree, chain: Chain):
        return model.log_q(phi, x, chain.start)  # type: ignore[misc]

    def log_p(theta: Annealing, x: PyTree, chain: Chain):
        betas, step_sizes, damping = _checked(theta, num_bridges)
        if num_bridges == 0:
            return model.log_p(theta.params.theta, x, chain.start)
        # The first momentum is all noise.
        kept = jnp.where(jnp.arange(num_bridges) == 0, 0.0, damping)
        start, noises = jax.tree.map(at_least_float32, chain.start), jax.tree.leaves(chain.noise)
        at, point = start_of(model, theta.params, x, start, betas, step_sizes, kept, *noises)

        def bridge(state, now):
            point, momentum, gain = state
            noise, beta, step_size, share = now
            fresh = jnp.sqrt(1.0 - jnp.square(share))
            momentum = jax.tree.map(
                lambda m, n: share.astype(m.dtype) * m + fresh.astype(m.dtype) * n, momentum, noise
            )
            gain = gain + kinetic_energy(momentum)
            point, momentum = leapfrog(at, point, momentum, beta, step_size, num_leapfrog)
            return (point, momentum, gain - kinetic_energy(momentum)), None

        nothing = jax.tree.map(lambda leaf: 0.0 * leaf, point.z)
        state = (point, nothing, 0.0 * point.log_p)
        now = (chain.noise, betas[1:-1], step_sizes, kept)
        (point, _, gain), _ = jax.lax.scan(bridge, state, now)
        return point.log_p + gain

    return LatentModel(propose_chain, log_q, log_p)


def _checked(path: Annealing, num_bridges: int) -> tuple[Array, Array, Array]:
    """(betas, step sizes, damping) of an `Annealing`, or raises."""
    if not isinstance(path, Annealing):
        raise TypeError(
            "the theta of an annealed model must be an Annealing(params, step_sizes, betas), got "
            f"{type(path).__name__}."
        )
    betas = check_betas(path.betas)
    if betas.shape[0] != num_bridges + 2:
        raise ValueError(
            f"betas must be 0, one for each of {num_bridges} bridges, and 1: {num_bridges + 2} "
            f"numbers, got {betas.shape[0]}."
        )
    damping = jnp.asarray(path.damping, float)
    if damping.shape != () or (
        is_known(path.damping) and not 0 <= float(np.asarray(path.damping)) < 1
    ):
        raise ValueError(f"damping must be one number from 0 to below 1, got {path.damping}.")
    return betas, check_step_sizes(path.step_sizes, num_bridges), damping
