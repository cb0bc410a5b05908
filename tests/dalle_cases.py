"""Small settings, data and a model for the tests of experiments.dalle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles

from configs import dalle_digits
from experiments.dalle import build, enumeration
from experiments.dalle.settings import Dalle
from experiments.runtime.settings import merged, parse
from experiments.studies.images import as_images
from models.token_prior import picked

TINY = {
    "seeds": (0,),
    "model": {"width": 4, "embedding": 4, "num_codes": 3},
    "objective": {"beta_steps": 2, "temperature_steps": 2},
    "prior": {"num_layers": 1, "width": 8, "num_heads": 2, "num_steps": 4},
    "optimizer": {"warmup_steps": 1},
    "training": {"num_steps": 4},
    "records": {"log_every": 2, "save_every": 4},
    "evaluation": {"num_images": 6, "num_draws": 8, "sample_grid": 2},
}


def tiny(models=None, **changes):
    """Settings of a study of seconds, with changes section by section; `models`: these alone."""
    config = merged(merged(dalle_digits.get_config().to_dict(), TINY), changes)
    if models is not None:
        config |= {"models": models, "compare": ()}
    return parse(Dalle, config)


@functools.cache
def data():
    return build.make_data(tiny().data, "")


@functools.cache
def trained():
    """A model away from its start: (model, parameters)."""
    model = build.make_model(data(), tiny())
    params = jax.jit(model.init)(jax.random.key(1))
    return model, oracles.moved(params, seed=2, scale=0.1)


def batch_of(data, count=16):
    return {
        "x": jnp.asarray(as_images(data.problem.dataset.train[:count])),
        "index": jnp.arange(count),
    }


def by_hand(model, params, x, y):
    """log p(x, y, z) and log q(z | x) of all 81 codes in float64."""
    found = _at_all_codes(model)(params, jnp.asarray(x), jnp.asarray(y))
    return (np.asarray(v, np.float64) for v in found)


@functools.cache
def _at_all_codes(model):
    codes = jnp.asarray(enumeration.all_codes(4, 3))

    @jax.jit
    def of_all(params, x, y):
        def at(z):
            text, logits = model.joint.prior(params.theta, y, z)
            log_px = model.dvae.log_px(params.theta["decoder"], x, jax.nn.one_hot(z, 3))
            log_q = picked(model.dvae.encode(params.phi, x), z)
            return text + picked(logits, z) + log_px, log_q

        return jax.vmap(at)(codes)

    return of_all
