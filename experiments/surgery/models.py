"""The models of a surgery: which there are, the training of those missing, their parameters."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from absl import logging

import bounds
from experiments.runtime import cluster, paths, settings, subprograms
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError
from experiments.surgery.settings import TWO_DIMENSIONS, Surgery
from experiments.vae import build, evaluation
from experiments.vae.settings import Train, TrainedRun


class Model(NamedTuple):
    """A run of experiments.train, there or to come.

    Attributes:
      name: in the record.
      folder: its --workdir.
      trained: the settings of its training.
      data_dir: where the files of its data lie.
      ours: the settings by which this program trains it where it is missing; None of a run that is
        there.
    """

    name: str
    folder: str
    trained: TrainedRun
    data_dir: str
    ours: Train | None


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


def models(surgery: Surgery, workdir: str) -> list[Model]:
    """The models that are asked for, checked; nothing is trained or written.

    Raises:
      UserError: a folder, or a setting of a training, makes no sense.
    """
    out = [
        _to_train(name, changes, surgery, workdir, f"--config.models.{name}")
        for name, changes in surgery.models.items()
    ]
    for name, folder in surgery.runs.items():
        folder = paths.local(f"--config.runs.{name}", folder)
        trained = build.run_of(f"--config.runs.{name}", folder)
        model = Model(name, folder, trained, surgery.data_dir or trained.data_dir, None)
        with _checkpoints(model) as checkpoints:
            steps = checkpoints.steps()
            if not steps:
                raise UserError(f"no checkpoint in {checkpoints.directory}; train first.")
            if surgery.checkpoint.isdecimal() and int(surgery.checkpoint) not in steps:
                raise UserError(
                    f"--config.checkpoint must be best, latest or a step of {name}, one of "
                    f"{', '.join(map(str, steps))}, got {surgery.checkpoint}."
                )
        if not _finished(model):
            raise UserError(
                f"{folder} holds no finished training; run experiments.train there again, with "
                "the same command."
            )
        out.append(model)
    for model in out:
        _check(model, surgery, member=surgery.member, checkpoint=surgery.checkpoint)
    return out


def plane_model(surgery: Surgery, workdir: str) -> Model | None:
    """The model with two latent dimensions; None where `picture.model` is empty.

    Raises:
      UserError: it has another number of dimensions, or its settings make no sense.
    """
    if not surgery.picture.model:
        return None
    where = "--config.picture.model"
    model = _to_train(TWO_DIMENSIONS, surgery.picture.model, surgery, workdir, where)
    if model.trained.model.latents != (2,):
        raise UserError(
            f"{where}.model.latents must be (2,), a plane to draw, got "
            f"{model.trained.model.latents}."
        )
    _check(model, surgery, member=-1, checkpoint="best")
    return model


def train(model: Model) -> None:
    """Trains a model of this program unless that is done."""
    if model.ours is None or _finished(model):
        return
    from experiments import train as program

    subprograms.run(f"Training {model.name}", program.main, model.ours, model.folder)


def load(models: list[Model], *, checkpoint: str, member: int) -> list[Loaded]:
    """The parameters of trained models, and of all their checkpoints.

    Models of one architecture share their `Problem`: what is compiled for one serves all.
    """
    problems: dict[str, build.Problem] = {}
    out = []
    for model in models:
        kind = f"{model.trained.data.name} {model.data_dir} {model.trained.model!r}"
        if kind not in problems:
            problems[kind] = build.make_problem(model.trained, model.data_dir)
        out.append(_load(model, problems[kind], checkpoint, member))
    return out


def _load(model: Model, problem: build.Problem, checkpoint: str, member: int) -> Loaded:
    directory = _directory(model)

    def at(step: str) -> tuple[bounds.Params, dict[str, Any]]:
        return evaluation.load_params(
            problem, model.trained, directory, checkpoint=step, member=member
        )

    params, source = at(checkpoint)
    with _checkpoints(model) as checkpoints:
        steps = checkpoints.steps()
    seed = model.trained.seeds[0] if member == -1 else member
    start = build.make_run(problem, model.trained, seed)
    return Loaded(
        model.name, problem, params, start.init(), source,
        {step: lambda step=step: at(str(step))[0] for step in steps},
    )  # fmt: skip


def _to_train(
    name: str, changes: Mapping[str, Any], surgery: Surgery, workdir: str, where: str
) -> Model:
    if surgery.data_dir:
        changes = {**changes, "data_dir": surgery.data_dir}
    ours = settings.parse(Train, subprograms.load_config(surgery.training, changes), where)
    return Model(name, os.path.join(workdir, name), ours, ours.data_dir, ours)


def _check(model: Model, surgery: Surgery, *, member: int, checkpoint: str) -> None:
    """Refuses a model that cannot be trained or taken apart."""
    trained, seeds = model.trained, model.trained.seeds
    if len(trained.model.latents) != 1:
        raise UserError(
            f"{model.name} has {len(trained.model.latents)} stochastic layers; experiments.surgery "
            "takes apart models with one."
        )
    if member not in seeds and not (len(seeds) == 1 and member == -1):
        raise UserError(
            f"--config.member must be a seed of {model.name}, one of "
            f"{', '.join(map(str, seeds))}, got {member}."
        )
    if model.ours is not None and checkpoint.isdecimal():
        step, last = int(checkpoint), trained.training.num_steps
        if not 0 < step <= last or (step % model.ours.records.save_every and step != last):
            raise UserError(f"--config.checkpoint={step} is no step that {model.name} saves.")
    problem = build.make_problem(trained, model.data_dir)
    build.make_run(problem, trained, seeds[0])
    wanted = surgery.decomposition
    count = min(wanted.num_images or len(problem.dataset.train), len(problem.dataset.train))
    if wanted.batch_size > count:
        raise UserError(
            "--config.decomposition.batch_size must be at most the number of training images, "
            f"{count}, got {wanted.batch_size}."
        )
    if not len(problem.dataset.test):
        raise UserError(f"{problem.dataset.name} has no test images.")


def _finished(model: Model) -> bool:
    """Whether the folder holds the results of this very training, and its checkpoints."""
    done = build.finished(model.folder, model.trained)
    directory = _directory(model)
    done = done and ("://" in directory or cluster.on_first(lambda: os.path.isdir(directory)))
    if done:
        logging.info("%s: trained already, in %s.", model.name, model.folder)
    return done


def _directory(model: Model) -> str:
    """Of its checkpoints; those of a run that is there lie in its folder."""
    own = os.path.join(model.folder, "checkpoints")
    return own if model.ours is None else cluster.checkpoints_of(model.folder)


def _checkpoints(model: Model) -> Checkpoints:
    return Checkpoints(_directory(model), build.named(model.trained), read_only=True)
