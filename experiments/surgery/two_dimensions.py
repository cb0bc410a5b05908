"""Posteriors in a plane: what IWAE's bound stands for, on a grid, for one image of a small VAE.

The density q_EW of a sample that is kept, by its weight, out of K draws of the encoder (Cremer et
al. 2017, arXiv 1704.02916) goes from q(z | x) at K = 1 to the posterior as K grows. Integrals are
sums over a square of a grid that both fit into.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

import bounds
from experiments.runtime.compiling import precise
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.progress import track
from experiments.runtime.results import Kind, Row, row
from experiments.studies import held_out
from experiments.surgery import encoders
from experiments.surgery.models import Loaded
from experiments.surgery.settings import TWO_DIMENSIONS, Surgery
from models.vae import VAE

BLOCKS = 8  # groups of the sets that estimate q_EW, for standard errors
REACH = 8.0  # the two densities are searched for within [-REACH, REACH]^2
CANDIDATES = 20
MASS, DIVERGENCE = "mass on the grid", "KL(q_EW || posterior)"
_SEARCHED, _POINTS = 321, 500  # nodes on a side of the search; nodes in memory at once


class Plane(NamedTuple):
    """Log-densities of one image on a square grid, in nats.

    Attributes:
      image: its number among the test images.
      x: the image.
      axes: the nodes of both coordinates, two arrays [G].
      log_joint: log p(x, z), [G, G] with z_1 along the last axis.
      log_q: log q(z | x), likewise.
      log_kept: K -> log q_EW(z | x) by each of `BLOCKS` groups of sets, [BLOCKS, G, G].
      resampled: draws of q_EW for the largest K, [draws, 2].
      iwae: K -> L_K of independent sets of K draws, [draws].
      log_p: log p(x) without the grid, by importance sampling, and its standard error.
    """

    image: int
    x: np.ndarray
    axes: tuple[np.ndarray, np.ndarray]
    log_joint: np.ndarray
    log_q: np.ndarray
    log_kept: dict[int, np.ndarray]
    resampled: np.ndarray
    iwae: dict[int, np.ndarray]
    log_p: tuple[float, float]

    @property
    def area(self) -> float:
        """The area of one cell of the grid."""
        return float(np.prod([axis[1] - axis[0] for axis in self.axes]))

    @property
    def log_evidence(self) -> float:
        """log p(x), summed over the grid."""
        return float(logsumexp(self.log_joint) + np.log(self.area))

    @property
    def log_posterior(self) -> np.ndarray:
        """log p(z | x), normalised on the grid."""
        return self.log_joint - self.log_evidence


def measure(model: Loaded, settings: Surgery) -> Plane:
    """Chooses the image and evaluates all densities.

    The image is that of the first 20 test images whose IWAE (of `gap.num_samples` draws) exceeds
    its ELBO by most.
    """
    vae, params = model.problem.vae, model.params
    wanted, memory = settings.picture, settings.memory
    choice, sets, draws = jax.random.split(key_for(settings.seed, Purpose.PLANE), 3)
    images = encoders.images(model.problem, "test", CANDIDATES, settings.data.binarization_seed)
    found = held_out.per_image(
        vae.model,
        params,
        images,
        choice,
        many=settings.gap.num_samples,
        images_per_pass=memory.images_per_pass,
        samples_per_pass=memory.samples_per_pass,
    )
    number = int(np.argmax(found.iwae_many - found.elbo))
    x = images[number]
    axes = _square(vae, params, x, wanted.num_nodes)
    shape = (wanted.num_nodes,) * 2
    z = _grid(axes)
    log_joint, log_q = (v.reshape(shape) for v in _densities(vae, params, x, z))
    kept = {}
    for num_samples in track(wanted.num_samples, lambda k: f"q_EW, K={k}", "K"):
        blocks = [
            np.asarray(
                _kept(vae, num_samples, wanted.num_sets)(
                    params, jax.random.fold_in(sets, b), jnp.asarray(x), z
                ),
                np.float64,
            ).reshape(shape)
            for b in range(BLOCKS)
        ]
        kept[num_samples] = np.stack(blocks)
    sets_of = {
        k: _resample(vae, k, wanted.num_draws)(params, jax.random.fold_in(draws, k), jnp.asarray(x))
        for k in kept
    }
    resampled = np.asarray(sets_of[max(kept)][0])
    iwae = {k: np.asarray(values) for k, (_, values) in sets_of.items()}
    log_p = float(found.iwae_many[number]), float(found.monte_carlo_error[number])
    return Plane(number, x, axes, log_joint, log_q, kept, resampled, iwae, log_p)


def rows(plane: Plane) -> list[Row]:
    """Mass on the grid, distance from the posterior and ELBO of every density, and IWAE."""
    at = {"model": TWO_DIMENSIONS, "image": plane.image}
    # The grid sums p(x, z) to p(x), which importance sampling knows without a grid.
    value, error = plane.log_p
    out = [
        row(
            "log p(x), sum over the grid",
            at,
            kind="estimate",
            unit="nats",
            value=plane.log_evidence,
        ),
        row(
            "log p(x), grid - importance sampling",
            at,
            kind="estimate",
            unit="nats",
            value=plane.log_evidence - value,
            standard_error=error,
        ),
    ]
    out += _of_density({**at, "K": 1}, plane, plane.log_q[None])
    for num_samples, blocks in plane.log_kept.items():
        where = {**at, "K": num_samples}
        out += _of_density(where, plane, blocks)
        out.append(held_out.mean_row("IWAE", where, plane.iwae[num_samples], "lower_bound"))
    return out


def _of_density(at: dict[str, Any], plane: Plane, blocks: np.ndarray) -> list[Row]:
    """Functionals of one density; standard errors by the jackknife over its blocks."""

    def mass(log_density):
        return np.exp(log_density).sum() * plane.area

    def divergence(log_density):
        # The estimated density integrates to one on average only.
        log_density = log_density - np.log(mass(log_density))
        return np.sum(np.exp(log_density) * (log_density - plane.log_posterior)) * plane.area

    def elbo(log_density):
        return plane.log_evidence - divergence(log_density)

    named: dict[str, tuple[Callable, Kind, str]] = {
        MASS: (mass, "estimate", "probability"),
        "ELBO of q_EW": (elbo, "lower_bound", "nats"),
        DIVERGENCE: (divergence, "estimate", "nats"),
    }
    return [
        row(name, at, kind=kind, unit=unit, **_jackknife(function, blocks))
        for name, (function, kind, unit) in named.items()
    ]


def _jackknife(function: Callable[[np.ndarray], float], blocks: np.ndarray) -> dict[str, Any]:
    """A functional of the mean of densities, and its standard error over equal blocks."""
    count = len(blocks)
    value = function(logsumexp(blocks, axis=0) - np.log(count))
    if count == 1:  # an exact density has no error
        return {"value": value}
    without = np.array(
        [
            function(logsumexp(np.delete(blocks, b, axis=0), axis=0) - np.log(count - 1))
            for b in range(count)
        ]
    )
    error = np.sqrt((count - 1) * np.mean((without - without.mean()) ** 2))
    return {"value": value, "standard_error": error, "n": count}


def _square(
    vae: VAE, params: bounds.Params, x: np.ndarray, nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Axes of a square around all z where q or the posterior is above 1e-5 of its height."""
    axis = np.linspace(-REACH, REACH, _SEARCHED)
    z = _grid((axis, axis))
    inside = np.zeros(len(z), bool)
    for log_density in _densities(vae, params, x, z):
        inside |= log_density > log_density.max() + np.log(1e-5)
    low, high = z[inside].min(axis=0), z[inside].max(axis=0)
    half = 0.55 * np.max(high - low) + axis[1] - axis[0]
    first, second = (np.linspace(c - half, c + half, nodes) for c in (low + high) / 2)
    return first, second


def _grid(axes: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Nodes [G * G, 2], the first coordinate running fastest."""
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2).astype(np.float32)


def _densities(
    vae: VAE, params: bounds.Params, x: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    found = _on_grid(vae)(params, jnp.asarray(x), z)
    log_joint, log_q = (np.asarray(v, np.float64) for v in found)
    return log_joint, log_q


@functools.cache
def _on_grid(vae: VAE):
    log_q = vae.model.log_q
    assert log_q is not None

    @jax.jit
    @precise
    def run(params, x, z):
        def one(z):
            return vae.model.log_p(params.theta, x, (z,)), log_q(params.phi, x, (z,))

        return jax.lax.map(one, z, batch_size=_POINTS)

    return run


@functools.cache
def _kept(vae: VAE, num_samples: int, num_sets: int):
    """(parameters, key, x, nodes) -> log q_EW; the same sets of draws serve every node."""

    @jax.jit
    @precise
    def run(params, key, x, z):
        def one(z):
            return bounds.surgery.iwae_posterior_log_prob(
                vae.model, params, key, x, (z,), num_samples=num_samples, num_sets=num_sets
            )

        return jax.lax.map(one, z, batch_size=_POINTS)

    return run


@functools.cache
def _resample(vae: VAE, num_samples: int, num_draws: int):
    """(parameters, key, x) -> (draws, each one of `num_samples` by its weight; IWAE of each)."""

    @jax.jit
    @precise
    def run(params, key, x):
        def one(number):
            which, sample = jax.random.split(jax.random.fold_in(key, number))

            def draw(k):
                (z,), log_q = vae.model.propose(params.phi, jax.random.fold_in(sample, k), x)
                return z, vae.model.log_p(params.theta, x, (z,)) - log_q

            z, log_w = jax.vmap(draw)(jnp.arange(num_samples))
            return z[jax.random.categorical(which, log_w)], bounds.iwae(log_w)

        return jax.lax.map(one, jnp.arange(num_draws), batch_size=50)

    return run
