"""The models that are asked about: toys, models of images after a short training, a trained VAE."""

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

import bounds
from experiments.advise.settings import Advise, Training
from experiments.data import batches, sets
from experiments.runtime import keys, paths
from experiments.runtime.errors import UserError
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.mesh import DATA, device_mesh
from experiments.runtime.trainer import Stream, from_objective, init_state, train
from experiments.vae import build as vae_build
from experiments.vae import evaluation as vae_evaluation
from models import pixels
from models.exact import linear_gaussian
from models.vae import PixelNet, make_vae

OF_RUN = "VAE of a run"
NUM_DIMS, NUM_DATA = 20, 1024  # of the toy of Rainforth et al.
PERTURBATIONS = {"Gaussian, near": 0.01, "Gaussian, far": 0.5}
BITS = (20, (100,))  # of z, and the widths of the perceptrons
SIZES: dict[str, Any] = {
    "VAE": {"latents": (20,), "hidden": ((100, 100),)},
    "two-layer VAE": {"latents": (20, 10), "hidden": ((100, 100), (50, 50))},
}


class Images(NamedTuple):
    """A model of images.

    Attributes:
      model: of one image, as `prepare` makes it.
      init: key -> parameters.
      prepare: (key, one image as uint8) -> x.
      plain: K -> the objective of IWAE-K that is usual for the model.
      dataset: the images.
      logits: of q, as `bounds.disarm` takes them, where z is independent bits.
    """

    model: bounds.LatentModel
    init: Callable[[Array], bounds.Params]
    prepare: Callable[[Array, Array], Any]
    plain: Callable[[int], bounds.Objective]
    dataset: sets.Dataset
    logits: Callable[[PyTree, PyTree], PyTree] | None = None


class Subject(NamedTuple):
    """What `bounds.advise` is asked about, and the images where it is a model of some."""

    model: bounds.LatentModel
    params: bounds.Params
    x: PyTree
    images: Images | None = None


def of(asked: Advise) -> dict[str, Callable[[], Subject]]:
    """Name -> what makes it; everything that may be refused is, before anything is trained.

    Raises:
      UserError: data or a run cannot be read, or do not fit a model.
    """
    if asked.run:
        return {OF_RUN: _of_run(asked)}
    made: dict[str, Callable[[], Subject]] = {}
    for name in asked.models:
        if name in PERTURBATIONS:
            made[name] = functools.partial(_gaussian, asked, PERTURBATIONS[name])
        elif name == "NumPyro":
            made[name] = functools.partial(_numpyro, asked)
        else:
            # Trained once, whatever is asked of it.
            made[name] = functools.cache(functools.partial(_trained, asked, images(asked, name)))
    return made


def images(asked: Advise, name: str) -> Images:
    """A model of images by its name."""
    dataset = sets.load(asked.data.name, asked.data_dir)
    if len(dataset.train) < max(asked.training.batch_size, asked.advice.num_data):
        raise UserError(
            f"--config.training.batch_size and --config.advice.num_data must be at most "
            f"{len(dataset.train)}, the training images of {dataset.name}."
        )
    return _dvae(dataset) if name == "dVAE" else _vae(dataset, **SIZES[name])


def fitted(
    of_images: Images,
    objective: bounds.Objective,
    training: Training,
    seed: int,
    num_steps: int,
    on_chunk: Callable[..., None] = lambda state, metrics: None,
) -> bounds.Params:
    """Parameters after so many steps, the last of them.

    `on_chunk` is called every 50 steps, see `trainer.train`.
    """
    mesh = device_mesh(DATA, devices=jax.local_devices()[:1])
    start, order, steps = keys.of_training(seed)
    optimizer = optax.adam(training.learning_rate)
    stream: Stream = batches.image_stream(
        of_images.dataset.train, of_images.prepare, order, batch_size=training.batch_size, mesh=mesh
    )
    state = train(
        from_objective(objective, mesh),
        init_state(of_images.init(start), optimizer),
        stream,
        optimizer,
        steps,
        num_steps=num_steps,
        steps_per_chunk=50,
        mesh=mesh,
        on_chunk=on_chunk,
    )
    return jax.device_get(state.params)


def _gaussian(asked: Advise, perturbation: float) -> Subject:
    data = linear_gaussian.generate(
        key_for(asked.seed, Purpose.ADVICE_DATA), max(NUM_DATA, asked.advice.num_data), NUM_DIMS
    )
    params = linear_gaussian.perturb(
        linear_gaussian.optimum(data), key_for(asked.seed, Purpose.ADVICE_START), perturbation
    )
    return Subject(linear_gaussian.make_model(), params, data[: asked.advice.num_data])


def _vae(dataset: sets.Dataset, **sizes: Any) -> Images:
    intensities = dataset.train.reshape(len(dataset.train), -1) / (dataset.levels - 1)
    vae = make_vae(intensities.shape[1], **sizes)
    mean = intensities.mean(0).astype(np.float32)
    return Images(
        vae.model,
        lambda key: vae.init(key, mean),
        batches.binarize(dataset.levels),
        lambda k: bounds.pathwise(vae.model, num_samples=k),
        dataset,
    )


def _dvae(dataset: sets.Dataset) -> Images:
    """A discrete VAE: independent bits in q, fair coins a priori, perceptrons between."""
    intensities = dataset.train.reshape(len(dataset.train), -1) / (dataset.levels - 1)
    num_pixels, num_bits, widths = intensities.shape[1], *BITS
    encoder, decoder = PixelNet(widths, num_bits), PixelNet(widths, num_pixels)

    def log_prob(logits, value):
        return jnp.sum(bounds.densities.bernoulli_log_prob(logits, value))

    def logits(phi, x):
        found: Any = encoder.apply(phi, x)
        return found[:, 0]

    def propose(phi, key, x):
        z = jax.random.bernoulli(key, jax.nn.sigmoid(logits(phi, x))).astype(jnp.int32)
        return z, log_prob(logits(phi, x), z)

    def log_p(theta, x, z):
        pixels: Any = decoder.apply(theta, z.astype(jnp.float32))
        return log_prob(jnp.zeros(num_bits), z) + log_prob(pixels[:, 0], x)

    def init(key):
        first, second = jax.random.split(key)
        theta: Any = decoder.init(first, jnp.zeros(num_bits))
        mean = jnp.asarray(intensities.mean(0), jnp.float32)[:, None]
        theta["params"]["outputs"]["bias"] = pixels.bernoulli().bias(mean, mean).reshape(-1)
        return bounds.Params(theta, encoder.init(second, jnp.zeros(num_pixels)))

    model = bounds.LatentModel(propose, lambda phi, x, z: log_prob(logits(phi, x), z), log_p)
    return Images(
        model,
        init,
        batches.binarize(dataset.levels),
        lambda k: bounds.vimco(model, num_samples=k),
        dataset,
        logits,
    )


def _trained(asked: Advise, of_images: Images) -> Subject:
    """After a short training by the plain estimator, as one asks in the middle of a training."""
    objective = of_images.plain(4)
    params = fitted(of_images, objective, asked.training, asked.seed, asked.training.num_steps)
    return Subject(of_images.model, params, _batch(asked, of_images), of_images)


def _batch(asked: Advise, of_images: Images) -> PyTree:
    chosen = of_images.dataset.train[: asked.advice.num_data]
    return batches.prepare_all(of_images.prepare, chosen, key_for(asked.seed, Purpose.ADVICE_DATA))


def _of_run(asked: Advise) -> Callable[[], Subject]:
    folder = paths.local("--config.run", asked.run)
    trained = vae_build.run_of("--config.run", folder)
    problem = vae_build.make_problem(trained, asked.data_dir or trained.data_dir)
    params, _ = vae_evaluation.load_params(
        problem,
        trained,
        os.path.join(folder, "checkpoints"),
        checkpoint=asked.checkpoint,
        member=asked.member,
    )
    model = problem.vae.model
    of_images = Images(
        model,
        functools.partial(vae_build.init_params, problem),
        problem.prepare,
        lambda k: bounds.pathwise(model, num_samples=k),
        problem.dataset,
    )
    return lambda: Subject(model, params, _batch(asked, of_images), of_images)


def _numpyro(asked: Advise) -> Subject:
    """Counts of events at a rate that is five times as high when it is busy: z is mixed.

    Raises:
      UserError: NumPyro is not installed.
    """
    if importlib.util.find_spec("numpyro") is None:
        raise UserError("NumPyro is not installed: pip install numpyro.")
    import numpyro
    from numpyro.distributions import Categorical, Gamma, LogNormal, Poisson, constraints

    # Their stubs say that a parameter or a distribution may be None.
    param: Any = numpyro.param
    categorical: Any = Categorical
    positive = constraints.positive

    def model(x):
        shape = param("shape", 2.0, constraint=positive)
        rate = numpyro.sample("rate", Gamma(shape))
        odds = jnp.array([0.0, param("odds", -1.0)])
        busy = numpyro.sample("busy", categorical(logits=odds))
        numpyro.sample("x", Poisson(rate * (1.0 + 4.0 * busy)), obs=x)

    def guide(x):
        weight, offset = param("weight", 0.3), param("offset", -1.5)
        logits = jnp.array([0.0, weight * x + offset])
        busy = numpyro.sample("busy", categorical(logits=logits))
        scale = param("scale", 0.7, constraint=positive)
        numpyro.sample("rate", LogNormal(jnp.log(x + 1.0) - busy, scale))

    x = jax.random.poisson(
        key_for(asked.seed, Purpose.ADVICE_DATA), 4.0, (asked.advice.num_data,)
    ).astype(float)
    adapted = bounds.adapters.from_numpyro(model, guide)
    params = adapted.init(key_for(asked.seed, Purpose.ADVICE_START), x[0])
    return Subject(adapted.model, params, x)
