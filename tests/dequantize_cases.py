"""Small settings and a model for the tests of experiments.dequantize."""

from typing import Any

import jax.numpy as jnp

from configs import dequantize_digits
from experiments.dequantize import build
from experiments.dequantize.settings import Dequantize
from experiments.runtime import settings
from models import noise

_TINY = {
    "compare": (),
    "seeds": (0, 1),
    "model": {
        "num_components": 2,
        "num_layers": 1,
        "layout": ("checkerboard:2", "squeeze", "channels:1"),
    },
    "noise": {"width": 8, "num_layers": 1, "num_couplings": 2, "num_components": 2},
    "refit": {"num_steps": 4},
    "training": {"num_steps": 4, "validation_samples": 1},
    "records": {"log_every": 2, "save_every": 4},
    "evaluation": {"num_images": 6, "num_samples": (1, 4), "sample_grid": 4},
}


def tiny(*names: str, variant: str = "couplings", **changes: Any) -> Dequantize:
    """A study of small models of the digits, of all or of those named, with other changes."""
    fields = dequantize_digits.get_config(variant).to_dict()
    fields["models"] = {
        name: settings.merged(own, {"model": {"width": 8}})
        for name, own in fields["models"].items()
        if name in (names or fields["models"])
    }
    return settings.parse(Dequantize, settings.merged(settings.merged(fields, _TINY), changes))


def constant_model(levels=4):
    """p(x + u) falls steeply within a cell, so that every draw of noise gives another weight."""

    def log_density(theta, x, u, dropout=None):
        return jnp.sum(-4.0 * u + jnp.log(4.0 / (1 - jnp.exp(-4.0)))) - x.size * jnp.log(levels)

    density = build.Density(
        lambda key, x: (), log_density, None, lambda theta, key: jnp.zeros((2, 2, 1)), None
    )
    return build.Model(density, noise.uniform_noise())
