"""The models of a surgery: which there are, their training where it is missing, their encoders."""

import functools
import json
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

import bounds
from experiments.runtime import checks, fit, paths, results, subprograms
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError, differing_fields
from experiments.studies import held_out
from experiments.vae import build, evaluation, report
from models.vae import VAE

TWO_DIMENSIONS = "two_dimensions"  # folder of the model whose posteriors are drawn
_ARCHITECTURE = ("dataset", "data_dir", "likelihood", "latents", "hidden")
_PURPOSES = (
    "decomposition", "minibatches", "training curve", "test images", "gap", "two dimensions",
)  # fmt: skip


class Model(NamedTuple):
    """A run of experiments.train, there or to come.

    Attributes:
      name: in the record.
      folder: its --workdir.
      trained: the config of its training.
      ours: whether this program trains it where it is missing.
    """

    name: str
    folder: str
    trained: ConfigDict
    ours: bool


class Loaded(NamedTuple):
    """A trained model with what the parts need.

    Attributes:
      name: in the record.
      problem: its data and VAE.
      params: those of the checkpoint that is evaluated.
      initial: those before the first step.
      source: step, weights and checksum of the checkpoint.
      at_step: step -> parameters, of every checkpoint kept.
    """

    name: str
    problem: build.Problem
    params: bounds.Params
    initial: bounds.Params
    source: dict[str, Any]
    at_step: dict[int, Callable[[], bounds.Params]]


class DatumQ(NamedTuple):
    """q(z | x) of one datum, or of N: a diagonal Gaussian by its mean and log deviation, [D]."""

    mean: Any
    log_scale: Any


def models(config: Any, workdir: str) -> list[Model]:
    """The models a config asks for, checked; nothing is trained or written.

    Raises:
      UserError: a name, a folder, or a setting of a training makes no sense.
    """
    runs, changes = dict(config.runs.items()), dict(config.models.items())
    twice = sorted(runs.keys() & changes.keys())
    if twice:
        raise UserError(f"config.models and config.runs both have the name {twice[0]!r}.")
    if not runs and not changes:
        raise UserError("config.models and config.runs are empty; name at least one model.")
    out = []
    for name, change in changes.items():
        if not re.fullmatch(r"[\w+-]+", name) or name == TWO_DIMENSIONS:
            raise UserError(
                f"config.models has the name {name!r}; it is that of a folder as well, so use "
                f"letters, digits, _, + and - only, and not {TWO_DIMENSIONS}."
            )
        out.append(_to_train(name, change, config, workdir))
    for name, folder in runs.items():
        if name == TWO_DIMENSIONS:
            raise UserError(
                f"config.runs has the name {name!r}, which is kept for config.picture_model."
            )
        if not isinstance(folder, str):
            raise UserError(f"config.runs.{name} must be a folder, got {folder!r}.")
        folder = paths.local(f"config.runs.{name}", folder)
        model = Model(name, folder, build.config_of_run(f"config.runs.{name}", folder), ours=False)
        with _checkpoints(model) as checkpoints:
            steps = checkpoints.steps()
            if not steps:
                raise UserError(f"no checkpoint in {checkpoints.directory}; train first.")
            if config.checkpoint.isdecimal() and int(config.checkpoint) not in steps:
                raise UserError(
                    f"config.checkpoint must be best, latest or a step of {name}, one of "
                    f"{', '.join(map(str, steps))}, got {config.checkpoint}."
                )
        if not _finished(model):
            raise UserError(
                f"{folder} holds no finished training; run experiments.train there again, with "
                "the same command."
            )
        out.append(model)
    for model in out:
        _check(model, config)
    return out


def picture_model(config: Any, workdir: str) -> Model | None:
    """The model with two latent dimensions; None where `config.picture_model` is empty.

    Raises:
      UserError: it has another number of dimensions, or its settings make no sense.
    """
    if not config.picture_model:
        return None
    model = _to_train(TWO_DIMENSIONS, config.picture_model, config, workdir)
    latents: Any = model.trained.latents
    if tuple(latents) != (2,):
        raise UserError(
            f"config.picture_model must have latents=(2,), a plane to draw, got {tuple(latents)}."
        )
    _check(model, config)
    return model


def train(model: Model) -> None:
    """Trains a model of this program unless that is done."""
    if not model.ours or _finished(model):
        return
    from experiments import train as program

    subprograms.run(f"Training {model.name}", program.main, model.trained, model.folder)


def load(models: list[Model], config: Any) -> list[Loaded]:
    """The parameters of trained models, and of all their checkpoints.

    Models of one architecture share their `Problem`: what is compiled for one serves all.
    """
    problems: dict[str, build.Problem] = {}
    out = []
    for model in models:
        kind = json.dumps([model.trained[field] for field in _ARCHITECTURE])
        if kind not in problems:
            problems[kind] = build.make_problem(model.trained)
        out.append(_load(model, problems[kind], config))
    return out


def _load(model: Model, problem: build.Problem, config: Any) -> Loaded:
    directory = os.path.join(model.folder, "checkpoints")

    def at(step: str) -> tuple[bounds.Params, dict[str, Any]]:
        asked = ConfigDict({"checkpoint": step, "member": config.member})
        return evaluation.load_params(problem, model.trained, directory, asked)

    params, source = at(config.checkpoint)
    with _checkpoints(model) as checkpoints:
        steps = checkpoints.steps()
    seed = model.trained.seed if config.member == -1 else config.member
    start = build.make_run(problem, ConfigDict({**model.trained.to_dict(), "seed": seed}))
    return Loaded(
        model.name, problem, params, start.init(), source,
        {step: lambda step=step: at(str(step))[0] for step in steps},
    )  # fmt: skip


def images(problem: build.Problem, split: str, count: int, config: Any) -> np.ndarray:
    """The first `count` images of a split, 0 for all, binarised once for all models.

    Raises:
      UserError: there are none.
    """
    found = build.prepared(problem, split, config)
    if not len(found):
        raise UserError(f"{problem.dataset.name} has no {split} images.")
    return found[: count or None]


def key_for(config: Any, purpose: str) -> Array:
    """A key for one purpose; an image i takes fold_in(key, i), so no two may share theirs."""
    # Counted from the far end: training folds small numbers into the same seed.
    number = 2**32 - 1 - _PURPOSES.index(purpose)
    return jax.random.fold_in(jax.random.key(config.seed), number)


def encoded(vae: VAE, phi: PyTree, images: np.ndarray, config: Any) -> DatumQ:
    """q(z | x) of every image."""
    found = held_out.over_images(
        _encoder(vae), phi, images, jax.random.key(0), images_per_pass=10 * config.images_per_pass
    )
    return DatumQ(*found)


def posteriors(q: DatumQ) -> bounds.GaussianPosteriors:
    """The same with variances, whose mixture is the aggregated posterior."""
    variance: Any = np.exp(2 * q.log_scale)
    return bounds.GaussianPosteriors(q.mean, variance)


@functools.cache
def _encoder(vae: VAE):
    def one(phi, key, x, index):
        del key, index
        return vae.encode(phi, x)

    return held_out.compiled(one)


@functools.cache
def joint(vae: VAE) -> Callable[[PyTree, Array, Array], Array]:
    """(theta, x, z) -> log p(x, z), z [D] the only stochastic layer."""
    return lambda theta, x, z: vae.model.log_p(theta, x, (z,))


@functools.cache
def per_datum(log_p: Callable[[PyTree, Any, Array], Array]) -> bounds.LatentModel:
    """A model whose phi is the `DatumQ` of the one datum x, whatever encoder it came from."""

    def propose(phi, key, x):
        del x
        noise = jax.random.normal(key, phi.mean.shape, phi.mean.dtype)
        z = phi.mean + jnp.exp(phi.log_scale) * noise
        # log q(z) from the noise itself: the same number, and cheaper than through z.
        return z, bounds.gaussian_log_prob(noise, 0.0, 1.0) - jnp.sum(phi.log_scale)

    def log_q(phi, x, z):
        del x
        return bounds.gaussian_log_prob(z, phi.mean, jnp.exp(2 * phi.log_scale))

    return bounds.LatentModel(propose, log_q, log_p)


def _to_train(name: str, change: Any, config: Any, workdir: str) -> Model:
    if not isinstance(change, ConfigDict):
        raise UserError(f"config.models.{name} must hold fields of the training, got {change!r}.")
    trained = subprograms.load_config(config.training, change.to_dict())
    return Model(name, os.path.join(workdir, name), trained, ours=True)


def _check(model: Model, config: Any) -> None:
    """Points a model at its data; refuses one that cannot be trained or taken apart."""
    trained: Any = model.trained
    if config.data_dir:
        trained.data_dir = config.data_dir
    if len(trained.latents) != 1:
        raise UserError(
            f"{model.name} has {len(trained.latents)} stochastic layers; experiments.surgery takes "
            "apart models with one."
        )
    fit.check_config(trained)
    report.check_config(trained)
    problem = build.make_problem(trained)
    alone = checks.is_whole(trained.seed)
    seeds = [trained.seed] if alone else list(trained.seed)
    checks.seeds("seed", seeds)
    if config.member not in seeds and not (alone and config.member == -1):
        raise UserError(
            f"config.member must be a seed of {model.name}, one of {', '.join(map(str, seeds))}, "
            f"got {config.member}."
        )
    if model.ours and config.checkpoint.isdecimal():
        step, last = int(config.checkpoint), trained.num_steps
        if not 0 < step <= last or (step % trained.save_every and step != last):
            raise UserError(f"config.checkpoint={step} is no step that {model.name} saves.")
    build.make_objective(problem.vae.model, trained, problem.vae.simulate)
    count = config.train_images or len(problem.dataset.train)
    if not 2 <= config.batch <= min(count, len(problem.dataset.train)):
        raise UserError(
            f"config.batch must be from 2 to the number of training images, {count}, "
            f"got {config.batch}."
        )
    if not len(problem.dataset.test):
        raise UserError(f"{problem.dataset.name} has no test images.")


def _finished(model: Model) -> bool:
    """Whether the folder holds the results of this very training."""
    path = os.path.join(model.folder, results.FILE)
    if not os.path.exists(path):
        return False
    try:
        with open(path) as file:
            found = json.load(file)
        wanted = json.loads(model.trained.to_json_best_effort())
        done = bool(found["rows"]) and not differing_fields(found["config"], wanted)
        done = done and os.path.isdir(os.path.join(model.folder, "checkpoints"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # experiments.train says what is wrong with it
    if done:
        logging.info("%s: trained already, in %s.", model.name, model.folder)
    return done


def _checkpoints(model: Model) -> Checkpoints:
    directory = os.path.join(model.folder, "checkpoints")
    return Checkpoints(directory, model.trained.to_dict(), read_only=True)
