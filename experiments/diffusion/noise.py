"""Noise from integers to where the probability-flow ODE starts: uniform, cut-off normal, learned.

The learned one is the flow of Flow++, fitted to a finished model by the ELBO of the ODE's density,
whose gradient in z_0 is taken to be the network's score at gamma(0): with the exact score it is,
and elsewhere a wrong gradient makes worse noise and no wrong bound.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

import bounds
from experiments.diffusion.build import Model
from experiments.diffusion.settings import Ode, Trained
from experiments.runtime import keys
from experiments.runtime.fit import Run
from experiments.runtime.keys import Purpose
from experiments.studies import training
from experiments.studies.images import Problem, training_stream
from models import conditioners, elementwise, noise
from models.noise import LearnedNoise

WIDTH = 128  # of the noise's networks
COUPLINGS = 4


@functools.cache
def make_noise(name: str, levels: int, gamma_min: float) -> LearnedNoise:
    """The noise of a name of `settings.Ode`."""
    if name == "uniform":
        return noise.uniform_noise()
    if name == "truncated_normal":
        scale = math.exp(0.5 * gamma_min) * (levels - 1) / 2
        return LearnedNoise(
            lambda key, x: (), lambda dropout: bounds.dequantization.truncated_normal(scale)
        )

    # Perceptrons on the image itself, which take a tenth of the time of convolutions here.
    return noise.image_noise(
        levels,
        elementwise.affine(),
        lambda index: conditioners.dense((WIDTH,), index=index, last_scale=0.0),
        num_couplings=COUPLINGS,
        feature_filters=0,
    )


def make_run(
    problem: Problem, model: Model, trained: Trained, ode: Ode, params: PyTree, seed: int
) -> Run:
    """The training of the learned noise of a finished model."""
    learned = make_noise("learned", problem.levels, trained.chain.gamma_min)
    dequantizer, made = learned.make(None), model.make(params, None, 0).model
    gamma = made.gamma(jnp.zeros(()))
    alpha, sigma = (math.sqrt(jax.nn.sigmoid(sign * gamma)) for sign in (-1, 1))
    width = 2 / (problem.levels - 1)

    def bound(phi, key, x):
        v, log_q = dequantizer.propose(phi, key, x)
        z_0 = alpha * (made.encode(x) + width * (jax.nn.sigmoid(v) - 0.5))
        x_hat, _ = made.denoise(params, z_0, gamma, gamma)
        score = jax.lax.stop_gradient((alpha * x_hat - z_0) / sigma**2)
        slope = jnp.sum(jax.nn.log_sigmoid(v) + jax.nn.log_sigmoid(-v))
        return jnp.sum(score * z_0) + slope - log_q

    def loss_fn(phi, extra, batch, key, step):
        del step
        each = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        loss = -jnp.mean(jax.vmap(bound, (None, 0, 0))(phi, each, batch["x"]))
        return loss, (extra, {})

    example = jnp.zeros(problem.shape)
    return training.make_run(
        keys.of_training(seed, Purpose.NOISE_STAGE),
        trained.optimizer,
        trained.training.model_copy(update={"num_steps": ode.noise_steps}),
        loss_fn=loss_fn,
        init=lambda key: learned.init(key, example),
        stream=lambda key: training_stream(problem, key, trained.training.batch_size),
        validate=None,
    )
