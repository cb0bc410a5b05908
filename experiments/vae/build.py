"""From a config to what is trained: data, model, objective, optimiser."""

import functools
import json
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

import bounds
from experiments.data import batches, sets
from experiments.runtime import checks, results
from experiments.runtime import mesh as meshes
from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.optimizers import BURDA_EPOCHS, make_optimizer
from experiments.runtime.trainer import from_objective
from experiments.studies import held_out
from models import pixels
from models.vae import VAE, make_vae

LIKELIHOODS: dict[str, Callable[[int], pixels.PixelLikelihood]] = {
    "bernoulli": lambda levels: pixels.bernoulli(),
    "categorical": pixels.categorical,
    "discretized_logistic": pixels.discretized_logistic,
}


def _pathwise(bound: Callable) -> Callable[[bounds.LatentModel, Any], bounds.Objective]:
    return lambda model, c: bounds.pathwise(model, num_samples=c.num_samples, bound=bound)


# K is config.num_samples, M config.num_groups.
OBJECTIVES: dict[str, Callable[[bounds.LatentModel, Any], bounds.Objective]] = {
    "elbo": _pathwise(bounds.elbo),
    "iwae": _pathwise(bounds.iwae),
    "ciwae": lambda model, c: _pathwise(functools.partial(bounds.ciwae, beta=c.beta))(model, c),
    "renyi": lambda model, c: _pathwise(functools.partial(bounds.renyi, alpha=c.alpha))(model, c),
    "miwae": lambda model, c: bounds.miwae(
        model, num_groups=c.num_groups, num_samples=c.num_samples
    ),
    "piwae": lambda model, c: bounds.piwae(
        model, num_groups=c.num_groups, num_samples=c.num_samples
    ),
    "stl": lambda model, c: bounds.stl(model, num_samples=c.num_samples),
    "dreg": lambda model, c: bounds.dreg(model, num_samples=c.num_samples),
    "vimco": lambda model, c: bounds.vimco(model, num_samples=c.num_samples),
    "reinforce": lambda model, c: bounds.reinforce(model, num_samples=c.num_samples),
    "rws": lambda model, c: bounds.rws(model, num_samples=c.num_samples),
}


class Problem(NamedTuple):
    """Data and model of a config.

    Attributes:
      dataset: as uint8.
      vae: the model.
      prepare: (key, image) -> x, see `batches`.
    """

    dataset: sets.Dataset
    vae: VAE
    prepare: batches.Prepare


def make_problem(config: Any) -> Problem:
    """Reads the data and builds the model.

    Raises:
      UserError: the data cannot be read, or a name or a size in the config is wrong.
    """
    checks.whole(config, 1, "validation_samples", "batch_size")
    checks.whole(config, 0, "num_steps")
    checks.seeds("binarization_seed", [config.binarization_seed])
    if config.likelihood not in LIKELIHOODS:
        raise UserError(
            f"config.likelihood must be one of {', '.join(LIKELIHOODS)}, got {config.likelihood!r}."
        )
    dataset = sets.load(config.dataset, config.data_dir)
    likelihood = LIKELIHOODS[config.likelihood](dataset.levels)
    integers = config.likelihood != "bernoulli"
    prepare = batches.as_integers if integers else batches.binarize(dataset.levels)
    if not _are_sizes(config.latents) or not (
        isinstance(config.hidden, tuple | list) and all(map(_are_sizes, config.hidden))
    ):
        raise UserError(
            f"config.latents and config.hidden must hold whole numbers of at most {checks.WIDTH}, "
            f"e.g. (50,) and ((200, 200),), got {config.latents} and {config.hidden}."
        )
    num_pixels = int(np.prod(dataset.train.shape[1:]))
    try:
        vae = make_vae(
            num_pixels, latents=config.latents, hidden=config.hidden, likelihood=likelihood
        )
    except ValueError as error:
        raise UserError(f"config.latents and config.hidden: {error}") from None
    return Problem(dataset, vae, prepare)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple | list) and all(
        checks.is_whole(value) and value <= checks.WIDTH for value in values
    )


def make_objective(
    model: bounds.LatentModel, config: Any, simulate: Callable | None = None
) -> bounds.Objective:
    """The objective of a config; what `bounds` refuses is a UserError.

    Args:
      model: its latent-variable model.
      config: of the run.
      simulate: (theta, key) -> (x, z), for rws where `config.sleep` asks for that phase.

    Raises:
      UserError: `bounds` refuses it, or the sleep phase is asked for and cannot be simulated.
    """
    if config.objective not in OBJECTIVES:
        raise UserError(
            f"config.objective must be one of {', '.join(OBJECTIVES)}, got {config.objective!r}."
        )
    if config.objective == "ciwae" and not (
        checks.is_number(config.beta) and 0 <= config.beta <= 1
    ):
        raise UserError(f"config.beta must be in [0, 1], got {config.beta!r}.")
    # Of any order from 0 on VR-IWAE is a power mean below that of IWAE; below 0 it may lie above.
    if config.objective == "renyi" and not (
        checks.is_number(config.alpha) and 0 <= config.alpha < math.inf
    ):
        raise UserError(
            "config.alpha must be a finite number of at least 0, or there is no bound, "
            f"got {config.alpha!r}."
        )
    try:
        if config.objective == "rws" and config.sleep:
            if simulate is None:
                raise UserError("config.sleep must be False: this model has no sleep phase.")
            return bounds.rws(model, num_samples=config.num_samples, simulate=simulate)
        return OBJECTIVES[config.objective](model, config)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.objective={config.objective}: {error}") from None


def make_run(problem: Problem, config: Any) -> Run:
    """What `fit` trains.

    Raises:
      UserError: the objective, the optimiser, a size or the seed in the config is wrong.
    """
    checks.seeds("seed", [config.seed])
    init_key, order_key, key = jax.random.split(jax.random.key(config.seed), 3)
    dataset, vae = problem.dataset, problem.vae
    stream = batches.image_stream(
        dataset.train,
        problem.prepare,
        order_key,
        batch_size=config.batch_size,
        mesh=meshes.device_mesh(meshes.DATA),
        # The released code of Burda et al. goes through the images in one order.
        reshuffle=config.optimizer != "released_code",
    )
    return Run(
        loss_fn=from_objective(make_objective(vae.model, config, vae.simulate)),
        init=lambda: init_params(problem, init_key),
        stream=stream,
        optimizer=make_optimizer(config, stream.steps_per_epoch),
        key=key,
        num_steps=num_steps(config, stream.steps_per_epoch),
        validate=validation(problem, config),
        batch_size=config.batch_size,
    )


def num_steps(config: Any, steps_per_epoch: int) -> int:
    """`config.num_steps`, or that of Burda's 3,280 epochs where it is 0 under their protocol."""
    if config.num_steps > 0:
        return config.num_steps
    if config.num_steps == 0 and config.optimizer in ("paper", "released_code"):
        return BURDA_EPOCHS * steps_per_epoch
    raise UserError(f"config.num_steps must be at least 1, got {config.num_steps}.")


def config_of_run(field: str, folder: str) -> ConfigDict:
    """The config of a run of experiments.train.

    Args:
      field: what named the folder, for the message.
      folder: its --workdir.

    Raises:
      UserError: the folder holds none.
    """
    path = os.path.join(folder, results.CONFIG)
    try:
        with open(path) as file:
            found = json.load(file)
        needed = {"dataset", "objective", "optimizer", "likelihood"}
        if not isinstance(found, dict) or not needed <= set(found):
            raise ValueError
        return ConfigDict(found)
    except (OSError, ValueError, TypeError):
        raise UserError(
            f"{path} cannot be read; {field} must be the --workdir of a run of experiments.train."
        ) from None


def init_params(problem: Problem, key: Array) -> bounds.Params:
    """Fresh parameters; the decoder starts from the average training image."""
    images = problem.dataset.train.reshape(len(problem.dataset.train), -1)
    mean, deviation = images.mean(0, dtype=np.float64), images.std(0, dtype=np.float64)
    if problem.vae.likelihood.levels == 2:  # zeros and ones, drawn with these probabilities
        mean = mean / (problem.dataset.levels - 1)
    params = problem.vae.init(key, mean.astype(np.float32), deviation.astype(np.float32))
    # Flax makes them float32; under JAX_ENABLE_X64 everything computed from them is float64.
    return jax.tree.map(lambda leaf: leaf.astype(float), params)


def prepared(problem: Problem, split: str, config: Any) -> np.ndarray:
    """The images of a split, binarised once and for all where the model wants bits.

    The draw depends on `config.binarization_seed` alone, so that all models, whatever their own
    seed, are compared on the same images.
    """
    images = getattr(problem.dataset, split)
    key = jax.random.fold_in(
        jax.random.key(config.binarization_seed), {"validation": 0, "test": 1, "train": 2}[split]
    )
    return np.asarray(batches.prepare_all(problem.prepare, images, key))


def evaluation_key(config: Any) -> Array:
    """For the samples of an evaluation; shared by all models, and no key of `prepared`."""
    # Counted from the far end: images take small numbers of the same seed.
    return jax.random.fold_in(jax.random.key(config.binarization_seed), 2**32 - 1)


def validation(problem: Problem, config: Any) -> Callable[[bounds.Params], float] | None:
    """parameters -> IWAE with `config.validation_samples` samples on the validation images."""
    if not len(problem.dataset.validation):
        return None
    x = prepared(problem, "validation", config)
    return held_out.mean_value(
        lambda params, key, x: bounds.iwae(
            bounds.log_weights(
                problem.vae.model, params, key, x, num_samples=config.validation_samples
            )
        ),
        x,
        jax.random.split(evaluation_key(config), len(x)),
    )
