"""Settings of the linear-Gaussian model, what models.exact says of them, and a page held to it."""

import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from models.exact import linear_gaussian, linear_gaussian_theory
from models.exact.linear_gaussian_finite import finite

S = linear_gaussian.POSTERIOR_VARIANCE


def rms(logs):
    return float(np.sqrt(np.mean(np.exp(2 * np.asarray(logs)))))


def settings(of_each_dimension=50):
    """200 random settings, with what models.exact says of them."""
    rng = np.random.default_rng(0)
    for D in (1, 2, 5, 20):
        shape = (of_each_dimension, D)
        delta, offset = rng.normal(size=shape), math.sqrt(2) * rng.normal(size=shape)
        distance = 4 * rng.uniform(size=of_each_dimension) ** 2
        delta *= (distance / np.linalg.norm(delta, axis=1))[:, None]
        K = 2 ** rng.integers(0, 15, of_each_dimension)
        v = rng.uniform(0.35, 1.2, of_each_dimension)
        v = np.where(np.abs(v - S) < 1 / 60, S + 1 / 60, v)  # the nearest that a slider comes
        alpha = np.where(rng.uniform(size=of_each_dimension) < 0.4, 0, rng.uniform(0, 0.95, len(v)))
        closed = closed_forms(delta, offset, K.astype(float), v, alpha)
        for i in range(of_each_dimension):
            wanted = {n: rms(x[i]) if np.ndim(x[i]) else float(x[i]) for n, x in closed.items()}
            at = {"v": float(v[i]), "alpha": float(alpha[i])}
            wanted |= at_finite_k(delta[i], offset[i], int(K[i]), *at.values(), wanted["logP"])
            yield {
                **at, "delta": delta[i].tolist(), "offset": offset[i].tolist(), "K": int(K[i]),
                "wanted": {n: x if math.isfinite(x) else None for n, x in wanted.items()},
            }  # fmt: skip


def closed_forms(*settings):
    """Of each delta, offset, K, v and alpha, by models.exact in float64."""
    theory = linear_gaussian_theory

    def one(delta, offset, K, v, alpha):
        t, log_p = 1 - alpha, linear_gaussian.log_likelihood(jnp.zeros_like(offset), offset)
        first, second = (theory.log_weight_moment(delta, n * t, v) for n in (1.0, 2.0))
        limit = log_p + first / t
        return {
            "logP": log_p,
            "elboGap": linear_gaussian.elbo_gap(delta, v),
            "limit": limit,
            "log1pChiSquare": second - 2 * first,
            "leading bound": limit - jnp.expm1(second - 2 * first) / (2 * K * t),
            "leading theta": theory.log_snr_theta(delta, offset, K, v, alpha),
            "leading phi": theory.log_snr_phi(delta, K, v, alpha),
            "leading dreg": theory.log_snr_phi_dreg(delta, K, v, alpha),
        }

    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        # Types are those of a caller; here v, K and alpha are traced, to be compiled once.
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        found = jax.jit(jax.vmap(one))(*map(jnp.asarray, settings))
        return {name: np.asarray(values) for name, values in found.items()}


def at_finite_k(delta, offset, K, v, alpha, log_p):
    exact = finite(delta, K, v, alpha)
    mean_theta = offset / 2 - S * exact.mean
    return {
        "bound": log_p - exact.gap,
        "deviation": exact.deviation,
        "theta": rms(np.log(np.abs(mean_theta / (S * exact.pathwise)))),
        "phi": rms(np.log(np.abs(exact.mean / exact.pathwise))),
        "dreg": rms(np.log(np.abs(exact.mean / exact.dreg))),
    }


# The largest error of each name over all settings: of ratios relative, of nats absolute below 1.
COMPARE = """((gaussian, settings) => {
  const worst = {};
  for (const { K, wanted, ...at } of settings) {
    const { bound, deviation, theta, phi, dreg } = gaussian.finite(gaussian.transforms(at), K);
    const leading = Object.entries(gaussian.leadingOrder(at, K));
    const got = {
      logP: gaussian.logLikelihood(at), elboGap: gaussian.elboGap(at), limit: gaussian.limit(at),
      log1pChiSquare: gaussian.log1pChiSquare(at), bound, deviation, theta, phi, dreg,
      ...Object.fromEntries(leading.map(([name, value]) => [`leading ${name}`, value])),
    };
    for (const [name, right] of Object.entries(wanted)) {
      const ratio = /theta|phi|dreg/.test(name);
      const size = ratio && right ? Math.abs(right) : Math.max(1, Math.abs(right));
      const error = right === null ? 0 : Math.abs(got[name] - right) / size;
      // What is infinite or undefined is so on both sides.
      const agree = (right !== null) === Number.isFinite(got[name]);
      worst[name] = Math.max(worst[name] ?? 0, agree ? error : Infinity);
    }
  }
  // JSON has no infinity.
  return Object.fromEntries(Object.entries(worst).map(([n, error]) => [n, Math.min(error, 1e9)]));
})"""
