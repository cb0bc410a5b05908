"""A joint model small enough to sum over every x, y and z, with its answers in float64."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles

import bounds

TOLERANCE = 1e-6 if oracles.X64 else 1e-4
X, Y, N, K = 3, 4, 2, 2  # x and y take these many values, z is N tokens of K
Z = K**N
CODES = jnp.asarray(list(itertools.product(range(K), repeat=N)))
BETAS = (0.0, 0.3, 0.9, 1.0, 1.5, 6.6, 20.0)


class Theta(NamedTuple):
    text: jax.Array  # [Y]
    first: jax.Array  # [Y, K]
    second: jax.Array  # [Y, K, K]
    pixels: jax.Array  # [Y, Z, X]


def prior(theta, y, z):
    logits = jnp.stack([theta.first[y], theta.second[y, z[0]]])
    return jax.nn.log_softmax(theta.text)[y], logits


def log_px(theta, x, y, codes):
    """A mixture of the tables of tokens where the codes are soft."""
    weights = jnp.outer(codes[0], codes[1]).reshape(-1)
    return jnp.log(weights @ jax.nn.softmax(theta.pixels[y], axis=-1)[:, x])


MODEL = bounds.joint.JointModel(lambda phi, x: phi[x], prior, log_px)


def params_of(seed, scale=1.5):
    keys = jax.random.split(jax.random.key(seed), 5)
    shapes = (Y,), (Y, K), (Y, K, K), (Y, Z, X), (X, N, K)
    *theta, phi = (scale * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))
    return bounds.Params(Theta(*theta), phi)


def softmax(logits):
    logits = np.asarray(logits, np.float64)
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def tables(params):
    """p(y) [Y], p(z | y) [Y, Z], p(x | y, z) [Y, Z, X] and q(z | x) [X, Z], by NumPy."""
    theta = params.theta
    second = softmax(theta.second)
    image = softmax(theta.first)[:, :, None] * second
    q = softmax(params.phi)
    joint_q = q[:, 0, :, None] * q[:, 1, None, :]
    return softmax(theta.text), image.reshape(Y, Z), softmax(theta.pixels), joint_q.reshape(X, Z)


class Known(NamedTuple):
    """The exact answers for one (x, y), in float64."""

    log_p: float
    reconstruction: float
    kl: float
    log_text: float
    gap: float

    @property
    def divergence(self):
        return self.kl - self.log_text

    def bound(self, beta=1.0):
        return self.reconstruction - beta * self.divergence


def known(params, x, y, q=None):
    text, image, pixels, of_model = tables(params)
    q = of_model[x] if q is None else q
    joint = text[y] * image[y] * pixels[y, :, x]
    live = q > 0
    mean = lambda values: float(np.sum(q[live] * values[live]))  # noqa: E731
    with np.errstate(divide="ignore", invalid="ignore"):
        return Known(
            float(np.log(joint.sum())),
            mean(np.log(pixels[y, :, x])),
            mean(np.log(q / image[y])),
            float(np.log(text[y])),
            mean(np.log(q / (joint / joint.sum()))),
        )


def chunk_of(params, x, y, q=None):
    text, image, pixels, of_model = tables(params)
    q = of_model[x] if q is None else q
    with np.errstate(divide="ignore"):
        arrays = np.log(q), np.log(text[y] * image[y]), np.log(pixels[y, :, x])
    return lambda index: tuple(jnp.asarray(a, float) for a in arrays)


@jax.jit
def _values(arrays, beta):
    return bounds.joint.values(lambda index: arrays, beta=beta)


def values_of(params, x, y, q=None, beta=1.0):
    return _values(chunk_of(params, x, y, q)(0), beta)


PAIRS = list(itertools.product(range(X), range(Y)))


def of(params, x, y, beta):
    """The q that attains the supremum: proportional to p(y, z) p(x | y, z)^(1 / beta)."""
    text, image, pixels, _ = tables(params)
    q = text[y] * image[y] * pixels[y, :, x] ** (1 / beta)
    return q / q.sum()


def z_score(values, mean):
    values = np.asarray(values, np.float64)
    return (values.mean() - mean) / (values.std(ddof=1) / np.sqrt(len(values)))
