"""Four small models whose draws can be enumerated, and the estimators that are legal for each."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

import bounds
from experiments.estimators.settings import Estimators
from models.exact import enumerable, every_draw, linear_gaussian

VARIANCE = linear_gaussian.PAPER_VARIANCE
_LEAST, _MOST = 8, 64  # nodes for each noise


class Estimator(NamedTuple):
    """An estimator at K samples.

    Attributes:
      make: (model, K) -> objective.
      bound: what its value is of its log-weights.
      least: the least K that it takes.
      groups: M, of which each has K samples.
    """

    make: Callable[[bounds.LatentModel, int], bounds.Objective]
    bound: Callable[[Array], Array]
    least: int = 1
    groups: int = 1


class Outcomes(NamedTuple):
    """All that one draw can be.

    Attributes:
      z: (phi, x) -> every outcome [I, ...].
      log_mass: (phi, x) -> their log-probabilities [I].
      count: I.
    """

    z: Callable[[Any, Array], Any]
    log_mass: Callable[[Any, Array], Array]
    count: int


class Problem(NamedTuple):
    """A model, where its gradient is taken, and all outcomes of one draw.

    Attributes:
      name: in rows and tables.
      model: of the datum `x`, at `params`.
      outcomes: number of nodes for each noise -> `Outcomes`.
      noises: of one draw; 0 where z takes a few values, and nodes are not asked for.
      log_p: log p(x), exact.
      estimators: by name.
      blocks: gradient -> its parts by name.
      pairs: logits of q as `bounds.disarm` takes them, where z is independent Bernoulli.
    """

    name: str
    model: bounds.LatentModel
    params: bounds.Params
    x: Array
    outcomes: Callable[[int], Outcomes]
    noises: int
    log_p: float
    estimators: dict[str, Estimator]
    blocks: Callable[[bounds.Params], dict[str, Any]] = lambda grads: grads._asdict()
    pairs: Callable[[Any, Array], Array] | None = None

    def over(self, num_samples: int, num_groups: int, most: int) -> Outcomes | None:
        """Outcomes for M groups of K draws, at most so many of all; None where it takes more."""

        def too_many(count: int) -> bool:
            return math.comb(count + num_samples - 1, num_samples) ** num_groups > most

        if not self.noises:
            found = self.outcomes(0)
            return None if too_many(found.count) else found
        nodes = [n for n in range(_LEAST, _MOST + 1) if not too_many(n**self.noises)]
        return self.outcomes(nodes[-1]) if nodes else None


def problems(settings: Estimators) -> list[Problem]:
    """All of them; the order is that of the tables."""
    left = functools.partial(bounds.thermodynamic, betas=jnp.asarray(settings.betas))
    of_score, of_path = _by_score(settings, left), _by_path(left)
    near, far = (
        _gaussian(name, offset, {**of_path, **of_score})
        for name, offset in (("Gaussian, near", 0.1), ("Gaussian, far", 1.0))
    )
    return [near, far, _chains(near), _categorical(of_score), _bernoulli(of_score)]


def _by_path(left: Callable) -> dict[str, Estimator]:
    elbo, iwae = bounds.elbo, bounds.iwae

    def log_px_given_z(theta, x, z):
        return bounds.densities.gaussian_log_prob(x, z, 1.0)

    def kl(params, x):
        mean = params.phi.weight @ x + params.phi.bias
        return bounds.densities.gaussian_kl(mean, jnp.full(1, VARIANCE), params.theta, 1.0)

    def entropy(phi, x):
        return bounds.densities.gaussian_entropy(jnp.full(1, VARIANCE))

    def mean_of_groups(log_w):
        return jnp.mean(iwae(log_w.reshape(2, -1)))

    def path(make, bound):
        return Estimator(lambda m, k: make(m, num_samples=k, bound=bound), bound)

    return {
        "pathwise, ELBO": path(bounds.pathwise, elbo),
        "reconstruction - KL": Estimator(
            lambda m, k: bounds.elbo_analytic_kl(
                m, num_samples=k, log_px_given_z=log_px_given_z, kl=kl
            ),
            elbo,
        ),
        "energy + entropy": Estimator(
            lambda m, k: bounds.elbo_analytic_entropy(m, num_samples=k, entropy=entropy), elbo
        ),
        "stl, ELBO": path(bounds.stl, elbo),
        "pathwise, IWAE": path(bounds.pathwise, iwae),
        "stl, IWAE": path(bounds.stl, iwae),
        "dreg": Estimator(lambda m, k: bounds.dreg(m, num_samples=k), iwae),
        "pathwise, left sum": path(bounds.pathwise, left),
        "miwae, 2 groups": Estimator(
            lambda m, k: bounds.miwae(m, num_groups=2, num_samples=k), mean_of_groups, groups=2
        ),
        "piwae, 2 groups": Estimator(
            lambda m, k: bounds.piwae(m, num_groups=2, num_samples=k), iwae, groups=2
        ),
    }


def _by_score(settings: Estimators, left: Callable) -> dict[str, Estimator]:
    elbo, iwae, betas = bounds.elbo, bounds.iwae, jnp.asarray(settings.betas)

    def of(make, value, least=1, **options):
        return Estimator(lambda m, k: make(m, num_samples=k, **options), value, least)

    return {
        "reinforce, ELBO": of(bounds.reinforce, elbo, bound=elbo),
        "rloo, ELBO": of(bounds.rloo, elbo, 2),
        "reinforce, IWAE": of(bounds.reinforce, iwae),
        "rloo, IWAE": of(bounds.rloo, iwae, 2, bound=iwae),
        "vimco": of(bounds.vimco, iwae, 2),
        "ovis, gamma 0": of(bounds.ovis, iwae, 2),
        "ovis, gamma 1": of(bounds.ovis, iwae, 2, gamma=1.0),
        "rws": of(bounds.rws, iwae),
        "rloo, left sum": of(bounds.rloo, left, 2, bound=left),
        "tvo": of(bounds.tvo, left, 2, betas=betas),
    }


def _gaussian(name: str, offset: float, estimators: dict[str, Estimator]) -> Problem:
    """The toy of Rainforth et al. in one dimension, the mean of q `offset` too high."""
    theta, x = jnp.array([0.3]), jnp.array([1.5])
    phi = linear_gaussian.Inference(jnp.array([[0.5]]), theta / 2 + offset)

    def outcomes(num_nodes):
        nodes, mass = every_draw.gauss_hermite(num_nodes, 1)
        return Outcomes(
            lambda phi, x: (phi.weight @ x + phi.bias)[None] + math.sqrt(VARIANCE) * nodes,
            lambda phi, x: jnp.log(mass),
            num_nodes,
        )

    return Problem(
        name,
        linear_gaussian.make_model(VARIANCE),
        bounds.Params(theta, phi),
        x,
        outcomes,
        1,
        float(linear_gaussian.log_likelihood(theta, x)),
        estimators,
    )


def _chains(problem: Problem) -> Problem:
    """The same with one bridge: the noise of the start, and that of the momentum."""
    chains = bounds.annealed(problem.model, num_bridges=1)

    def outcomes(num_nodes):
        nodes, mass = every_draw.gauss_hermite(num_nodes, 2)

        def z(phi, x):
            start = (phi.weight @ x + phi.bias)[None] + math.sqrt(VARIANCE) * nodes[:, :1]
            drawn, _ = chains.propose(phi, jax.random.key(0), x)
            return drawn._replace(start=start, noise=nodes[:, 1:, None])

        return Outcomes(z, lambda phi, x: jnp.log(mass), num_nodes**2)

    path = bounds.Annealing(problem.params, jnp.array(0.5), jnp.array([0.0, 0.5, 1.0]))
    return problem._replace(
        name="Gaussian, near, one bridge",
        model=chains,
        params=bounds.Params(path, problem.params.phi),
        outcomes=outcomes,
        noises=2,
        estimators={
            "pathwise, IWAE": Estimator(
                lambda m, k: bounds.pathwise(m, num_samples=k), bounds.iwae
            ),
            "dreg": Estimator(lambda m, k: bounds.dreg(m, num_samples=k), bounds.iwae),
        },
        blocks=lambda grads: {
            "theta": grads.theta.params.theta,
            # By the start, and by the path.
            "phi": jax.tree.map(jnp.add, grads.phi, grads.theta.params.phi),
        },
    )


def _categorical(estimators: dict[str, Estimator]) -> Problem:
    theta = enumerable.Generative(
        jnp.array([0.4, -0.3, 1.0, 0.1]),
        jnp.array([[0.5, -1.0], [0.2, 0.9], [-0.7, 0.4], [1.2, -0.6]]),
    )
    params = bounds.Params(theta, jnp.array([[0.3, 0.8, -0.5, 0.2], [1.0, 0.0, 0.4, -0.9]]))
    x = jnp.array(1)
    return Problem(
        "categorical, 4 states",
        enumerable.make_model(),
        params,
        x,
        lambda _: Outcomes(
            lambda phi, x: jnp.arange(4), lambda phi, x: jax.nn.log_softmax(phi[x]), 4
        ),
        0,
        float(enumerable.log_likelihood(theta, x)),
        estimators,
    )


def _bernoulli(estimators: dict[str, Estimator]) -> Problem:
    """Two bits that the posterior couples: theta is their prior logits and how they make x."""
    states = jnp.array(list(itertools.product((0, 1), repeat=2)))

    def logits(phi, x):
        return phi["weight"] * x + phi["bias"]

    def log_prob(logits, z):
        return jnp.sum(bounds.densities.bernoulli_log_prob(logits, z))

    def propose(phi, key, x):
        z = jax.random.bernoulli(key, jax.nn.sigmoid(logits(phi, x))).astype(states.dtype)
        return z, log_prob(logits(phi, x), z)

    def log_p(theta, x, z):
        both = theta["weight"][0] * z[0] + theta["weight"][1] * z[1] + theta["both"] * z[0] * z[1]
        return log_prob(theta["prior"], z) + log_prob(theta["bias"] + both, x)

    def log_q(phi, x, z):
        return log_prob(logits(phi, x), z)

    theta = {
        "prior": jnp.array([0.2, -0.4]), "weight": jnp.array([1.1, -2.0]),
        "both": jnp.array(1.5), "bias": jnp.array(0.3),
    }  # fmt: skip
    phi = {"weight": jnp.array([0.4, 0.1]), "bias": jnp.array([-0.1, -0.9])}
    x = jnp.array(1)
    log_joint = jax.vmap(lambda z: log_p(theta, x, z))(states)
    return Problem(
        "Bernoulli, 2 bits",
        bounds.LatentModel(propose, log_q, log_p),
        bounds.Params(theta, phi),
        x,
        lambda _: Outcomes(
            lambda phi, x: states, lambda phi, x: jax.vmap(lambda z: log_q(phi, x, z))(states), 4
        ),
        0,
        float(jax.nn.logsumexp(log_joint)),
        estimators,
        pairs=logits,
    )
