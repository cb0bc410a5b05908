"""What is audited: a trained model of any program, how to simulate from it, and its claims."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

import bounds
from experiments.audit.settings import Audit
from experiments.dalle import family as dalle_family
from experiments.dalle import training as dalle_training
from experiments.dalle.settings import Trained as TrainedDalle
from experiments.dequantize import family as dequantize_family
from experiments.dequantize import training as dequantize_training
from experiments.dequantize.settings import Trained as TrainedDequantize
from experiments.diffusion import family as diffusion_family
from experiments.diffusion import training as diffusion_training
from experiments.diffusion.settings import Trained as TrainedDiffusion
from experiments.masked import family as masked_family
from experiments.masked import training as masked_training
from experiments.masked.settings import Trained as TrainedMasked
from experiments.runtime import paths, results, settings
from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.settings import Section
from experiments.studies import stored, study
from experiments.studies.ensemble import ensemble, member
from experiments.studies.program import Parts
from experiments.studies.study import Point
from experiments.studies.training import identity
from experiments.vae import build as vae_build
from experiments.vae import evaluation as vae_evaluation
from models.diffusion import reverse_chain
from models.masked_tokens import reveal_in

Claimed = Callable[[Any, PyTree], Array]


class Subject(NamedTuple):
    """A trained model of the images of a run.

    Attributes:
      name: of the model.
      source: step, weights and checksum of its checkpoint.
      model: with the latent in which it is trained; None of a density that is exact without one.
      params: its parameters.
      simulate: (theta, key) -> (x, z); of an exact density (x, log P(x)).
      claims: name -> (key, x) -> the bound as its program computes it, beside that of log-weights.
    """

    name: str
    source: dict[str, Any]
    model: bounds.LatentModel | None
    params: bounds.Params
    simulate: Callable[[PyTree, Any], Any]
    claims: dict[str, Claimed]


def load(asked: Audit) -> Subject:
    """The model of a run.

    Raises:
      UserError: the folder holds no run that can be audited, or not that model.
    """
    if not asked.run:
        raise UserError(
            "--config.run is empty; name the --workdir of a run of experiments.train, "
            f"{' or '.join(STUDIES)}."
        )
    folder = paths.local("--config.run", asked.run)
    if os.path.exists(os.path.join(folder, results.CONFIG)):
        return _vae(asked, folder)
    try:
        record = results.load(folder)
        program, config = record["experiment"], record["config"]
    except (OSError, ValueError, KeyError, TypeError):
        program, config = "", {}
    if program not in STUDIES:
        raise UserError(
            f"{folder} holds no run of experiments.train, {' or '.join(STUDIES)}; --config.run "
            "must be the --workdir of one."
        )
    return STUDIES[program](asked, folder, config)


def _vae(asked: Audit, folder: str) -> Subject:
    if asked.model:
        raise UserError(
            f"--config.model={asked.model} is a name in a study, and {folder} a run of one model; "
            "leave it empty."
        )
    trained = vae_build.run_of("--config.run", folder)
    problem = vae_build.make_problem(trained, asked.data_dir or trained.data_dir)
    directory = os.path.join(folder, "checkpoints")
    seed = asked.member if asked.member >= 0 else trained.seeds[0]
    params, source = vae_evaluation.load_params(
        problem, trained, directory, checkpoint=asked.checkpoint, member=seed
    )
    return Subject("VAE", source, problem.vae.model, params, problem.vae.simulate, {})


class _Chosen(NamedTuple):
    """A point of a study that has been trained, of which one model is audited."""

    prepared: Any
    name: str
    point: Point
    seed: int
    folder: str
    checkpoint: str

    def trained(self, model: Any, make_run: Callable[..., Run], kind: type[Section]):
        """(parameters, source) of a model that is trained in one stage, by all its seeds' runs."""
        own, seeds = self.prepared.trained[self.name], self.point.seeds
        runs = [make_run(self.prepared.data, model, own, seed) for seed in seeds]
        return self.restore(runs, identity(own, kind, seeds))

    def restore(self, runs: list[Any], named: dict[str, Any], stage: str = "") -> Any:
        """(parameters of the model, what tells them from others)."""
        run = runs[0] if len(runs) == 1 else ensemble(runs)
        directory = os.path.join(self.folder, stage, "checkpoints")
        params, source = stored.restore(run, named, directory, checkpoint=self.checkpoint)
        number = self.point.seeds.index(self.seed)
        return params if len(runs) == 1 else member(params, number), source


def _chosen(parts: Parts, asked: Audit, folder: str, config: dict[str, Any]) -> _Chosen:
    more = {"data_dir": asked.data_dir} if asked.data_dir else {}
    wanted = settings.parse(parts.settings, {**config, **more}, "--config.run")
    name = asked.model or next(iter(wanted.models))
    if name not in wanted.models:
        raise UserError(
            f"--config.model must be one of {', '.join(wanted.models)}, got {asked.model}."
        )
    seed = asked.member if asked.member >= 0 else wanted.seeds[0]
    points = [p for p in study.points(wanted) if p.name == name and seed in p.seeds]
    if not points:
        raise UserError(
            "--config.member must be a seed of this run, one of "
            f"{', '.join(map(str, wanted.seeds))}, got {seed}."
        )
    inside = os.path.join(folder, points[0].label)
    return _Chosen(parts.check(wanted), name, points[0], seed, inside, asked.checkpoint)


def _dequantize(asked: Audit, folder: str, config: dict[str, Any]) -> Subject:
    chosen = _chosen(dequantize_family.PARTS, asked, folder, config)
    model = chosen.prepared.models[chosen.name].trained
    found, source = chosen.trained(model, dequantize_training.make_run, TrainedDequantize)
    params, density = bounds.Params(*found), model.density
    if density.simulate_cell is not None:
        return Subject(chosen.name, source, model.latent(), params, density.simulate_cell, {})

    def simulate(theta, key):
        x = density.simulate(theta, key)
        return x, density.log_prob(theta, x)

    def exact(key, x):
        return density.log_prob(params.theta, x)

    def of_noise(key, x):
        log_w = bounds.log_weights(model.latent(), params, key, x, num_samples=num_samples)
        return bounds.iwae(log_w)

    claims: dict[str, Claimed] = {"exact log P": exact}
    num_samples = asked.checks.num_samples
    if density.log_density is not None:
        claims[f"IWAE-{num_samples} of its noise"] = of_noise
    return Subject(chosen.name, source, None, params, simulate, claims)


def _diffusion(asked: Audit, folder: str, config: dict[str, Any]) -> Subject:
    chosen = _chosen(diffusion_family.PARTS, asked, folder, config)
    model = chosen.prepared.models[chosen.name]
    theta, source = chosen.trained(model, diffusion_training.make_run, TrainedDiffusion)
    if not model.evaluation_timesteps:
        raise UserError(
            f"{chosen.name} is evaluated in continuous time, which has no trajectory to simulate; "
            "audit a model with chain.evaluation_timesteps."
        )
    made = model.evaluated(theta)
    steps = jnp.asarray(made.model.gamma).size

    def simulate(theta, key):
        first, second = jax.random.split(key)
        chain = reverse_chain(made.model, theta, first, model.shape, kept=steps)
        return made.sample(theta, second, chain[-1]), chain[::-1]

    def by_terms(key, x):
        return bounds.diffusion.bound(bounds.diffusion.terms(made.model, theta, key, x))

    # Of the activations that gradients need, those of one step at a time; all take gigabytes.
    denoise = jax.checkpoint(made.model.denoise, prevent_cse=False)
    latent = bounds.diffusion.trajectory(made.model._replace(denoise=denoise))
    params = bounds.Params(theta, ())
    return Subject(chosen.name, source, latent, params, simulate, {"bound by its terms": by_terms})


def _dalle(asked: Audit, folder: str, config: dict[str, Any]) -> Subject:
    chosen = _chosen(dalle_family.PARTS, asked, folder, config)
    data, own = chosen.prepared.data, chosen.prepared.trained[chosen.name]
    model, seeds = chosen.prepared.models[chosen.name], chosen.point.seeds
    start = jax.eval_shape(model.init, jax.random.key(0))
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), start)
    # The state of the second stage has the parameters of both.
    runs = [dalle_training.make_prior_run(data, model, own, seed, start) for seed in seeds]
    named = identity(own, TrainedDalle, seeds)
    found, source = chosen.restore(runs, named, "prior")
    params, dvae = bounds.Params(*found), model.dvae

    def simulate(theta, key):
        text, tokens, pixels = jax.random.split(key, 3)
        y = model.prior.draw_text(theta["prior"], text)
        z = model.prior.draw_image(theta["prior"], tokens, y)
        outputs = dvae.decode(theta["decoder"], jax.nn.one_hot(z, dvae.num_codes))
        return (dvae.likelihood.sample(pixels, outputs).reshape(data.problem.shape), y), z

    def by_terms(key, datum):
        return bounds.joint.bound(bounds.joint.terms(model.joint, params, key, datum))

    latent = bounds.joint.latent(model.joint)
    return Subject(chosen.name, source, latent, params, simulate, {"bound by its terms": by_terms})


def _masked(asked: Audit, folder: str, config: dict[str, Any]) -> Subject:
    chosen = _chosen(masked_family.PARTS, asked, folder, config)
    model = chosen.prepared.models[chosen.name]
    theta, source = chosen.trained(model, masked_training.make_run, TrainedMasked)
    made = model.made()
    # Of the activations that gradients need, those of one evaluation at a time.
    made = made._replace(predict=jax.checkpoint(made.predict, prevent_cse=False))

    def simulate(theta, key):
        first, second = jax.random.split(key)
        order = jax.random.permutation(first, made.length)
        nothing = jnp.full(made.length, made.levels)
        return reveal_in(order, made, theta, second, nothing), order

    def by_every_count(key, x):
        return masked_training.elbo_by_counts(made, theta, key, x, made.length)

    return Subject(
        chosen.name, source, bounds.masked.any_order(made), bounds.Params(theta, ()), simulate,
        {"ELBO by every count": by_every_count},
    )  # fmt: skip


STUDIES = {
    "dequantize": _dequantize, "diffusion": _diffusion, "masked": _masked, "dalle": _dalle,
}  # fmt: skip
