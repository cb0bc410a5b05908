"""What the table of tests/bounds/test_precision.py compares with: float64 by NumPy and SciPy."""

import math

import numpy as np
from scipy import special, stats

LEVELS, BATCH = 17, 24


def log_mean_exp(values, axis=-1):
    return special.logsumexp(values, axis=axis) - math.log(values.shape[axis])


def discretized(cdf, edge=lambda t: t):
    """Reference of a discretised density: every x by itself."""

    def reference(x, mean, log_scale):
        t = edge((np.arange(LEVELS - 1) + 0.5)[None, :])
        ends = cdf((t - mean[:, None]) * np.exp(-log_scale[:, None]))
        ends = np.pad(ends, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
        return np.log(np.diff(ends)[np.arange(len(x)), x.astype(int)])

    return reference


def squeezed(t):
    return special.logit(0.8 * t / (LEVELS - 1) + 0.1)


def laplace_density(v, mean, log_scale):
    scale = np.exp(log_scale)
    return stats.laplace.logpdf(special.logit(v), mean, scale) - np.log(v) - np.log1p(-v)


def level_softmax(x, z, gamma):
    values = np.linspace(-1, 1, LEVELS)
    centres = np.sqrt(special.expit(-gamma)) * values
    logits = stats.norm.logpdf(z[:, None], centres, np.sqrt(special.expit(gamma)))
    return special.log_softmax(logits, -1)[np.arange(len(x)), x.astype(int)]


def level_logit(x, v):
    below, above = np.log(x + special.expit(v)), np.log(LEVELS - 1 - x + special.expit(-v))
    return below - above, math.log(LEVELS) - below - above


def stratified(pairs):
    weights = np.full((BATCH, BATCH), 99 / 100 / (BATCH - 1))
    np.fill_diagonal(weights, 1 / 100)
    return special.logsumexp(pairs, axis=-1, b=weights)


def sandwich(pairs):
    own = np.diagonal(pairs)
    return own - log_mean_exp(pairs), own - stratified(pairs)


def factors(z, mean, variance):
    return stats.norm.logpdf(z, mean, np.sqrt(variance))


def aggregated(z, mean, variance):
    each = factors(z[None], mean, variance)
    return log_mean_exp(each.sum(-1)), log_mean_exp(each, 0)


def surgery(z, mean, variance):
    own, prior = factors(z, mean[0], variance[0]).sum(), stats.norm.logpdf(z)
    joint, each = aggregated(z, mean, variance)
    return own - prior.sum(), own - joint, joint - prior.sum(), joint - each.sum(), each - prior


def joint_values(log_q, log_prior, log_px):
    q, log_joint = np.exp(log_q), log_prior + log_px
    log_p, reconstruction = special.logsumexp(log_joint), np.sum(q * log_px)
    divergence = np.sum(q * (log_q - log_prior))
    bound = reconstruction - 2 * divergence
    return (log_p, reconstruction, divergence, bound, 2 * special.logsumexp(log_prior + log_px / 2))


def joint_gap(log_q, log_prior, log_px):
    log_joint = log_prior + log_px
    return np.sum(np.exp(log_q) * (log_q - log_joint + special.logsumexp(log_joint)))


def renyi(log_w):
    return log_mean_exp(0.5 * log_w) / 0.5


def error_of(values):
    """Standard error of the log of a mean."""
    return values.std(ddof=1) / math.sqrt(len(values)) / values.mean()


def jackknife(log_w):
    lost, count = -np.log1p(-special.softmax(log_w)), len(log_w)
    value = log_mean_exp(log_w) + (count - 1) * (math.log1p(-1 / count) + lost.mean())
    return value, math.sqrt((count - 1) / count * np.sum((lost - lost.mean()) ** 2))


def right_sum(log_w):
    weights = special.softmax(log_w)
    influence = len(log_w) * weights * (log_w - weights @ log_w)
    return weights @ log_w, influence.std(ddof=1) / math.sqrt(len(log_w))


def monotone(weights, rates, centres, time):
    def f(t):
        steps = special.expit(np.logaddexp(0, rates) * (t[..., None] - centres))
        return t + np.sum(np.logaddexp(0, weights) * steps, -1)

    start, end = f(np.zeros(())), f(np.ones(()))
    return -4 + 10 * (f(time) - start) / (end - start)


def importance(squares):
    root = np.sqrt(squares)
    return 0.9 * root / root.sum() + 0.1 / len(squares)


def reverse_step(x_t):
    """From gamma = 1 to -1, x_hat = x_t / 2."""
    c, alphas = -math.expm1(-2), np.sqrt(special.expit([1.0, -1.0]))
    mean = alphas[0] * c * x_t / 2 + alphas[0] / alphas[1] * (1 - c) * x_t
    return mean, np.log(special.expit(-1.0) * c)


def cut_off(v):
    law = stats.truncnorm(-0.5 / 0.3, 0.5 / 0.3, 0.5, 0.3)
    return (law.logpdf(special.expit(v)) + stats.logistic.logpdf(v)).sum()
