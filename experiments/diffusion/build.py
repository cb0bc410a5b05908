"""From settings to a diffusion model of images of integers: schedule, network and decoder."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

import bounds
from experiments.diffusion.settings import Chain, Trained
from experiments.runtime.errors import UserError
from experiments.studies.images import Problem
from models import denoisers, diffusion
from models.diffusion import IntegerDiffusion

# Schedules of discrete time alone.
DISCRETE = {"linear": bounds.diffusion.linear_schedule, "cosine": bounds.diffusion.cosine_schedule}
SCHEDULE_UNITS = 32  # of a learned one


class Model(NamedTuple):
    """A diffusion model of the images of a `Problem`.

    Attributes:
      init: key -> parameters {"network", "schedule"}.
      make: (parameters, dropout key or None, number of steps, 0 for continuous time) -> the model;
        its functions take the same parameters.
      timesteps: T of the training.
      evaluation_timesteps: T of the evaluation.
      num_latents: of the training, 0 for continuous time.
      continuous: whether there is a limit of many steps, so that 0 of them make sense.
      shape: of an image.
    """

    init: Callable[[Array], PyTree]
    make: Callable[[PyTree, Any, int], IntegerDiffusion]
    timesteps: int
    evaluation_timesteps: int
    num_latents: int
    continuous: bool
    shape: tuple[int, int, int]

    def evaluated(self, params: PyTree) -> IntegerDiffusion:
        """What is scored and sampled from: without dropout."""
        return self.make(params, None, self.evaluation_timesteps)


def make_model(problem: Problem, trained: Trained) -> Model:
    """The model of images of a problem.

    Raises:
      UserError: a size does not fit the images.
    """
    wanted, learned = trained.network, trained.chain.variance == "learned"
    dtype = jnp.bfloat16 if wanted.dtype == "bfloat16" else None  # None: that of the parameters
    if wanted.name == "unet":
        denoiser = denoisers.unet(
            wanted.width,
            wanted.multipliers,
            wanted.num_blocks,
            attention=wanted.attention,
            dropout=wanted.dropout,
            fourier=wanted.fourier,
            learned_variance=learned,
            dtype=dtype,
        )
    else:
        denoiser = denoisers.mlp(
            wanted.width,
            wanted.num_blocks,
            dropout=wanted.dropout,
            fourier=wanted.fourier,
            learned_variance=learned,
            gated=wanted.name == "gated_mlp",
            dtype=dtype,
        )
    make = _vdm if trained.chain.continuous else _ddpm
    try:
        model = make(problem, trained.chain, denoiser)
        params = jax.eval_shape(model.init, jax.random.key(0))
        # Sizes that do not fit raise when shapes are evaluated.
        x = jax.ShapeDtypeStruct(problem.shape, jnp.float32)
        jax.eval_shape(_bound(model), params, jax.random.key(0), x)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"this model of images of shape {problem.shape} cannot be made: {error}"
        ) from None
    return model


def _bound(model: Model):
    def bound(params, key, x):
        terms = bounds.diffusion.terms(model.evaluated(params).model, params, key, x)
        return bounds.diffusion.bound(terms)

    return bound


def _predictor(denoiser: denoisers.Denoiser, dropout: Any):
    return lambda params, x_t, gamma: denoiser.predict(params["network"], x_t, gamma, dropout)


def _init(denoiser: denoisers.Denoiser, shape: tuple[int, int, int], schedule: PyTree):
    return lambda key: {"network": denoiser.init(key, shape), "schedule": schedule}


def _ddpm(problem: Problem, chain: Chain, denoiser: denoisers.Denoiser) -> Model:
    gamma = DISCRETE[chain.schedule](chain.timesteps)

    def make(params, dropout, timesteps):
        del params, timesteps
        return diffusion.ddpm(
            gamma,
            _predictor(denoiser, dropout),
            levels=problem.levels,
            prediction=chain.prediction,
            variance=chain.variance,
            decoder=chain.decoder,
        )

    init = _init(denoiser, problem.shape, ())
    return Model(
        init, make, chain.timesteps, chain.timesteps, chain.timesteps, False, problem.shape
    )


def _vdm(problem: Problem, chain: Chain, denoiser: denoisers.Denoiser) -> Model:
    evaluation = chain.evaluation_timesteps or chain.timesteps
    ends = {"gamma_min": chain.gamma_min, "gamma_max": chain.gamma_max}
    learned = chain.schedule == "vdm_learned"
    start = bounds.diffusion.init_monotone_gamma(SCHEDULE_UNITS) if learned else ()

    straight = chain.schedule == "straight"
    fixed = bounds.diffusion.straight_gamma if straight else bounds.diffusion.linear_gamma

    def make(params, dropout, timesteps):
        gamma = functools.partial(fixed, **ends)
        if learned:
            gamma = functools.partial(bounds.diffusion.monotone_gamma, params["schedule"], **ends)
        return diffusion.vdm(
            gamma,
            _predictor(denoiser, dropout),
            levels=problem.levels,
            num_steps=timesteps,
            prediction=chain.prediction,
        )

    init = _init(denoiser, problem.shape, start)
    latents = chain.timesteps + 1 if chain.timesteps else 0
    return Model(init, make, chain.timesteps, evaluation, latents, True, problem.shape)
