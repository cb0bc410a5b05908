"""Argument checks: a wrong argument raises with what was given and what was wanted."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

GREATEST_GAMMA = 60.0


def check_count(name: str, value: object, minimum: int = 1) -> int:
    """Returns `value` as an int of at least `minimum`, or raises."""
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name} must be a Python integer, got {value!r} ({type(value).__name__}); "
            "array sizes have to be known when the function is traced."
        ) from None
    if count < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {count}.")
    return count


def at_least_float32(value: object) -> Array:
    """As an array of at least float32: half precision can neither hold nor sum log-densities."""
    array = jnp.asarray(value)  # type: ignore[arg-type]
    # A Python number stays weakly typed: it follows the arrays beside it.
    wide = array.dtype.itemsize >= 4 and jnp.issubdtype(array.dtype, jnp.inexact)
    return array if wide else array.astype(jnp.float32)


def check_fits(name: str, shape: tuple[int, ...], **others: object) -> None:
    """Raises where one of the others would broadcast `name`, of this shape, to something else."""
    for other, value in others.items():
        found = jnp.shape(value)  # type: ignore[arg-type]
        if len(found) > len(shape) or any(
            mine not in (1, size) for mine, size in zip(found[::-1], shape[::-1], strict=False)
        ):
            raise ValueError(
                f"{other} must be broadcastable to {name} of shape {shape}, got shape {found}."
            )


def nan_unless(condition: object) -> Array:
    """0, or NaN: added to what cannot be refused because its arguments are traced."""
    return jnp.where(jnp.asarray(condition), 0.0, jnp.nan)


def check_chunk_size(chunk_size: object) -> int | None:
    """Returns a chunk size, None meaning everything at once."""
    return None if chunk_size is None else check_count("chunk_size", chunk_size)


def check_number(name: str, value: object) -> None:
    """Raises where a setting is no number, as a value with a kind is not."""
    try:
        jnp.asarray(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name} must be a number, got {type(value).__name__}; an estimate or a bound is none."
        ) from None


def check_at_least(
    name: str, value: object, least: float, *, strictly: bool = False, instead: str = ""
) -> Array:
    """Returns a scalar, refusing a known one below `least`, or equal to it if `strictly`.

    A traced one that is too small becomes NaN.
    """
    check_number(name, value)
    array = jnp.asarray(value, float)  # type: ignore[arg-type]
    if array.shape != ():
        raise ValueError(f"{name} must be one number, got shape {array.shape}.")
    if is_known(value):
        # Compared in the dtype in which it is used: in float32 a small one may have become 0.
        known = float(np.asarray(value, array.dtype))
        if not np.isfinite(known) or known < least or (strictly and known == least):
            wanted = f"above {least:g}" if strictly else f"at least {least:g}"
            advice = f"; {instead}" if instead else ""
            raise ValueError(f"{name} must be a finite number {wanted}, got {known:g}{advice}.")
        return array
    return jnp.where((array > least) if strictly else (array >= least), array, jnp.nan)


def check_share(name: str, value: object, advice: str = "") -> Array:
    """Returns a scalar in (0, 1], refusing a known one that is not; a traced one becomes NaN."""
    array = jnp.asarray(value, float)  # type: ignore[arg-type]
    if array.shape != ():
        raise ValueError(f"{name} must be one number, got shape {array.shape}.")
    if is_known(value):
        known = float(np.asarray(value, array.dtype))
        if not 0 < known <= 1:
            raise ValueError(f"{name} must lie in (0, 1], got {known}{advice and '; ' + advice}.")
        return array
    return jnp.where((array > 0) & (array <= 1), array, jnp.nan)


def check_step(name: str, value: object, highest: int, because: str = "") -> Array:
    """Returns an integer as an array, or raises where it is known not to be in 1 .. highest."""
    array = jnp.asarray(value)  # type: ignore[arg-type]
    if array.shape != () or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name} must be one integer, got {array.dtype} of shape {array.shape}.")
    if is_known(value) and not 1 <= (known := int(np.asarray(value))) <= highest:
        raise ValueError(f"{name} must lie in 1 .. {highest}, got {known}{because}.")
    return array


def check_log_w(log_w: object, axis: int) -> tuple[Float[Array, "..."], int]:
    """Returns log-weights in at least float32 and a non-negative axis, or raises."""
    try:
        array = jnp.asarray(log_w)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"log_w must be an array of log-weights, got {type(log_w).__name__}; what is "
            "an estimate (evidence.Value, diffusion.BoundEstimate, diffusion.OdeEstimate) can only "
            "be averaged, and of diffusion.OdeLogProb the number is its value."
        ) from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"log_w must be floating-point log-weights in nats, got dtype {array.dtype}; "
            "convert with log_w.astype(jnp.float32) if they really are log-weights."
        )
    axis = check_axis(axis, array.ndim)
    if array.shape[axis] == 0:
        raise ValueError(f"log_w has no samples: shape {array.shape} is empty along axis {axis}.")
    # Half precision cannot hold a log-likelihood (bfloat16 near -86 has steps of 0.5).
    return at_least_float32(array), axis


def check_axis(axis: int, ndim: int) -> int:
    """Returns `axis` counted from the front, or raises ValueError."""
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise ValueError(
            f"axis {axis} is not there: log_w has {ndim} dimension(s); "
            "the samples lie on `axis`, by default the last."
        )
    return axis % ndim


def check_scalar(name: str, value: object) -> Float[Array, ""]:
    """Returns a floating scalar that a model function produced, or raises."""
    try:
        array = jnp.asarray(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name} must return one number, got {type(value).__name__}; what is an estimate "
            "(evidence.Value, diffusion.BoundEstimate, diffusion.OdeEstimate) can only be "
            "averaged, and of diffusion.OdeLogProb the number is its value."
        ) from None
    if array.shape != ():
        raise ValueError(
            f"{name} must return one number for one datum, got shape {array.shape}; "
            "sum over the event's dimensions, and jax.vmap the objective over data."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must return a floating-point number, got dtype {array.dtype}.")
    return at_least_float32(array)


def check_reparameterized(estimator: str, z: object) -> None:
    """Raises where a z has leaves through which no path derivative can flow."""
    dtypes = [jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(z)]
    wrong = [str(dtype) for dtype in dtypes if not jnp.issubdtype(dtype, jnp.floating)]
    if wrong:
        kind = "a discrete z" if len(wrong) == len(dtypes) else "the whole of a z that has both"
        raise TypeError(
            f"{estimator} differentiates through z, so z must be floating-point and "
            f"reparameterised, got dtype {', '.join(wrong)}; "
            f"use bounds.vimco, bounds.rloo or bounds.ovis for {kind}."
        )


def check_log_q(estimator: str, log_q: object, instead: str = "bounds.pathwise") -> None:
    """Raises where an estimator needs log q(z | x) at a given z and the model has none."""
    if log_q is None:
        raise ValueError(
            f"{estimator} evaluates log q(z | x) at a given z, but this model has log_q=None; "
            f"use {instead}, or give LatentModel a log_q."
        )


def check_continuous(sampler: str, z: object) -> None:
    """Raises where a z has leaves that Hamiltonian dynamics cannot move."""
    dtypes = [jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(z)]
    wrong = [str(dtype) for dtype in dtypes if not jnp.issubdtype(dtype, jnp.floating)]
    if wrong:
        raise TypeError(
            f"{sampler} moves z along gradients, so z must be floating-point, "
            f"got dtype {', '.join(wrong)}; use bounds.log_likelihood for a discrete z."
        )


def check_betas(betas: object) -> Float[Array, "T"]:
    """Returns the inverse temperatures of an annealed path, or raises."""
    array = jnp.asarray(betas, float)  # type: ignore[arg-type]
    if array.ndim != 1 or array.shape[0] < 2:
        raise ValueError(f"betas must be at least [0, 1], one per temperature; got {array.shape}.")
    if is_known(betas):
        # Compared in the dtype in which they are used: in float32 two neighbours may be equal.
        known = np.asarray(betas, array.dtype)
        if known[0] != 0 or known[-1] != 1 or not np.all(np.diff(known) > 0):
            raise ValueError(
                "betas must start at 0, increase strictly and end at 1, "
                f"got {np.array2string(known, threshold=6)}."
            )
    return array


def check_step_sizes(step_sizes: object, count: int) -> Float[Array, "steps"]:
    """Returns one step size for each of `count` transitions, or raises."""
    array = jnp.asarray(step_sizes, float)  # type: ignore[arg-type]
    if array.shape not in ((), (count,)):
        raise ValueError(
            f"step_sizes must be one number or have shape {(count,)}, one for each beta "
            f"strictly between 0 and 1; got shape {array.shape}."
        )
    if is_known(step_sizes):
        known = np.asarray(step_sizes, array.dtype)
        if not np.all((known > 0) & np.isfinite(known)):
            raise ValueError(f"step_sizes must be positive and finite, got {known}.")
    return jnp.broadcast_to(array, (count,))


def check_gamma(gamma: object) -> Float[Array, "T"]:
    """Returns a schedule of discrete time that falls in its SNR, or raises; NaN if traced."""
    if callable(gamma):
        raise ValueError(
            "this model's gamma is a function of continuous time, which has no steps; use "
            "bounds.diffusion.continuous_estimate, or give the model "
            "bounds.diffusion.discretize(gamma, num_steps)."
        )
    array = jnp.asarray(gamma, float)  # type: ignore[arg-type]
    if array.ndim != 1 or array.shape[0] < 1:
        raise ValueError(f"gamma must have shape [T] with T at least 1, got shape {array.shape}.")
    if is_known(gamma):
        known = np.asarray(gamma, array.dtype)
        if not (np.all(np.isfinite(known)) and np.all(np.diff(known) > 0)):
            raise ValueError(
                "gamma = -log SNR must be finite and increase strictly with t, got "
                f"{np.array2string(known, threshold=6)}."
            )
        if np.max(np.abs(known)) > GREATEST_GAMMA:
            raise ValueError(
                f"gamma = -log SNR must lie within +-{GREATEST_GAMMA:g}, where float32 holds the "
                f"SNR, got {np.array2string(known, threshold=6)}."
            )
        return array
    falls = jnp.all(jnp.diff(array) > 0) & jnp.all(jnp.abs(array) <= GREATEST_GAMMA)
    return jnp.where(falls, array, jnp.nan)


def check_continuous_gamma(user: str, gamma: object) -> Float[Array, "2"]:
    """Returns the ends of a schedule of continuous time whose SNR falls all the way, or raises."""
    if not callable(gamma):
        raise ValueError(
            f"{user} takes a model whose gamma is a function of t in [0, 1], such as "
            "bounds.diffusion.linear_gamma, and not an array of steps, whose estimate is "
            "bounds.diffusion.discrete_estimate."
        )
    with jax.ensure_compile_time_eval():  # under jit too the order can be looked at
        return check_gamma(gamma(jnp.linspace(0.0, 1.0, 33)))[jnp.array([0, -1])]


def is_known(value: object) -> bool:
    """Whether its numbers can be looked at, which tracers do not allow."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
