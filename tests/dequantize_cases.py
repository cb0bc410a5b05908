"""Small configs, data and a model for the tests of experiments.dequantize."""

import jax.numpy as jnp

from configs import dequantize_digits
from experiments.dequantize import build
from models import noise


def tiny(variant="couplings", **changes):
    config = dequantize_digits.get_config(variant)
    for name in config.models:
        config.models[name].width = 8
    config.seeds, config.num_steps, config.refit_steps = (0, 1), 4, 4
    config.num_components = config.noise_components = 2
    config.noise_width, config.noise_couplings = 8, 2
    config.log_every, config.save_every = 2, 4
    config.validation_samples, config.evaluation_images, config.evaluation_samples = 1, 6, (1, 4)
    config.sample_grid = 4
    for name, value in changes.items():
        config[name] = value
    return config


def only(config, *names):
    for name in list(config.models):
        if name not in names:
            del config.models[name]
    config.compare = ()
    return config


def constant_model(levels=4):
    """p(x + u) falls steeply within a cell, so that every draw of noise gives another weight."""

    def log_density(theta, x, u, dropout=None):
        return jnp.sum(-4.0 * u + jnp.log(4.0 / (1 - jnp.exp(-4.0)))) - x.size * jnp.log(levels)

    density = build.Density(
        lambda key, x: (), log_density, None, lambda theta, key: jnp.zeros((2, 2, 1)), None
    )
    return build.Model(density, noise.uniform_noise())
