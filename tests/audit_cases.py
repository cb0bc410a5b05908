"""Models that are right, and claims about them that are wrong, for the audit."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import joint_cases
import numpy as np
import numpyro
from jax.scipy.stats import norm
from numpyro.distributions import Gamma, LogNormal, Poisson, constraints

import bounds
from models import diffusion
from models.exact import two_layer_gaussian


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Known by identity: what is made of one case is compiled once."""

    model: bounds.LatentModel
    params: bounds.Params
    simulate: Callable[[Any, Any], Any]


# A VAE of 8 binary pixels with two latents and a q that does not fit them exactly.

PIXELS, LATENTS = 8, 2


def vae_parts(params, key, x):
    """(log p(x | z), log p(z), log q(z | x), KL(q || p(z))) of one draw."""
    z, log_q = vae_propose(params.phi, key, x)
    mean, scale = vae_encode(params.phi, x)
    kl = jnp.sum(0.5 * (mean**2 + scale**2 - 1) - jnp.log(scale))
    return vae_log_px(params.theta, x, z), norm.logpdf(z).sum(), log_q, kl


def vae_encode(phi, x):
    return phi["weight"] @ (x - 0.5), jnp.exp(phi["log_scale"])


def vae_propose(phi, key, x):
    mean, scale = vae_encode(phi, x)
    z = mean + scale * jax.random.normal(key, mean.shape)
    return z, vae_log_q(phi, x, z)


def vae_log_q(phi, x, z):
    mean, scale = vae_encode(phi, x)
    return norm.logpdf(z, mean, scale).sum()


def vae_log_px(theta, x, z):
    return bounds.densities.bernoulli_log_prob(theta @ z, x).sum()


def vae_simulate(theta, key):
    first, second = jax.random.split(key)
    z = jax.random.normal(first, (LATENTS,))
    return jax.random.bernoulli(second, jax.nn.sigmoid(theta @ z)).astype(float), z


@functools.cache
def vae():
    theta = 1.5 * jax.random.normal(jax.random.key(7), (PIXELS, LATENTS))
    phi = {"weight": 0.5 * theta.T, "log_scale": jnp.full(LATENTS, -0.4)}
    model = bounds.LatentModel(
        vae_propose,
        vae_log_q,
        lambda theta, x, z: vae_log_px(theta, x, z) + norm.logpdf(z).sum(),
    )
    return Case(model, bounds.Params(theta, phi), vae_simulate)


# A flow of three pixels with learned noise: logit(y / levels) is Gaussian, y = x + u.

SHAPE = (3,)


def flow_log_density(theta, x, u, *, levels, unit=1.0):
    """log p of y = x + u, or of unit * y."""
    share = jnp.clip((x + u) / levels, 1e-6, 1 - 1e-6)
    value = jnp.log(share) - jnp.log1p(-share)
    slope = jnp.log(share) + jnp.log1p(-share) + jnp.log(levels)
    inside = (x + u >= 0) & (x + u <= levels)
    terms = norm.logpdf(value, theta["mean"], jnp.exp(theta["log_scale"])) - slope - jnp.log(unit)
    return jnp.where(inside, terms, -jnp.inf).sum()


def flow_noise(phi, x):
    return phi["slope"] * (x - 1.5) + phi["place"], phi["log_scale"] + 0.0 * x


def flow_simulate(theta, key, *, levels):
    noise = jax.random.normal(key, SHAPE)
    y = levels * jax.nn.sigmoid(theta["mean"] + jnp.exp(theta["log_scale"]) * noise)
    x = jnp.minimum(jnp.floor(y), levels - 1)
    u = jnp.clip(y - x, 1e-6, 1 - 1e-6)
    return x, jnp.log(u) - jnp.log1p(-u)


@functools.cache
def flow(levels=4, mean=(-0.5, 0.0, 0.8), log_scale=0.0, noise=(-0.5, -0.2)):
    theta = {"mean": jnp.array(mean), "log_scale": jnp.full(SHAPE, log_scale)}
    slope, noise_scale = noise
    phi = {
        "slope": jnp.array(slope), "place": jnp.zeros(SHAPE),
        "log_scale": jnp.full(SHAPE, noise_scale),
    }  # fmt: skip
    model = bounds.dequantization.dequantized(
        functools.partial(flow_log_density, levels=levels),
        bounds.dequantization.logistic(flow_noise),
    )
    simulate = functools.partial(flow_simulate, levels=levels)
    return Case(model, bounds.Params(theta, phi), simulate)


# A chain of four steps of diffusion over two pixels of four levels.


@functools.cache
def trajectory():
    gamma = bounds.diffusion.cosine_schedule(4)
    made = diffusion.ddpm(gamma, lambda theta, x_t, g: theta * x_t, levels=4, prediction="x")

    def simulate(theta, key):
        first, second = jax.random.split(key)
        chain = diffusion.reverse_chain(made.model, theta, first, (2,), kept=gamma.size)
        return made.sample(theta, second, chain[-1]), chain[::-1]

    params = bounds.Params(jnp.array(0.7), ())
    return Case(bounds.diffusion.trajectory(made.model), params, simulate)


# Two tokens of a dVAE with a caption, from tables.


@functools.cache
def dvae():
    def simulate(theta, key):
        keys = jax.random.split(key, 4)
        y = jax.random.categorical(keys[0], theta.text)
        first = jax.random.categorical(keys[1], theta.first[y])
        second = jax.random.categorical(keys[2], theta.second[y, first])
        x = jax.random.categorical(keys[3], theta.pixels[y, joint_cases.K * first + second])
        return (x, y), jnp.stack([first, second])

    params = joint_cases.params_of(3, scale=0.8)
    return Case(bounds.joint.latent(joint_cases.MODEL), params, simulate)


@functools.cache
def two_layers():
    theta = two_layer_gaussian.Generative(0.3 * jnp.arange(3.0), jnp.array(0.8), jnp.array(0.7))
    phi = jax.tree.map(lambda leaf: leaf - 0.05, two_layer_gaussian.exact_inference(theta))

    def simulate(theta, key):
        keys = jax.random.split(key, 3)
        z2 = theta.prior_mean + jax.random.normal(keys[0], (3,))
        z1 = theta.upper * z2 + jnp.sqrt(0.5) * jax.random.normal(keys[1], (3,))
        x = theta.lower * z1 + 0.5 * jax.random.normal(keys[2], (3,))
        return x, two_layer_gaussian.Latents(z1, z2)

    return Case(two_layer_gaussian.make_model(), bounds.Params(theta, phi), simulate)


@functools.cache
def conjugate():
    """Counts of a Poisson whose rate is Gamma, in NumPyro; the guide is log-normal."""

    def model(x):
        shape = numpyro.param("shape", 3.0, constraint=constraints.positive)
        rate = numpyro.sample("rate", Gamma(shape, 1.0))
        with numpyro.plate("counts", 4):
            numpyro.sample("x", Poisson(rate), obs=x)

    def guide(x):
        total = numpyro.param("total", 3.0) + jnp.sum(x)
        scale = jnp.exp(numpyro.param("log_scale", 0.05)) / jnp.sqrt(total)
        numpyro.sample("rate", LogNormal(jnp.log(total / 5) - 0.5 / total, scale))

    adapted = bounds.adapters.from_numpyro(model, guide)
    params = adapted.init(jax.random.key(0), jnp.arange(4))
    return Case(adapted.model, params, adapted.simulate)


RIGHT = {
    "VAE": vae, "flow with noise": flow, "diffusion trajectory": trajectory, "dVAE": dvae,
    "two-layer Gaussian": two_layers, "conjugate": conjugate,
}  # fmt: skip


@functools.cache
def iwae_of(case, num_samples):
    def claimed(key, x):
        log_w = bounds.log_weights(case.model, case.params, key, x, num_samples=num_samples)
        return bounds.iwae(log_w)

    return claimed


def mean_over_batch(claimed):
    def batched(key, xs):
        size = len(jax.tree.leaves(xs)[0])
        return jnp.mean(jax.vmap(claimed)(jax.random.split(key, size), xs))

    return batched


@functools.cache
def drawn_from(case):
    return bounds.audit.simulated(
        case.model, case.params, jax.random.key(99), simulate=case.simulate
    )


# Twelve defects: name -> (what audits it, the check that has to name it).


def _vae_claim(of_parts, **more):
    case = vae()

    def claimed(key, x):
        return of_parts(*vae_parts(case.params, key, x))

    return lambda key: bounds.audit.claim(
        claimed, key, simulate=drawn_from(case), traceable=True, **more
    )


@functools.cache
def _reduced(reduce, num_samples):
    case = vae()

    def claimed(key, x):
        log_w = bounds.log_weights(case.model, case.params, key, x, num_samples=num_samples)
        return reduce(log_w)

    return claimed


def _of_samples(reduce):
    """Without any model: from data alone."""
    case = vae()
    data = jax.vmap(case.simulate, (None, 0))(
        case.params.theta, jax.random.split(jax.random.key(5), 200)
    )[0]

    def audit(key):
        few = _reduced(reduce, 2)
        return bounds.audit.claim(_reduced(reduce, 16), key, x=data, fewer=few, traceable=True)

    return audit


def negative_log_mean_of_likelihoods(log_w):
    """A logsumexp of NLLs in the place of log-probabilities."""
    return -(jax.nn.logsumexp(-log_w) - jnp.log(log_w.size))


def entropy_left_out(key):
    case = flow(mean=(-0.5, 0.5, 0.5), log_scale=-2.2, noise=(0.0, -1.6))

    def claimed(key, x):
        v, _ = case.model.propose(case.params.phi, key, x)
        return flow_log_density(case.params.theta, x, jax.nn.sigmoid(v), levels=4)

    return bounds.audit.claim(claimed, key, simulate=drawn_from(case), traceable=True)


def weights_not_detached(key):
    case, num_samples = vae(), 8

    def objective(params, key, x):
        keys = jax.random.split(key, num_samples)
        z, log_q = jax.vmap(case.model.propose, (None, 0, None))(params.phi, keys, x)
        stopped = jax.lax.stop_gradient(params.phi)

        def each(z):
            return case.model.log_p(params.theta, x, z) - vae_log_q(stopped, x, z)

        log_w = jax.vmap(each)(z)
        surrogate = jnp.sum(jax.nn.softmax(log_w) ** 2 * log_w)
        del log_q
        return (
            bounds.iwae(jax.lax.stop_gradient(log_w)) + surrogate - jax.lax.stop_gradient(surrogate)
        )

    return bounds.audit.model(
        case.model, case.params, key, simulate=case.simulate, objective=objective,
        num_samples=num_samples,
    )  # fmt: skip


def in_unit(bits_of_levels, *, unit, levels):
    """A claim by bits/dim of data times `unit`, whose levels are said to cost so many bits."""
    case = flow(levels)

    def claimed(key, x):
        u = jax.random.uniform(key, x.shape)
        log_p = flow_log_density(case.params.theta, x, u, levels=levels, unit=unit)
        bits = -log_p / (x.size * jnp.log(2.0)) + bits_of_levels
        return -bits * x.size * jnp.log(2.0)

    return claimed


def without_levels(key):
    data = np.random.default_rng(0).integers(0, 256, (150, 3)).astype(np.float32)
    claimed = in_unit(0.0, unit=1 / 256, levels=256)
    other = in_unit(0.0, unit=2 / 256, levels=256)
    return bounds.audit.claim(claimed, key, x=data, rescaled=other, traceable=True)


def eight_for_seven(key):
    data = np.random.default_rng(0).integers(0, 256, (150, 3)).astype(np.float32)
    claimed = in_unit(8.0, unit=1 / 256, levels=256)
    other = in_unit(8.0, unit=2 / 256, levels=256)  # of data in [-1, 1] it is 7
    return bounds.audit.claim(claimed, key, x=data, rescaled=other, traceable=True)


def noise_outside(key):
    case = flow()

    def claimed(key, x):
        u = jax.random.uniform(key, x.shape, minval=-1.0, maxval=1.0)
        log_p = flow_log_density(case.params.theta, x, u, levels=4)
        return jnp.maximum(log_p, -30.0) + x.size * jnp.log(2.0)

    return bounds.audit.claim(claimed, key, simulate=drawn_from(case), traceable=True)


def pixels_averaged(rec, log_prior, log_q, kl):
    return rec / PIXELS - kl


def stale_sample(key):
    case = vae()

    def propose(phi, key, x):
        first, second = jax.random.split(key)
        z, _ = vae_propose(phi, first, x)
        _, log_q = vae_propose(phi, second, x)
        return z, log_q

    model = case.model._replace(propose=propose)
    return bounds.audit.model(model, case.params, key, simulate=case.simulate, num_gradients=0)


def plate_summed(key):
    case = vae()

    def batched(key, xs):
        keys = jax.random.split(key, len(xs))
        log_w = jax.vmap(
            lambda k, x: bounds.log_weights(case.model, case.params, k, x, num_samples=16)
        )(keys, xs)
        return bounds.iwae(log_w.sum(0)) / len(xs)

    data, _ = jax.vmap(case.simulate, (None, 0))(
        case.params.theta, jax.random.split(jax.random.key(5), 200)
    )
    return bounds.audit.claim(iwae_of(case, 16), key, x=data, batched=batched, traceable=True)


SUM = "probabilities sum to at most 1"
UNIT = "same in another unit"
DEFECTS = {
    "no - log K": (_of_samples(jax.nn.logsumexp), "no more than the best of fewer"),
    "logsumexp of NLLs": (_of_samples(negative_log_mean_of_likelihoods), "rises with K"),
    "entropy left out": (entropy_left_out, SUM),
    "KL dropped": (_vae_claim(lambda rec, log_prior, log_q, kl: rec), SUM),
    "KL with the wrong sign": (_vae_claim(lambda rec, log_prior, log_q, kl: rec + kl), SUM),
    "weights not detached": (weights_not_detached, "gradient in phi"),
    "density without its levels": (without_levels, UNIT),
    "+8 for +7": (eight_for_seven, UNIT),
    "noise outside the cell": (noise_outside, SUM),
    "pixels averaged": (_vae_claim(pixels_averaged), SUM),
    "log q of a stale sample": (stale_sample, "log q at its own draw"),
    "plate summed first": (plate_summed, "batch is the mean of its data"),
}
