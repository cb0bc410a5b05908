"""From settings to what is trained: data, model, objective, optimiser."""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

import bounds
from experiments.data import batches, sets
from experiments.runtime import cluster, keys, results, settings
from experiments.runtime import mesh as meshes
from experiments.runtime.changes import differing_fields
from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.keys import Purpose
from experiments.runtime.trainer import Stream, from_objective
from experiments.studies import training
from experiments.studies.objectives import make_objective
from experiments.vae.settings import Trained, TrainedRun
from models import pixels
from models.vae import VAE, make_vae

LIKELIHOODS: dict[str, Callable[[int], pixels.PixelLikelihood]] = {
    "bernoulli": lambda levels: pixels.bernoulli(),
    "categorical": pixels.categorical,
    "discretized_logistic": pixels.discretized_logistic,
}


class Problem(NamedTuple):
    """Data and model of a training.

    Attributes:
      dataset: as uint8.
      vae: the model.
      prepare: (key, image) -> x, see `batches`.
    """

    dataset: sets.Dataset
    vae: VAE
    prepare: batches.Prepare


def make_problem(trained: Trained, data_dir: str) -> Problem:
    """Reads the data and builds the model.

    Raises:
      UserError: the data cannot be read.
    """
    return problem_of(sets.load(trained.data.name, data_dir), trained)


def problem_of(dataset: sets.Dataset, trained: Trained) -> Problem:
    """The model of a data set."""
    wanted = trained.model
    vae = make_vae(
        int(np.prod(dataset.train.shape[1:])),
        latents=wanted.latents,
        hidden=wanted.hidden,
        encoder_hidden=wanted.encoder_hidden,
        likelihood=LIKELIHOODS[wanted.likelihood](dataset.levels),
    )
    integers = wanted.likelihood != "bernoulli"
    prepare = batches.as_integers if integers else batches.binarize(dataset.levels)
    return Problem(dataset, vae, prepare)


def make_run(problem: Problem, trained: Trained, seed: int) -> Run:
    """What `fit` trains.

    Raises:
      UserError: the objective does not fit the model, or the batch is larger than the data.
    """

    def stream(key: Array) -> Stream:
        return batches.image_stream(
            problem.dataset.train,
            problem.prepare,
            key,
            batch_size=trained.training.batch_size,
            mesh=meshes.device_mesh(meshes.DATA),
            # The released code of Burda et al. goes through the images in one order.
            reshuffle=trained.optimizer.name != "released_code",
        )

    objective = make_objective(problem.vae.model, trained.objective, problem.vae.simulate)
    return training.make_run(
        keys.of_training(seed),
        trained.optimizer,
        trained.training,
        loss_fn=from_objective(objective, at_once=trained.objective.images_at_once),
        init=functools.partial(init_params, problem),
        stream=stream,
        validate=validation(problem, trained),
    )


@cluster.by_first
def run_of(field: str, folder: str) -> TrainedRun:
    """The settings of a run of experiments.train.

    Args:
      field: what named the folder, for the message.
      folder: its --workdir.

    Raises:
      UserError: the folder holds none.
    """
    path = os.path.join(folder, results.CONFIG)
    try:
        with open(path) as file:
            return TrainedRun.model_validate_json(file.read())
    except (OSError, ValueError):
        raise UserError(
            f"{path} cannot be read; {field} must be the --workdir of a run of experiments.train, "
            "by this version of it."
        ) from None


def named(run: TrainedRun) -> dict[str, Any]:
    """What tells a training from others, for its config.json and its checkpoints."""
    return settings.dump(run, TrainedRun)


def finished(folder: str, run: TrainedRun) -> bool:
    """Whether a folder holds the results of this very training, and not those of a shorter one."""
    wanted = named(run)
    try:
        found = results.load(folder)
        there = {field: found["config"][field] for field in wanted if field in found["config"]}
        return bool(found["rows"]) and not differing_fields(there, wanted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # experiments.train says what is wrong with it


def init_params(problem: Problem, key: Array) -> bounds.Params:
    """Fresh parameters; the decoder starts from the average training image."""
    images = problem.dataset.train.reshape(len(problem.dataset.train), -1)
    mean, deviation = images.mean(0, dtype=np.float64), images.std(0, dtype=np.float64)
    if problem.vae.likelihood.levels == 2:  # zeros and ones, drawn with these probabilities
        mean = mean / (problem.dataset.levels - 1)
    params = problem.vae.init(key, mean.astype(np.float32), deviation.astype(np.float32))
    # Flax makes them float32; under JAX_ENABLE_X64 everything computed from them is float64.
    return jax.tree.map(lambda leaf: leaf.astype(float), params)


BITS = {
    "validation": Purpose.VALIDATION_BITS,
    "test": Purpose.TEST_BITS,
    "train": Purpose.TRAIN_BITS,
}


def prepared(problem: Problem, split: str, binarization_seed: int) -> np.ndarray:
    """The images of a split, binarised once and for all where the model wants bits.

    The draw depends on `binarization_seed` alone, so that all models, whatever their own seed, are
    compared on the same images.
    """
    key = keys.key_for(binarization_seed, BITS[split])
    images = getattr(problem.dataset, split)
    return np.asarray(batches.prepare_all(problem.prepare, images, key))


def evaluation_key(trained: Trained) -> Array:
    """For the samples of an evaluation; shared by all models, and no key of `prepared`."""
    return keys.key_for(trained.data.binarization_seed, Purpose.EVALUATION_OF_BITS)


def validation(problem: Problem, trained: Trained) -> Callable[[bounds.Params], float] | None:
    """parameters -> IWAE with `validation_samples` samples on the validation images."""
    count = trained.training.validation_samples

    def value(params: bounds.Params, key: Array, x: Array) -> Array:
        return bounds.iwae(bounds.log_weights(problem.vae.model, params, key, x, num_samples=count))

    images = problem.dataset.validation
    if len(images):
        images = prepared(problem, "validation", trained.data.binarization_seed)
    return training.validation(value, images, evaluation_key(trained))
