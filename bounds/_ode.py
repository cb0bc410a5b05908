r"""The density of a diffusion model's probability-flow ODE: exact for that flow, up to its solver.

It is the density of ANOTHER model than the one whose bound `continuous_estimate` is of: with the
exact score both are the density of the data, with any other they differ, and the ODE's may lie on
either side of the ELBO.

Sources: Song et al. 2021 (arXiv 2011.13456), appendix D.1 and D.2; Chen et al. 2018
(arXiv 1806.07366) for the divergence along a flow; Lipman et al. 2023 (arXiv 2210.02747) for
straight paths.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from bounds._checks import (
    at_least_float32,
    check_at_least,
    check_chunk_size,
    check_continuous_gamma,
    check_count,
    is_known,
    nan_unless,
)
from bounds._diffusion import Diffusion
from bounds._diffusion_step import signal_and_noise
from bounds._ode_solver import Solved, adaptive, make_flow, rk4, with_divergence
from bounds._types import Key

TRACES = ("exact", "hutchinson")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OdeLogProb:
    """A log-density by the probability-flow ODE: no tuple, which `iwae` would take for an array.

    Attributes:
      value: in nats.
      solver_error: |difference| in nats from the same by half as many steps, or ten times the
        tolerance; of the worse of the two, so rather too large. It bounds in no direction.
      num_evaluations: of the field and its divergence, behind the value alone.
      of: the function whose value it is: "log p", or with fixed probes "log p with v^T J v for the
        divergence", which is another function of z and no log-density.
    """

    value: Float[Array, "*batch"]
    solver_error: Float[Array, "*batch"]
    num_evaluations: Int[Array, "*batch"]
    of: str = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OdeEstimate:
    """An unbiased estimate of log p of the ODE by drawn probes: to be averaged, and nothing else.

    Its exponential is too large on average, so it is no array and cannot enter `iwae`,
    `log_likelihood` or a `dequantized` model.

    Attributes:
      value: the estimate in nats.
      solver_error: as in `OdeLogProb`, with the same probes.
      num_evaluations: as in `OdeLogProb`.
    """

    value: Float[Array, "*batch"]
    solver_error: Float[Array, "*batch"]
    num_evaluations: Int[Array, "*batch"]


def ode_log_prob(
    model: Diffusion,
    theta: PyTree,
    key: Key | None,
    z: Array,
    *,
    num_steps: int,
    path: str = "vp",
    tolerance: float | None = None,
    largest_error: float | int = 0.01,
    trace: str = "exact",
    num_probes: int = 1,
    probes: Array | None = None,
    chunk_size: int | None = None,
) -> OdeLogProb | OdeEstimate:
    r"""The log-density of z at gamma(0) under the probability-flow ODE.

    .. math:: \frac{dz}{d\gamma} = \frac{\alpha}{2} (\alpha z - \hat x), \qquad
       \log p(z_0) = \log \mathcal N(z_1; 0, 1)
       + \int_{\gamma(0)}^{\gamma(1)} \sum_d \partial_d \frac{dz_d}{d\gamma} \, d\gamma

    with z_1 where the flow takes z_0 = z. It is integrated in gamma, so the model's schedule
    between its ends does not matter.

    Args:
      model: of continuous time; only its gamma and denoise are looked at, and of what denoise
        returns the prediction alone.
      theta: its parameters.
      key: PRNG key of the probes; None where none is drawn.
      z: a latent at gamma(0): of data x with noise, alpha_0 encode(x) + sigma_0 eps, not x itself.
      num_steps: of equal size, by Runge-Kutta of order 4, even; with a `tolerance` the most that
        the adaptive solver may take.
      path: in which coordinates and time steps are taken: "vp", z and gamma, or "straight", those
        of flow matching, z / (alpha + sigma) and t = sigma / (alpha + sigma). Both have one
        density; their solvers' errors differ.
      tolerance: relative and absolute of a step of diffrax; None for equal steps. diffrax does not
        run under `jax.shard_map`.
      largest_error: the largest `solver_error` that is let through, in nats per dimension.
      trace: "exact", by as many products J v as z has dimensions, or "hutchinson", the mean of
        v^T J v over probes v, which stay the same all along the flow.
      num_probes: how many are drawn, of +-1.
      probes: [P, *shape of z], P fixed ones in their place.
      chunk_size: products J v in memory at once; None for all.

    Returns:
      `OdeLogProb`; an `OdeEstimate` where probes are drawn. Where the solver did not converge
      and that cannot be raised because values are traced, the value and its gradient are NaN.

    Raises:
      ImportError: `tolerance` is given without diffrax.
      TypeError: a count is not an integer.
      ValueError: the model is of discrete time, an argument is out of range or of a wrong shape,
        or the solver does not converge: it needs more steps, its error is above `largest_error`,
        or the value is not finite.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> model = bounds.diffusion.Diffusion(  # of a standard normal datum
      ...     bounds.diffusion.linear_gamma, lambda x: x,
      ...     bounds.diffusion.denoiser(lambda theta, x_t, g: jnp.sqrt(jax.nn.sigmoid(-g)) * x_t,
      ...                               prediction="x"),
      ...     lambda theta, x, z_0, x_hat: 0.0)
      >>> z = jnp.array([0.5, -1.0])
      >>> found = bounds.diffusion.ode_log_prob(model, None, None, z, num_steps=16)
      >>> bool(abs(found.value - norm.logpdf(z).sum()) < 1e-5), found.of
      (True, 'log p')

    Source: Song et al. 2021 (arXiv 2011.13456), eq. 39 and 40, in terms of gamma.
    """
    ends, z = _checked(model, z, num_steps, tolerance)
    if tolerance is None and num_steps % 2:
        raise ValueError(
            f"num_steps must be even, because half of them measure the error; got {num_steps}."
        )
    drawn = probes is None and trace == "hutchinson"
    if trace not in TRACES:
        raise ValueError(f"trace must be one of {', '.join(TRACES)}, got {trace!r}.")
    if probes is not None:
        probes = jnp.asarray(probes, z.dtype)
        if trace != "hutchinson" or probes.shape[1:] != z.shape or not probes.size:
            raise ValueError(
                f"probes are for trace='hutchinson' and of shape [P, *shape of z], here "
                f"{('P', *z.shape)}; got shape {probes.shape} and trace={trace!r}."
            )
    if drawn:
        shape = (check_count("num_probes", num_probes), *z.shape)
        if key is None:
            raise ValueError("trace='hutchinson' draws its probes with a key; got None.")
        probes = jax.random.rademacher(key, shape, z.dtype)
    allowed = check_at_least("largest_error", largest_error, 0.0, strictly=True)
    flow = make_flow(model, theta, ends, path, z.dtype)
    field = with_divergence(flow.field, probes, check_chunk_size(chunk_size))
    start = flow.to_state(z, flow.start)

    def solve(coarser: int) -> tuple[Array, Solved]:
        found = _solve(field, start, flow.start, flow.end, num_steps, tolerance, coarser)
        z_1 = flow.to_z(found.state, flow.end)
        last = -0.5 * jnp.sum(jnp.square(z_1) + math.log(2 * math.pi))
        return last + found.integral - z.size * flow.log_volume, found

    value, found = solve(1)
    control, other = solve(2)
    error = jnp.abs(value - control)
    small = error <= allowed.astype(z.dtype) * max(z.size, 1)
    value *= _one_unless_refused(found.arrived & other.arrived & small, error, num_steps)
    if drawn:
        return OdeEstimate(value, error, found.evaluations)
    of = "log p" if probes is None else "log p with v^T J v for the divergence"
    return OdeLogProb(value, error, found.evaluations, of)


def ode_transport(
    model: Diffusion,
    theta: PyTree,
    z: Array,
    *,
    num_steps: int,
    backward: bool = False,
    path: str = "vp",
    tolerance: float | None = None,
) -> Array:
    r"""Where the probability-flow ODE takes z_0, or backward where it takes z_1 from: samples.

    .. math:: z_1 = z_0 + \int_{\gamma(0)}^{\gamma(1)} \frac\alpha2 (\alpha z - \hat x) \, d\gamma

    From z_1 of a standard normal distribution it gives z_0 of the density of `ode_log_prob`.

    Args:
      model: of continuous time.
      theta: its parameters.
      z: z_0 at gamma(0), or z_1 at gamma(1) where `backward`.
      num_steps: as in `ode_log_prob`, even or odd.
      backward: from gamma(1) to gamma(0).
      path: as in `ode_log_prob`.
      tolerance: as in `ode_log_prob`.

    Returns:
      z at the other end; NaN where the adaptive solver does not get there.

    Raises:
      ImportError: `tolerance` is given without diffrax.
      TypeError: `num_steps` is not an integer.
      ValueError: the model is of discrete time, or an argument is out of range.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.diffusion.Diffusion(  # of a standard normal datum: z stays as it is
      ...     bounds.diffusion.linear_gamma, lambda x: x,
      ...     bounds.diffusion.denoiser(lambda theta, x_t, g: jnp.sqrt(jax.nn.sigmoid(-g)) * x_t,
      ...                               prediction="x"),
      ...     lambda theta, x, z_0, x_hat: 0.0)
      >>> z = bounds.diffusion.ode_transport(model, None, jnp.ones(2), num_steps=8, backward=True)
      >>> [round(float(v), 4) for v in z]
      [1.0, 1.0]

    Source: Song et al. 2021 (arXiv 2011.13456), eq. 13.
    """
    ends, z = _checked(model, z, num_steps, tolerance)
    flow = make_flow(model, theta, ends, path, z.dtype)
    start, end = (flow.end, flow.start) if backward else (flow.start, flow.end)

    def field(time, state):
        return flow.field(time, state), jnp.zeros((), z.dtype)

    found = _solve(field, flow.to_state(z, start), start, end, num_steps, tolerance, 1)
    # A factor, so that the gradient is NaN where the value is.
    return flow.to_z(found.state, end) * (1 + nan_unless(found.arrived)).astype(z.dtype)


def ode_log_density(
    model: Diffusion,
    *,
    levels: int,
    num_steps: int,
    path: str = "vp",
    tolerance: float | None = None,
    largest_error: float | int = 0.01,
    probes: Array | None = None,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Callable[[PyTree, Array, Array], Any]:
    r"""The ODE's density of integers with noise, as `dequantization.dequantized` takes it.

    .. math:: \log p(x + u) = \log p\Bigl(z_0 = \alpha_0 \Bigl[\frac{2 (x + u) - 1}{L - 1} - 1
       \Bigr]\Bigr) + D \log \frac{2 \alpha_0}{L - 1}

    z_0 starts at gamma(0) and not at the data: cells reach half a step to both sides of where
    `densities.scale_levels` puts their level, and the last term is the change of unit. With
    `dequantization.truncated_normal` z_0 is the datum under the noise of gamma(0), cut off there.

    Args:
      model: of continuous time, of integers that it encodes as `densities.scale_levels` does.
      levels: L, as many as the data have.
      num_steps: as in `ode_log_prob`, as are path, tolerance and largest_error.
      path: see there.
      tolerance: see there.
      largest_error: see there.
      probes: fixed ones, [P, *shape of x]; None for the exact trace. With them it is a density no
        longer, and the bounds are bounds on nothing.
      chunk_size: see there.
      has_aux: whether the `OdeLogProb` of z_0 is returned beside the value.

    Returns:
      (theta, x, u) -> log p(x + u) in nats, with has_aux (value, `OdeLogProb`).

    Raises:
      TypeError: a count is not an integer.
      ValueError: the model is of discrete time; when it is called, `levels` are not those of the
        model's encode, and what `ode_log_prob` raises.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.diffusion.Diffusion(
      ...     bounds.diffusion.linear_gamma, lambda x: bounds.densities.scale_levels(x, levels=4),
      ...     bounds.diffusion.denoiser(lambda theta, x_t, g: theta * x_t, prediction="x"),
      ...     lambda theta, x, z_0, x_hat: 0.0)
      >>> density = bounds.diffusion.ode_log_density(model, levels=4, num_steps=32)
      >>> latent = bounds.dequantization.dequantized(density, bounds.dequantization.uniform())
      >>> bounds.log_weights(latent, bounds.Params(0.5, None), jax.random.key(0),
      ...                    jnp.array([3.0]), num_samples=2).shape
      (2,)

    Source: Zheng et al. 2023 (arXiv 2305.03935), section 3.2.
    """
    check_count("levels", levels, 2)
    ends = check_continuous_gamma("ode_log_density", model.gamma)

    def log_density(theta, x, u):
        x, u = jnp.asarray(x, float), at_least_float32(u)
        for level, wanted in ((0, -1.0), (levels - 1, 1.0)):
            found = model.encode(np.full(x.shape, level))
            if is_known(found) and not np.allclose(found, wanted, atol=1e-5):
                raise ValueError(
                    f"levels={levels} are not those of the model: its encode puts level {level} at "
                    f"{np.ravel(found)[0]:g} and not at {wanted:g}; scale_levels(x, levels=...) "
                    "and this number must be those of the data."
                )
        alpha, _ = signal_and_noise(ends[0].astype(u.dtype))
        width = 2 / (levels - 1)
        z_0 = alpha * (jnp.asarray(model.encode(x), u.dtype) + width * (u - 0.5))
        found = ode_log_prob(
            model, theta, None, z_0, num_steps=num_steps, path=path, tolerance=tolerance,
            largest_error=largest_error, trace="exact" if probes is None else "hutchinson",
            probes=probes, chunk_size=chunk_size,
        )  # fmt: skip
        value = found.value + u.size * (jnp.log(alpha) + math.log(width))
        return (value, found) if has_aux else value

    return log_density


def _checked(
    model: Diffusion, z: Any, num_steps: int, tolerance: float | None
) -> tuple[Array, Array]:
    """(ends of gamma, z in at least float32)."""
    check_count("num_steps", num_steps)
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be a positive number, got {tolerance}.")
    return check_continuous_gamma("the ODE", model.gamma), at_least_float32(z)


def _solve(field, state, start, end, num_steps, tolerance, coarser) -> Solved:
    if tolerance is None:
        return rk4(field, state, start, end, num_steps // coarser)
    return adaptive(field, state, start, end, num_steps, tolerance * (1 if coarser == 1 else 10))


def _one_unless_refused(converged: Bool[Array, ""], error: Array, num_steps: int) -> Array:
    """1, or NaN where values are traced; raises where they can be looked at.

    It is a factor, because a NaN that is added has no part in a gradient.
    """
    if is_known((converged, error)) and not bool(converged):
        raise ValueError(
            f"the solver did not converge within num_steps={num_steps}: its error is "
            f"{float(error):g} nats; take more steps or a smaller tolerance, or allow a larger "
            "largest_error per dimension."
        )
    return (1 + nan_unless(converged)).astype(error.dtype)
