"""NumPyro models of one datum with guides, and the same densities written by hand.

What is written by hand uses jax.scipy.stats on unconstrained parameters, and none of NumPyro.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jax.example_libraries import stax
from jax.scipy.stats import norm
from numpyro import distributions as dist
from numpyro.distributions import constraints

PIXELS, LATENTS, HIDDEN, STATES = 6, 2, 5, 3
positive = constraints.positive


class Case(NamedTuple):
    """A model, a guide, a datum, and log_p (theta, x, z) and log_q (phi, x, z) by hand."""

    model: Any
    guide: Any
    x: Any
    log_p: Any
    log_q: Any


# --- the VAE of NumPyro's examples: softplus networks of stax, one datum in place of a batch ----

ENCODER = stax.serial(
    stax.Dense(HIDDEN),
    stax.Softplus,
    stax.FanOut(2),
    stax.parallel(stax.Dense(LATENTS), stax.serial(stax.Dense(LATENTS), stax.Exp)),
)
DECODER = stax.serial(stax.Dense(HIDDEN), stax.Softplus, stax.Dense(PIXELS), stax.Sigmoid)


def vae_model(x):
    decode = numpyro.module("decoder", DECODER, (LATENTS,))
    z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENTS), 1.0).to_event(1))
    numpyro.sample("x", dist.Bernoulli(decode(z)).to_event(1), obs=x)


def vae_guide(x):
    mean, scale = numpyro.module("encoder", ENCODER, (PIXELS,))(x)
    numpyro.sample("z", dist.Normal(mean, scale).to_event(1))


def dense(layer, value):
    weight, bias = layer
    return value @ weight + bias


def vae_log_p(theta, x, z):
    first, _, last, _ = theta["decoder$params"]
    logits = dense(last, jax.nn.softplus(dense(first, z["z"])))
    pixels = jnp.where(x == 1, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits))
    return jnp.sum(norm.logpdf(z["z"])) + jnp.sum(pixels)


def vae_log_q(phi, x, z):
    first, _, _, (mean, (log_scale, _)) = phi["encoder$params"]
    hidden = jax.nn.softplus(dense(first, x))
    scale = jnp.exp(dense(log_scale, hidden))
    return jnp.sum(norm.logpdf(z["z"], dense(mean, hidden), scale))


# --- two latent sites, one of them positive -----------------------------------------------------


def hierarchical_model(x):
    scale = numpyro.sample("scale", dist.LogNormal(numpyro.param("location", 0.2), 0.5))
    z = numpyro.sample("z", dist.Normal(0.0, scale))
    numpyro.sample("x", dist.Normal(z, numpyro.param("noise", 0.7, constraint=positive)), obs=x)


def hierarchical_guide(x):
    spread = numpyro.param("spread", 0.6, constraint=positive)
    scale = numpyro.sample("scale", dist.LogNormal(numpyro.param("slope", 0.1) * x, spread))
    slope = numpyro.param("weight", 0.5) * scale
    numpyro.sample("z", dist.Normal(slope * x, numpyro.param("width", 0.8, constraint=positive)))


def log_normal(value, mean, scale):
    return norm.logpdf(jnp.log(value), mean, scale) - jnp.log(value)


def hierarchical_log_p(theta, x, z):
    prior = log_normal(z["scale"], theta["location"], 0.5) + norm.logpdf(z["z"], 0.0, z["scale"])
    return prior + norm.logpdf(x, z["z"], jnp.exp(theta["noise"]))


def hierarchical_log_q(phi, x, z):
    scale = log_normal(z["scale"], phi["slope"] * x, jnp.exp(phi["spread"]))
    return scale + norm.logpdf(z["z"], phi["weight"] * z["scale"] * x, jnp.exp(phi["width"]))


# --- a mixture with its discrete component, and a conjugate Gaussian ----------------------------


def mixture_model(x):
    logits = numpyro.param("logits", jnp.array([0.3, -0.2, 0.1]))
    component = numpyro.sample("component", dist.Categorical(logits=logits))
    means = numpyro.param("means", jnp.array([-1.0, 0.5, 2.0]))
    numpyro.sample("x", dist.Normal(means[component], 0.8), obs=x)


def mixture_guide(x):
    slopes = numpyro.param("slopes", jnp.array([-0.5, 0.1, 0.6]))
    numpyro.sample("component", dist.Categorical(logits=slopes * x))


def mixture_log_p(theta, x, z):
    log_prior = jax.nn.log_softmax(theta["logits"])[z["component"]]
    return log_prior + norm.logpdf(x, theta["means"][z["component"]], 0.8)


def mixture_log_q(phi, x, z):
    return jax.nn.log_softmax(phi["slopes"] * x)[z["component"]]


def gaussian_model(x):
    z = numpyro.sample("z", dist.Normal(numpyro.param("mean", 0.3), 1.0))
    numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def gaussian_guide(x):
    scale = numpyro.param("scale", 0.8, constraint=positive)
    numpyro.sample("z", dist.Normal(numpyro.param("weight", 0.7) * x + 0.1, scale))


def gaussian_log_p(theta, x, z):
    return norm.logpdf(z["z"], theta["mean"], 1.0) + norm.logpdf(x, z["z"], 1.0)


def gaussian_log_q(phi, x, z):
    return norm.logpdf(z["z"], phi["weight"] * x + 0.1, jnp.exp(phi["scale"]))


CASES = {
    "vae": Case(
        vae_model, vae_guide, jnp.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]), vae_log_p, vae_log_q
    ),
    "hierarchical": Case(
        hierarchical_model,
        hierarchical_guide,
        jnp.array(1.3),
        hierarchical_log_p,
        hierarchical_log_q,
    ),
    "mixture": Case(mixture_model, mixture_guide, jnp.array(0.9), mixture_log_p, mixture_log_q),
    "gaussian": Case(
        gaussian_model, gaussian_guide, jnp.array(1.5), gaussian_log_p, gaussian_log_q
    ),
}
# Of params in these models; all others are real.
CONSTRAINED = {"noise", "spread", "width", "scale"}


def constrained(params):
    """Unconstrained parameters as NumPyro's own inference takes them."""
    pairs = {**params.theta, **params.phi}
    return {name: jnp.exp(v) if name in CONSTRAINED else v for name, v in pairs.items()}
