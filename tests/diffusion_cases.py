"""Small settings and data for the tests of experiments.diffusion."""

import functools

import jax.numpy as jnp

from configs import diffusion_digits
from experiments.diffusion import build, training
from experiments.diffusion.settings import Diffusion
from experiments.runtime.settings import merged, parse
from experiments.studies import images

TINY = {
    "seeds": (0, 1),
    "chain": {"evaluation_timesteps": 12},
    "network": {"name": "mlp", "width": 16, "fourier": (1,)},
    "optimizer": {"warmup_steps": 1},
    "training": {"num_steps": 4, "validation_samples": 2},
    "records": {"log_every": 2, "save_every": 4},
    "evaluation": {"num_images": 6, "sample_grid": 4},
}
DDPM = {"schedule": "cosine", "timesteps": 12, "evaluation_timesteps": 0, "prediction": "eps"}
DRY = {"dropout": 0.0}


def tiny(**changes):
    """Settings of a study of seconds, with changes section by section."""
    return parse(Diffusion, merged(merged(diffusion_digits.get_config().to_dict(), TINY), changes))


@functools.cache
def digits():
    return images.make_problem(tiny().data.name, "")


def made(problem, asked):
    """(model, run) of the first seed."""
    model = build.make_model(problem, asked)
    return model, training.make_run(problem, model, asked, 0)


def batch_of(problem, count=16):
    return {
        "x": jnp.asarray(images.as_images(problem.dataset.train[:count])),
        "index": jnp.arange(count),
    }
