"""Data whose score is known: mixtures of Gaussians under noise, and wrong linear scores."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

import bounds


def signal_and_noise(gamma):
    return jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))


class Mixture(NamedTuple):
    """sum_k w_k N(m_k, s_k^2 I): log weights [K], means [K, D], variances [K]."""

    log_weights: jax.Array
    means: jax.Array
    variances: jax.Array

    def _parts(self, z, gamma):
        alpha, sigma = signal_and_noise(gamma)
        spread = alpha**2 * self.variances + sigma**2
        away = z[None] - alpha * self.means
        squares = jnp.sum(jnp.square(away), -1) / spread
        log_parts = self.log_weights - 0.5 * (squares + z.size * jnp.log(2 * jnp.pi * spread))
        return alpha, spread, away, log_parts

    def log_prob(self, z, gamma):
        """Of z = alpha x + sigma eps."""
        return logsumexp(self._parts(z, gamma)[-1])

    def x_hat(self, z, gamma):
        """E[x | z]."""
        alpha, spread, away, log_parts = self._parts(z, gamma)
        each = self.means + (alpha * self.variances / spread)[:, None] * away
        return jnp.sum(jax.nn.softmax(log_parts)[:, None] * each, 0)


def mixture(dims, components, seed=0):
    rng = np.random.default_rng(seed)
    return Mixture(
        jnp.log(jnp.asarray(rng.dirichlet(np.full(components, 3.0)), float)),
        jnp.asarray(rng.normal(size=(components, dims)), float),
        jnp.asarray(rng.uniform(0.1, 0.6, components), float),
    )


def linear(gamma_min, gamma_max):
    return lambda time: bounds.diffusion.linear_gamma(
        time, gamma_min=gamma_min, gamma_max=gamma_max
    )


def straight(gamma_min, gamma_max):
    return lambda time: bounds.diffusion.straight_gamma(
        time, gamma_min=gamma_min, gamma_max=gamma_max
    )


def model_of(x_hat, gamma, *, prediction="x", encode=lambda x: x):
    """The model with x_hat(z, gamma), by any name of the prediction; theta scales x_hat."""

    def predict(theta, seen, at):
        alpha, sigma = signal_and_noise(at)
        z = seen * (alpha + sigma) if prediction == "velocity" else seen
        x = x_hat(z, at) * (1.0 if theta is None else theta)
        if prediction == "velocity":
            return (seen - x) * (alpha + sigma) / sigma
        return (z - alpha * x) / sigma if prediction == "eps" else x

    denoise = bounds.diffusion.denoiser(predict, prediction=prediction)
    return bounds.diffusion.Diffusion(
        gamma, encode, denoise, lambda theta, x, z_0, x_hat: jnp.zeros(())
    )


class WrongLinear(NamedTuple):
    """The score of N(0, s^2) for other data: every density of the model in closed form, D = 1.

    With w = e^gamma and V = (s^2 + w) / (1 + w), z scales along the ODE as sqrt(V). Along the SDE
    its variance solves dP/dgamma = (2 sigma^2 / V - sigma^2) P - sigma^2, of which V is a solution.
    """

    variance: float
    gamma_min: float
    gamma_max: float

    def x_hat(self, z, gamma):
        alpha, sigma = signal_and_noise(gamma)
        return alpha * self.variance / (alpha**2 * self.variance + sigma**2) * z

    def marginal(self, gamma):
        return (self.variance + math.exp(gamma)) / (1 + math.exp(gamma))

    @property
    def of_ode(self):
        """Variance of z_0."""
        return self.marginal(self.gamma_min) / self.marginal(self.gamma_max)

    @property
    def of_sde(self):
        first, last = math.exp(self.gamma_min), math.exp(self.gamma_max)
        kept = ((self.variance + first) / (self.variance + last)) ** 2 * (1 + last) / (1 + first)
        return self.marginal(self.gamma_min) + (1 - self.marginal(self.gamma_max)) * kept

    def log_prob_of_x(self, variance_of_z, x):
        """With the decoder N(x; z_0 / alpha_0, sigma_0^2 / alpha_0^2)."""
        w = math.exp(self.gamma_min)
        spread = variance_of_z * (1 + w) + w
        return -0.5 * (np.square(x) / spread + math.log(2 * math.pi * spread))

    def elbo(self, x):
        """The bound of continuous time with that decoder."""
        nodes, weights = np.polynomial.legendre.leggauss(200)
        half = (self.gamma_max - self.gamma_min) / 2
        gamma = self.gamma_min + half * (nodes + 1)
        w, last = np.exp(gamma), math.exp(-self.gamma_max)
        # Of x - x_hat = (1 - c alpha) x - c sigma eps the square, with c alpha = s^2 / (s^2 + w).
        share = self.variance / (self.variance + w)
        squares = (1 - share) ** 2 * np.square(x)[:, None] + share**2 * w
        term = 0.5 * half * (squares / w) @ weights
        alpha_squared = last / (1 + last)
        prior = 0.5 * (alpha_squared * np.square(x) - alpha_squared - math.log1p(-alpha_squared))
        decoded = -0.5 * (math.log(2 * math.pi) + self.gamma_min + 1)
        return decoded - prior - term
