"""From a config to a diffusion model of images of integers: schedule, network and decoder."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

import bounds
from experiments.runtime import checks
from experiments.runtime.checks import known
from experiments.runtime.errors import UserError
from experiments.studies.images import Problem
from models import denoisers, diffusion
from models.diffusion import IntegerDiffusion

# Schedules of discrete time alone, and those of continuous time that are cut into steps.
DISCRETE = {"linear": bounds.linear_schedule, "cosine": bounds.cosine_schedule}
CONTINUOUS = ("vdm_linear", "vdm_learned")
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


def make_model(problem: Problem, config: Any) -> Model:
    """The model of a config.

    Raises:
      UserError: a name or a size in the config is wrong, or does not fit the images.
    """
    checks.whole(config, 1, "width", most=checks.WIDTH)
    checks.whole(config, 1, "num_blocks", most=checks.LAYERS)
    checks.whole(config, 0, "timesteps", "evaluation_timesteps", most=checks.TIMES)
    if not checks.is_number(config.dropout) or not 0 <= config.dropout < 1:
        raise UserError(f"config.dropout must be in [0, 1), got {config.dropout}.")
    known(config, "schedule", dict.fromkeys((*DISCRETE, *CONTINUOUS)))
    known(config, "decoder", dict.fromkeys(diffusion.DECODERS))
    for field in ("attention", "fourier", "multipliers"):
        if not all(checks.is_whole(value) and abs(value) <= 100 for value in config[field]):
            raise UserError(
                f"config.{field} must hold whole numbers of at most 100, got {config[field]}."
            )
    denoiser = known(config, "network", NETWORKS)(config)
    make = _vdm if config.schedule in CONTINUOUS else _ddpm
    try:
        model = make(problem, config, denoiser)
        params = jax.eval_shape(model.init, jax.random.key(0))
        # Shapes that do not fit show where they are followed through.
        x = jax.ShapeDtypeStruct(problem.shape, jnp.float32)
        jax.eval_shape(_bound(model), params, jax.random.key(0), x)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"this model of images of shape {problem.shape} cannot be made: {error}"
        ) from None
    return model


def _bound(model: Model):
    def bound(params, key, x):
        terms = bounds.diffusion_terms(model.evaluated(params).model, params, key, x)
        return bounds.diffusion_bound(terms)

    return bound


def _unet(config: Any) -> denoisers.Denoiser:
    multipliers = config.multipliers
    if not multipliers or not all(checks.is_whole(m) and m > 0 for m in multipliers):
        raise UserError(
            f"config.multipliers must hold whole numbers above 0, one per resolution, "
            f"got {multipliers}."
        )
    if config.width % 8:
        raise UserError(f"config.width must be a multiple of 8, got {config.width}.")
    if any(not 0 <= place < len(multipliers) for place in config.attention):
        raise UserError(
            f"config.attention must name resolutions from 0 to {len(multipliers) - 1}, "
            f"got {config.attention}."
        )
    return denoisers.unet(
        config.width, multipliers, config.num_blocks, attention=config.attention,
        dropout=config.dropout, fourier=config.fourier,
        learned_variance=config.variance == "learned",
    )  # fmt: skip


def _mlp(config: Any) -> denoisers.Denoiser:
    return denoisers.mlp(
        config.width, config.num_blocks, dropout=config.dropout, fourier=config.fourier,
        learned_variance=config.variance == "learned",
    )  # fmt: skip


NETWORKS = {"unet": _unet, "mlp": _mlp}


def _predictor(denoiser: denoisers.Denoiser, dropout: Any):
    return lambda params, x_t, gamma: denoiser.predict(params["network"], x_t, gamma, dropout)


def _init(denoiser: denoisers.Denoiser, shape: tuple[int, int, int], schedule: PyTree):
    return lambda key: {"network": denoiser.init(key, shape), "schedule": schedule}


def _ddpm(problem: Problem, config: Any, denoiser: denoisers.Denoiser) -> Model:
    if config.timesteps < 2:
        raise UserError(
            f"config.timesteps must be at least 2 with the schedule {config.schedule}, which is "
            f"of discrete time, got {config.timesteps}; vdm_linear takes 0 for continuous time."
        )
    if config.evaluation_timesteps not in (0, config.timesteps):
        raise UserError(
            "config.evaluation_timesteps must be 0, for config.timesteps: another number of steps "
            f"is another model; got {config.evaluation_timesteps}."
        )
    gamma = DISCRETE[config.schedule](config.timesteps)

    def make(params, dropout, timesteps):
        del params, timesteps
        return diffusion.ddpm(
            gamma, _predictor(denoiser, dropout), levels=problem.levels,
            prediction=config.prediction, variance=config.variance, decoder=config.decoder,
        )  # fmt: skip

    init = _init(denoiser, problem.shape, ())
    return Model(
        init, make, config.timesteps, config.timesteps, config.timesteps, False, problem.shape
    )


def _vdm(problem: Problem, config: Any, denoiser: denoisers.Denoiser) -> Model:
    if config.variance != "fixed_small":
        raise UserError(
            "config.variance must be fixed_small with a schedule of continuous time, where any "
            f"other has an infinite bound; got {config.variance}."
        )
    evaluation = config.evaluation_timesteps or config.timesteps
    if not evaluation:
        raise UserError(
            "config.evaluation_timesteps must be at least 1 where config.timesteps is 0 "
            "(continuous time): the bound and the samples take steps."
        )
    ends = {"gamma_min": config.gamma_min, "gamma_max": config.gamma_max}
    learned = config.schedule == "vdm_learned"
    start = bounds.init_monotone_gamma(SCHEDULE_UNITS) if learned else ()

    def make(params, dropout, timesteps):
        gamma = functools.partial(bounds.linear_gamma, **ends)
        if learned:
            gamma = functools.partial(bounds.monotone_gamma, params["schedule"], **ends)
        return diffusion.vdm(
            gamma, _predictor(denoiser, dropout), levels=problem.levels, num_steps=timesteps,
            prediction=config.prediction,
        )  # fmt: skip

    init = _init(denoiser, problem.shape, start)
    latents = config.timesteps + 1 if config.timesteps else 0
    return Model(init, make, config.timesteps, evaluation, latents, True, problem.shape)
