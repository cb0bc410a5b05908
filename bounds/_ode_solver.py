r"""The probability-flow ODE of a diffusion model of continuous time, and solvers for it.

In z = alpha x + sigma eps with gamma = log(sigma^2 / alpha^2) as time, and along a straight path
y = z / (alpha + sigma) = (1 - t) x + t eps with t = sigma / (alpha + sigma),

    dz/dgamma = alpha (alpha z - x_hat) / 2,          dy/dt = (y - x_hat) / t,

are one flow in two coordinates, whose change is exact: the densities of z are equal, the errors of
a solver are not.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from bounds._diffusion import Diffusion
from bounds._diffusion_step import predicted, signal_and_noise
from bounds._sampling import over_samples, varying_with

PATHS = ("vp", "straight")

Field = Callable[[Array, Array], Array]
"""(time, state) -> its derivative."""


class Flow(NamedTuple):
    """The ODE in the coordinates of a path.

    Attributes:
      field: (time, state) -> d state / d time.
      start: the time of z_0.
      end: the time of z_1.
      to_state: (z, time) -> state.
      to_z: (state, time) -> z.
      log_volume: log |d z_0 / d state| - log |d z_1 / d state| of one dimension.
    """

    field: Field
    start: Array
    end: Array
    to_state: Callable[[Array, Array], Array]
    to_z: Callable[[Array, Array], Array]
    log_volume: Array


class Solved(NamedTuple):
    """State and integral at the end, the number of evaluations, whether the solver got there."""

    state: Array
    integral: Array
    evaluations: Array
    arrived: Array


def make_flow(model: Diffusion, theta: PyTree, ends: Array, path: str, dtype: Any) -> Flow:
    """The probability-flow ODE between the ends of gamma."""
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}, got {path!r}.")
    ends = ends.astype(dtype)

    def x_hat(z, gamma):
        return predicted(model.denoise, theta, z, gamma, gamma)[0].astype(dtype)

    if path == "vp":

        def field(gamma, z):
            alpha, _ = signal_and_noise(gamma)
            return 0.5 * alpha * (alpha * z - x_hat(z, gamma))

        nothing = jnp.zeros((), dtype)
        return Flow(field, ends[0], ends[1], lambda z, _: z, lambda z, _: z, nothing)

    def scale(t):
        """alpha + sigma."""
        return jax.lax.rsqrt(jnp.square(1 - t) + jnp.square(t))

    def straight(t, y):
        gamma = 2 * (jnp.log(t) - jnp.log1p(-t))
        return (y - x_hat(scale(t) * y, gamma)) / t

    start, end = jax.nn.sigmoid(0.5 * ends)
    volume = jnp.log(scale(start)) - jnp.log(scale(end))
    return Flow(straight, start, end, lambda z, t: z / scale(t), lambda y, t: scale(t) * y, volume)


def with_divergence(
    field: Field, probes: Array | None, chunk_size: int | None
) -> Callable[[Array, Array], tuple[Array, Array]]:
    """(time, state) -> (derivative, its divergence), exact or the mean of v^T J v over probes."""

    def both(time, state):
        value, push = jax.linearize(lambda state: field(time, state), state)
        directions = probes
        if directions is None:
            directions = jnp.eye(state.size, dtype=state.dtype).reshape(-1, *state.shape)
        directions = varying_with(directions, jnp.sum(state))
        products = over_samples(lambda v: jnp.sum(v * push(v)), directions, chunk_size)
        return value, jnp.sum(products) if probes is None else jnp.mean(products)

    return both


def rk4(
    field: Callable[[Array, Array], tuple[Array, Array]],
    state: Array,
    start: Array,
    end: Array,
    num_steps: int,
) -> Solved:
    """Runge-Kutta of order 4 by equal steps, with the integral of the field's second output."""
    step = (end - start) / num_steps
    # Of every stage: where it looks, as a share of the step, and its weight. One body for all four
    # keeps a network in the program once.
    shares = jnp.array([[0.0, 1 / 6], [0.5, 1 / 3], [0.5, 1 / 3], [1.0, 1 / 6]], state.dtype)

    def one(carry, number):
        def stage(carry, share_and_weight):
            slope, so_far = carry
            share, weight = share_and_weight
            found = field(start + (number + share) * step, before + share * step * slope)
            total = jax.tree.map(lambda sum, value: sum + weight * step * value, so_far, found)
            return (found[0], total), None

        before, _ = carry
        (_, after), _ = jax.lax.scan(stage, (jnp.zeros_like(before), carry), shares)
        return after, None

    numbers = jnp.arange(num_steps).astype(state.dtype)
    (state, integral), _ = jax.lax.scan(one, _first(field, state, start), numbers)
    return Solved(state, integral, jnp.asarray(4 * num_steps), jnp.isfinite(integral))


def adaptive(
    field: Callable[[Array, Array], tuple[Array, Array]],
    state: Array,
    start: Array,
    end: Array,
    num_steps: int,
    tolerance: float,
) -> Solved:
    """diffrax's Dormand-Prince of order 5, whose steps keep to a tolerance; at most `num_steps`."""
    try:
        import diffrax
    except ImportError:
        raise ImportError(
            "a tolerance needs the adaptive solver of diffrax; install "
            "variational-bounds[ode], or leave tolerance=None for steps of equal size."
        ) from None
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda time, both, _: field(jnp.asarray(time), both[0])),
        diffrax.Dopri5(),
        start,
        end,
        None,
        _first(field, state, start),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=num_steps,
        throw=False,
    )
    last, integral = jax.tree.map(lambda leaf: leaf[-1], solution.ys)
    arrived = (solution.result == diffrax.RESULTS.successful) & jnp.isfinite(integral)
    # Six new evaluations a step: the last of one is the first of the next.
    evaluations = 6 * solution.stats["num_steps"] + 1
    return Solved(last, integral, evaluations, arrived)


def _first(
    field: Callable[[Array, Array], tuple[Array, Array]], state: Array, start: Array
) -> tuple[Array, Array]:
    """State and integral at the start, of the type that a step gives them, as shard_map asks."""
    slope, divergence = field(start, state)
    return varying_with((state, jnp.zeros((), state.dtype)), jnp.sum(slope) + divergence)
