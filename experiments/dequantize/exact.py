"""One and two pixels, where every number is an integral: bounds, gaps, and two lecture points."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

import bounds
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.plots import COLORS, new_figure
from experiments.runtime.results import Kind, Row, row
from experiments.studies.curves import bound_curve
from models import bijectors, chains, conditioners, elementwise, flows, quantized_mixture
from models.exact import quadrature
from models.quantized_mixture import EXAMPLE, EXAMPLE_LEVELS

# A location and a log scale for each x: noise as free as its family allows.
NOISES = {
    "logit-normal": bounds.dequantization.normal,
    "logit-logistic": bounds.dequantization.logistic,
}
GROUPS = 200  # of the largest k of IWAE-k


class Control(NamedTuple):
    """A density of one or two pixels in units of integers.

    Attributes:
      levels: of each pixel.
      num_dims: 1 or 2.
      log_density: (theta, x, u) -> log p(x + u).
      theta: its parameters.
      num_nodes: of the quadrature, in each dimension.
    """

    levels: int
    num_dims: int
    log_density: Callable[[Any, Array, Array], Array]
    theta: Any
    num_nodes: int


def one_pixel() -> Control:
    """The mixture of three logistics of `models.quantized_mixture`, on eight levels."""

    def log_density(theta, x, u):
        return jnp.sum(quantized_mixture.truncated_log_density(theta, EXAMPLE_LEVELS, x, u))

    return Control(EXAMPLE_LEVELS, 1, log_density, EXAMPLE, 2001)


def two_pixels(levels: int = 4, seed: int = 0) -> Control:
    """A flow of four mixture couplings with drawn parameters, on all of (0, levels)^2."""
    split = bijectors.channels()
    flow = chains.chain(
        [
            bijectors.logit_preprocess(levels, margin=0.0),
            *(
                bijectors.coupling(
                    _bounded(conditioners.dense((16,), index=i, last_scale=0.4)),
                    elementwise.mixture(3),
                    bijectors.swapped(split) if i % 2 else split,
                )
                for i in range(4)
            ),
        ]
    )
    whole = flows.density(flow)
    key, data_key = jax.random.split(key_for(seed, Purpose.CONTROLS))
    theta = whole.init(key, levels * jax.random.uniform(data_key, (8, 2)))

    def log_density(theta, x, u):
        # Open at both ends: float32 rounds the nodes farthest out onto the edge of the support.
        tiny = 1e-6
        return whole.log_density(theta, jnp.clip(x + u, tiny, levels * (1 - tiny)), None)

    return Control(levels, 2, log_density, theta, 161)


def _bounded(conditioner: bijectors.Conditioner) -> bijectors.Conditioner:
    """A conditioner that gets tanh of its input, a logit that is unbounded near the edge."""
    return bijectors.Conditioner(
        lambda key, a, context, count: conditioner.init(key, jnp.tanh(a), context, count),
        lambda params, a, context, count: conditioner.apply(params, jnp.tanh(a), context, count),
    )


def rows(control: Control, *, num_steps: int, learning_rate: float, counts: tuple, key: Array):
    """The table of a control: exact, and each noise with its gap and its divergence.

    Averages over x are weighted by P(x), so the exact value is the entropy.
    """
    x = quadrature.every_x(control.levels, control.num_dims)
    per_dim = 1 / (control.num_dims * math.log(2))
    at = {"pixels": control.num_dims}
    out: list[Row] = []
    for name in ("uniform", *NOISES):
        model, phi = fitted(control, name, x, num_steps, learning_rate)
        params = bounds.Params(control.theta, phi)
        parts = jax.jit(
            lambda p, m=model: quadrature.integrate(m, p, x, num_nodes=control.num_nodes)
        )(params)
        parts = jax.tree.map(lambda v: np.asarray(v, np.float64), parts)
        mass = np.exp(parts.log_prob)
        if not out:
            out.append(row("total mass", at, kind="exact", unit="probability", value=mass.sum()))
            entropy = -(mass @ parts.log_prob) * per_dim
            out.append(row("exact", at, kind="exact", unit="bits/dim", value=entropy))
        where = {**at, "noise": name}
        values: dict[str, tuple[Kind, float]] = {
            "ELBO": ("upper_bound", -(mass @ parts.elbo) * per_dim),
            "gap": ("exact", (mass @ (parts.log_prob - parts.elbo)) * per_dim),
            "KL(q || p(u|x))": ("exact", (mass @ parts.kl) * per_dim),
        }
        out += [row(n, where, kind=k, unit="bits/dim", value=v) for n, (k, v) in values.items()]
        out += _iwae_rows(model, params, x, mass, per_dim, counts, key, where)
    return out


def fitted(control: Control, name: str, x: Array, num_steps: int, learning_rate: float):
    """(model, phi) of a noise, fitted by the integrated ELBO of every x at once."""
    if name == "uniform":
        return bounds.dequantization.dequantized(
            control.log_density, bounds.dequantization.uniform()
        ), ()

    def parameters(phi, x):
        base = control.levels ** jnp.arange(control.num_dims)[::-1]
        index = jnp.sum(x.astype(jnp.int32) * base)
        return phi[0][index], phi[1][index]

    model = bounds.dequantization.dequantized(control.log_density, NOISES[name](parameters))
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    def loss(phi):
        params = bounds.Params(control.theta, phi)
        nodes = 401 if control.num_dims == 1 else 61  # fewer than for the reported values
        return -jnp.sum(quadrature.integrate(model, params, x, num_nodes=nodes).elbo)

    @jax.jit
    def fit(phi):
        def step(carry, _):
            phi, state = carry
            updates, state = optimizer.update(jax.grad(loss)(phi), state)
            return (optax.apply_updates(phi, updates), state), None

        return jax.lax.scan(step, (phi, optimizer.init(phi)), length=num_steps)[0][0]

    return model, fit((jnp.zeros(x.shape), jnp.zeros(x.shape)))


def _iwae_rows(model, params, x, mass, per_dim, counts, key, at) -> list[Row]:
    """IWAE-k for k in `counts`, from the same draws for each x."""
    draws = GROUPS * max(counts)

    @jax.jit
    def curves(params, key):
        def one(key, x):
            log_w = bounds.log_weights(
                model, params, key, x, num_samples=draws, chunk_size=max(counts)
            )
            return bound_curve(log_w, counts)

        return jax.lax.map(lambda pair: one(*pair), (jax.random.split(key, len(x)), x))

    values, errors = (np.asarray(v, np.float64) for v in curves(params, key))  # [x, k]
    return [
        row(
            f"IW-{k}",
            {**at, "k": k},
            kind="upper_bound",
            unit="bits/dim",
            value=-(mass @ values[:, i]) * per_dim,
            standard_error=float(np.linalg.norm(mass * errors[:, i])) * per_dim,
            n=draws,
        )
        for i, k in enumerate(counts)
    ]


# --- two lecture points -------------------------------------------------------------------------


class Fit(NamedTuple):
    """A density fitted to integers: apparent bits at every step, and the density at the end."""

    bits: np.ndarray
    mixture: elementwise.Mixture


def degenerate_and_dequantized(
    *, num_components: int, num_steps: int, learning_rate: float, key: Array
) -> dict[str, Fit]:
    """Mixtures fitted to the integers of `one_pixel` without noise, with uniform and learned noise.

    Without noise the density at the integers themselves is raised, and nothing bounds it.
    """
    control = one_pixel()
    x = quadrature.every_x(control.levels, 1)
    probabilities = np.exp(quantized_mixture.truncated_log_prob(EXAMPLE, control.levels, x[:, 0]))
    noises = {
        "no noise": None,
        "uniform noise": bounds.dequantization.uniform(),
        "fitted noise": bounds.dequantization.logistic(
            lambda phi, x: (phi[0][x.astype(jnp.int32)], phi[1][x.astype(jnp.int32)])
        ),
    }
    start_key, noise_key = jax.random.split(key)
    half = control.levels / 2
    theta = elementwise.Mixture(
        jnp.zeros(num_components),
        half + half * jax.random.uniform(start_key, (num_components,), minval=-1.0),
        jnp.zeros(num_components),
    )
    phi = (jnp.zeros(control.levels), jnp.zeros(control.levels))

    def log_density(theta, x, u):
        mixture = theta._replace(log_weights=jax.nn.log_softmax(theta.log_weights))
        return jnp.sum(quantized_mixture.truncated_log_density(mixture, control.levels, x, u))

    out = {}
    for number, (name, dequantizer) in enumerate(noises.items()):

        def loss(params, step_key, dequantizer=dequantizer):
            if dequantizer is None:
                values = jax.vmap(lambda x: log_density(params.theta, x, jnp.zeros(1)))(x)
            else:
                model = bounds.dequantization.dequantized(log_density, dequantizer)

                def one(key, x):
                    return bounds.elbo(bounds.log_weights(model, params, key, x, num_samples=64))

                values = jax.vmap(one)(jax.random.split(step_key, len(x)), x)
            return -jnp.sum(probabilities * values)

        optimizer = optax.adam(learning_rate)

        @jax.jit
        def train(params, root, loss=loss, optimizer=optimizer):
            def step(carry, t):
                params, state = carry
                value, grads = jax.value_and_grad(loss)(params, jax.random.fold_in(root, t))
                updates, state = optimizer.update(grads, state)
                return (optax.apply_updates(params, updates), state), value

            carry = (params, optimizer.init(params))
            (params, _), losses = jax.lax.scan(step, carry, jnp.arange(num_steps))
            return params, losses

        params, losses = train(bounds.Params(theta, phi), jax.random.fold_in(noise_key, number))
        mixture = params.theta
        mixture = mixture._replace(log_weights=jax.nn.log_softmax(mixture.log_weights))
        out[name] = Fit(np.asarray(losses, np.float64) / math.log(2), mixture)
    return out


def lecture_figure(fits: dict[str, Fit], entropy: float):
    """Left: apparent bits while fitting. Right: the fitted densities over the histogram."""
    figure, axes = new_figure(1, 4, (14, 3.6))
    colors = dict(zip(fits, (COLORS["red"], COLORS["blue"], COLORS["green"]), strict=True))
    for name, fit in fits.items():
        axes[0].plot(1 + np.arange(len(fit.bits)), fit.bits, color=colors[name], lw=1.2, label=name)
    axes[0].axhline(entropy, color="black", ls="--", lw=1, label="entropy: no model is below")
    axes[0].set_xscale("log")
    axes[0].set_xlabel("step")
    axes[0].set_ylabel("-log density, bits/dim")
    axes[0].set_title("without noise, below the entropy")
    axes[0].legend(fontsize=8)
    x = np.arange(EXAMPLE_LEVELS)
    probabilities = np.exp(
        quantized_mixture.truncated_log_prob(EXAMPLE, EXAMPLE_LEVELS, jnp.asarray(x, float))
    )
    y = np.linspace(1e-3, EXAMPLE_LEVELS - 1e-3, 4001)
    for axis, (name, fit) in zip(axes[1:], fits.items(), strict=True):
        axis.bar(
            x,
            probabilities,
            width=1,
            align="edge",
            color="#dddddd",
            ec="#aaaaaa",
            label="P(x), on [x, x + 1)",
        )
        whole = np.floor(y)
        log_density = quantized_mixture.truncated_log_density(
            fit.mixture, EXAMPLE_LEVELS, jnp.asarray(whole, float), jnp.asarray(y - whole, float)
        )
        axis.plot(y, np.exp(log_density), color=colors[name], lw=1.2, label=f"density, {name}")
        axis.set_ylim(0, 1.2)
        axis.set_xlabel("x + u")
        axis.set_title(name)
        axis.legend(fontsize=8)
    return figure
