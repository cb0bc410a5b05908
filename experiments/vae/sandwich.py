"""log p(x) of simulated data between a lower and an upper bound: bidirectional Monte Carlo.

On data drawn from the model itself the latent z that made an image is an exact posterior draw.
From there annealed importance sampling runs backwards and gives an upper bound (Grosse et al. 2015,
arXiv 1511.02543); forwards it gives a lower one.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import bounds
from experiments.runtime.compiling import precise
from experiments.runtime.results import Row
from experiments.studies import held_out
from experiments.studies.held_out import mean_row
from experiments.vae.settings import Annealing
from models.vae import VAE


class Sandwich(NamedTuple):
    """Bounds on log p(x) of each simulated image, in nats, and the acceptance of the chains."""

    lower: np.ndarray
    upper: np.ndarray
    acceptance: np.ndarray


def sandwich(
    vae: VAE,
    params: bounds.Params,
    images: np.ndarray,
    latents: Any,
    key: Array,
    annealing: Annealing,
    *,
    images_per_pass: int,
) -> Sandwich:
    """AIS forwards and backwards for each image.

    Step sizes are tuned for each image in pilot chains with a key of their own.
    """
    chains = _chains_of(vae, annealing)
    return Sandwich(*_passes(chains, params, key, (images, latents), images_per_pass))


def forward(
    vae: VAE,
    params: bounds.Params,
    images: np.ndarray,
    key: Array,
    annealing: Annealing,
    *,
    images_per_pass: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(AIS forwards, acceptance) of each image; the images need not be drawn from the model."""
    chains = _chains_of(vae, annealing)
    lower, _, acceptance = _passes(chains, params, key, (images, None), images_per_pass)
    return lower, acceptance


def _passes(
    chains: Callable, params: bounds.Params, key: Array, data: Any, images_per_pass: int
) -> tuple[np.ndarray, ...]:
    return held_out.over_images(
        chains, params, data, key, images_per_pass=images_per_pass, what="AIS from image"
    )


def from_prior(model: bounds.LatentModel) -> bounds.LatentModel:
    """The same joint with a standard normal prior in the place of the encoder, for one layer."""

    def propose(phi, key, x):
        (like,), _ = jax.eval_shape(model.propose, phi, key, x)
        z = jax.random.normal(key, like.shape, like.dtype)
        return (z,), log_q(phi, x, (z,))

    def log_q(phi, x, z):
        del phi, x
        return bounds.densities.gaussian_log_prob(z[0], 0.0, 1.0)

    return bounds.LatentModel(propose, log_q, model.log_p)


def _chains_of(vae: VAE, annealing: Annealing):
    wanted = annealing.temperatures, annealing.chains, annealing.leapfrog
    return _chains(vae, *wanted, start=annealing.start)


@functools.cache
def _chains(
    vae: VAE, num_temperatures: int, num_chains: int, num_leapfrog: int, start: str = "encoder"
):
    """Compiled once for a model, whatever parameters are evaluated.

    Without a latent z that made the image there is no chain backwards, and no upper bound.
    """
    betas = bounds.annealing_schedule(num_temperatures)
    settings: dict[str, Any] = {"betas": betas, "num_leapfrog": num_leapfrog}
    model = vae.model if start == "encoder" else from_prior(vae.model)

    def one(params, key, data, index):
        x, z = data
        pilot, forward, backward = jax.random.split(jax.random.fold_in(key, index), 3)
        sizes = bounds.tune_step_sizes(model, params, pilot, x, num_rounds=8, **settings)

        def ahead(k):
            return bounds.ais(model, params, k, x, step_sizes=sizes, **settings)

        def back(k):
            return bounds.reverse_ais(model, params, k, x, z, step_sizes=sizes, **settings)

        log_w, accepted = jax.vmap(ahead)(jax.random.split(forward, num_chains))
        if z is None:
            return bounds.iwae(log_w), jnp.inf, jnp.mean(accepted)
        reverse, accepted_back = jax.vmap(back)(jax.random.split(backward, num_chains))
        acceptance = (jnp.mean(accepted) + jnp.mean(accepted_back)) / 2
        # Reverse chains share one exact draw; the mean of 1/w stays unbiased for 1/p(x).
        return bounds.iwae(log_w), -bounds.iwae(-reverse), acceptance

    return held_out.spread(jax.vmap(one, (None, None, 0, 0)))


def simulated(
    vae: VAE, params: bounds.Params, key: Array, count: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """`count` draws (x, z) from the model."""
    keys = jax.random.split(key, count)
    simulate = jax.jit(precise(jax.vmap(vae.simulate, (None, 0))))
    return jax.tree.map(np.asarray, simulate(params.theta, keys))


def path_of(annealing: Annealing) -> dict[str, Any]:
    """What a row tells of the chains; where they start, unless at the encoder."""
    at = {"T": annealing.temperatures, "chains": annealing.chains}
    return at if annealing.start == "encoder" else {**at, "start": annealing.start}


def rows(measured: Sandwich, annealing: Annealing, **extra: Any) -> list[Row]:
    """The two bounds, the gap between them and the acceptance of the chains."""
    at = {**path_of(annealing), "data": "simulated"}
    gap = measured.upper - measured.lower
    return [
        mean_row("AIS", at, measured.lower, "lower_bound", **extra),
        mean_row("reverse AIS (BDMC)", at, measured.upper, "upper_bound", **extra),
        mean_row("AIS gap", at, gap, "estimate", **extra),
        mean_row("AIS acceptance", at, measured.acceptance, "estimate", unit="share", **extra),
    ]
