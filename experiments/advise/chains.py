"""ELBO, IWAE, UHA and AIS of a VAE at equal numbers of decoder gradients for each test image.

A leapfrog step takes one gradient of the decoder, and so does a sample of the ELBO or of IWAE in
training: a chain of T bridges counts as T samples, though the value of a sample alone is cheaper.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

import bounds
from experiments.advise.settings import Advise
from experiments.advise.subjects import Images, Subject
from experiments.data import batches
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.results import Row
from experiments.studies import held_out

_BATCH, _RATE, _IMAGES_PER_PASS = 50, 2e-2, 10


def rows(name: str, subject: Subject, asked: Advise) -> list[Row]:
    """A row for each value and each number of gradients."""
    wanted, model, params, of_images = asked.chains, subject.model, subject.params, subject.images
    assert of_images is not None  # it is a VAE
    chains = bounds.annealed(model, num_bridges=wanted.num_bridges)
    path = _trained_path(of_images, chains, params, asked)
    key = key_for(asked.seed, Purpose.ADVICE_TEST)
    test = batches.prepare_all(of_images.prepare, of_images.dataset.test, key)
    test = jax.tree.map(lambda leaf: np.asarray(leaf[: wanted.num_images or None]), test)
    betas = bounds.annealing_schedule(wanted.num_bridges + 2)

    def values(gradients: int, both: Any, key: Array, x: PyTree, index: Array):
        params, path = both
        count = gradients // wanted.num_bridges
        plain, long, pilot, ais = jax.random.split(jax.random.fold_in(key, index), 4)
        log_w = bounds.log_weights(model, params, plain, x, num_samples=gradients)
        of_chains = bounds.Params(_annealing(path, params), params.phi)
        longer = bounds.log_weights(chains, of_chains, long, x, num_samples=count)
        sizes = bounds.tune_step_sizes(
            model, params, pilot, x, betas=betas, num_leapfrog=1, num_rounds=8
        )
        run = functools.partial(
            bounds.ais, model, params, x=x, betas=betas, num_leapfrog=1, step_sizes=sizes
        )
        annealed, _ = jax.vmap(lambda k: run(key=k))(jax.random.split(ais, count))
        return bounds.elbo(log_w), bounds.iwae(log_w), bounds.iwae(longer), bounds.iwae(annealed)

    out: list[Row] = []
    for gradients in wanted.gradients:
        found = held_out.over_images(
            held_out.compiled(functools.partial(values, gradients)),
            (params, path),
            test,
            key_for(asked.seed, Purpose.ADVICE_SCORES),
            images_per_pass=_IMAGES_PER_PASS,
        )
        for value, numbers in zip(("ELBO", "IWAE", "UHA", "AIS"), found, strict=True):
            at = {"model": name, "gradients": gradients}
            if value in ("UHA", "AIS"):
                at |= {"bridges": wanted.num_bridges, "chains": gradients // wanted.num_bridges}
            out.append(held_out.mean_row(value, at, numbers, "lower_bound", part="chains"))
            if value != "IWAE":  # image by image, which tells far less than images differ
                gain = np.subtract(numbers, found[1])
                out.append(
                    held_out.mean_row(f"{value} - IWAE", at, gain, "estimate", part="chains")
                )
    return out


def _annealing(path: PyTree, params: bounds.Params) -> bounds.Annealing:
    betas = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jax.nn.softmax(path["betas"]))])
    return bounds.Annealing(
        params, jnp.exp(path["log_steps"]), betas, jax.nn.sigmoid(path["damping"])
    )


def _trained_path(
    of_images: Images, chains: bounds.LatentModel, params: bounds.Params, asked: Advise
) -> PyTree:
    """Step sizes, betas and damping by the ELBO over chains on training images; p and q stay."""
    wanted, images = asked.chains, jnp.asarray(of_images.dataset.train)
    start = {
        "log_steps": jnp.full(wanted.num_bridges, jnp.log(0.1)),
        "betas": jnp.zeros(wanted.num_bridges + 1),
        "damping": jnp.zeros(()),
    }
    optimizer = optax.adam(_RATE)
    objective = bounds.pathwise(chains, num_samples=1)

    def loss(path, key):
        index, pixels, noise = jax.random.split(key, 3)
        chosen = images[jax.random.randint(index, (_BATCH,), 0, len(images))]
        x = jax.vmap(of_images.prepare)(jax.random.split(pixels, _BATCH), chosen)
        own = bounds.Params(_annealing(path, params), params.phi)
        keys = jax.random.split(noise, _BATCH)
        return -jnp.mean(jax.vmap(objective, (None, 0, 0))(own, keys, x))

    def step(state, key):
        path, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(path, key), moments)
        return (optax.apply_updates(path, updates), moments), None

    keys = jax.random.split(key_for(asked.seed, Purpose.ADVICE_PATH), wanted.num_steps)
    (path, _), _ = jax.jit(lambda s: jax.lax.scan(step, s, keys))((start, optimizer.init(start)))
    return path
