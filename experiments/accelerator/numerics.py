"""What only an accelerator can get wrong: matrix products, random numbers, gradients.

`python -m experiments.accelerator.numerics SETTINGS FILE` computes the same on the device and in
the precision that its environment names: for the reference those are the CPU and float64.
"""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import norm
from jaxtyping import Array, PyTree

import bounds
from experiments.accelerator.settings import Numerics, Visit
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.results import Row, row

# Of the Euclidean norm of the error, relative to that of the reference: several times what a CPU
# errs by in float32 (4e-7, 5e-8 and 6e-5, the weights of IWAE being exponentials of numbers near
# 500), and a tenth of what inputs rounded to bfloat16 do (2e-3, 1e-5 and 6e-3).
TOLERANCE = {"product": 1e-5, "value": 1e-6, "gradient": 3e-4, "normal": 1e-6}
OBJECTIVES = {"pathwise": bounds.pathwise, "dreg": bounds.dreg}
_HIDDEN, _LATENTS = 64, 16
Arrays = dict[str, np.ndarray]


def part(settings: Visit) -> Iterator[list[Row]]:
    """Rows of everything that is compared, and of what must be found wrong."""
    asked = settings.numerics
    exact = reference(asked)
    here = drawn(asked, 0)
    yield [_of_draws(name, here[name], exact[name]) for name in here]
    yield [_of_draws("bits", drawn(asked, 1)["bits"], exact["bits"], of="another seed", wrong=True)]
    for of, found, wrong in (
        ("highest", computed(asked, "highest"), False),
        ("bfloat16 inputs", computed(asked, "highest", coarse), True),
        ("the device's default", computed(asked, None), None),
    ):
        yield [_compared(name, found[name], exact[name], of, wrong) for name in found]


def drawn(asked: Numerics, seed: int) -> Arrays:
    """Random numbers of every kind, in the types that they have without 64 bits."""

    @jax.jit
    def draw(key: Array) -> dict[str, Array]:
        keys, shape = jax.random.split(key, 6), (asked.draws,)
        return {
            "bits": jax.random.bits(keys[0], shape, jnp.uint32),
            "uniform": jax.random.uniform(keys[1], shape, jnp.float32),
            "bernoulli": jax.random.bernoulli(keys[2], jnp.float32(0.3), shape),
            "permutation": jax.random.permutation(keys[3], asked.draws),
            "folded keys": jax.random.key_data(
                jax.vmap(jax.random.fold_in, (None, 0))(keys[4], jnp.arange(asked.draws))
            ),
            "normal": jax.random.normal(keys[5], shape, jnp.float32),
        }

    key = key_for(seed, Purpose.VISIT_NUMBERS)
    return {name: np.asarray(value) for name, value in draw(key).items()}


def computed(
    asked: Numerics, precision: str | None, rounded: Callable[[PyTree], PyTree] = lambda tree: tree
) -> Arrays:
    """A matrix product, and bounds of a VAE with their gradients.

    Inputs are the same float32 numbers also where JAX computes in float64.

    Args:
      asked: sizes.
      precision: of matrix products, see `jax.default_matmul_precision`; None: the device's default.
      rounded: applied to the matrices and the parameters.
    """
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> Array:
        numbers = rng.standard_normal(shape) / np.sqrt(shape[0])
        return jnp.asarray(numbers.astype(np.float32), float)

    factors = matrix(asked.size, asked.size), matrix(asked.size, asked.size)
    params = bounds.Params(
        theta=(matrix(_LATENTS, _HIDDEN), matrix(_HIDDEN, asked.num_pixels)),
        phi=(matrix(asked.num_pixels, _HIDDEN), matrix(_HIDDEN, 2 * _LATENTS)),
    )
    x = jnp.asarray(rng.random(asked.num_pixels) < 0.2, float)
    with jax.default_matmul_precision(precision):
        found = _numbers(*rounded((factors, params)), x, num_samples=asked.num_samples)
    return {name: np.asarray(value) for name, value in found.items()}


@functools.partial(jax.jit, static_argnames="num_samples")
def _numbers(
    factors: tuple[Array, Array], params: bounds.Params, x: Array, *, num_samples: int
) -> dict[str, Array]:
    out = {"product": factors[0] @ factors[1]}
    for name, objective in OBJECTIVES.items():
        both = jax.value_and_grad(objective(_vae(), num_samples=num_samples))
        value, gradient = both(params, jax.random.key(0), x)
        out[f"value of {name}"], out[f"gradient of {name}"] = value, ravel_pytree(gradient)[0]
    return out


def coarse(tree: PyTree) -> PyTree:
    """Rounded to bfloat16: what a device that computes in it makes of its inputs."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(leaf.dtype), tree)


def _vae() -> bounds.LatentModel:
    """Of one layer, whose noise is drawn in float32 whatever it computes in."""

    def encoded(phi, x):
        first, second = phi
        return jnp.split(jnp.tanh(x @ first) @ second, 2)

    def log_q(phi, x, z):
        mean, log_scale = encoded(phi, x)
        return norm.logpdf(z, mean, jnp.exp(log_scale)).sum()

    def propose(phi, key, x):
        mean, log_scale = encoded(phi, x)
        noise = jax.random.normal(key, mean.shape, jnp.float32).astype(mean.dtype)
        z = mean + jnp.exp(log_scale) * noise
        return z, log_q(phi, x, z)

    def log_p(theta, x, z):
        first, second = theta
        logits = jnp.tanh(z @ first) @ second
        pixels = bounds.densities.bernoulli_log_prob(logits, x)
        return norm.logpdf(z).sum() + jnp.sum(pixels)

    return bounds.LatentModel(propose, log_q, log_p)


def reference(asked: Numerics) -> Arrays:
    """The same in float64 on the CPU, by a process that sees no other device."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "reference.npz")
        command = [sys.executable, "-m", __name__, asked.model_dump_json(), path]
        root = pathlib.Path(__file__).parents[2]
        subprocess.run(command, env=environment, cwd=root, check=True)
        with np.load(path) as found:
            return dict(found)


def _of_draws(name: str, found: np.ndarray, exact: np.ndarray, **more) -> Row:
    if name == "normal":  # by way of a function whose last bit differs between devices
        return _compared(name, found, exact, "float32", False)
    share = float(np.mean(found != exact))
    return _judged(f"{name} unlike the CPU's", "share", share, 0.0, **{"of": "", **more})


def _compared(name: str, found: np.ndarray, exact: np.ndarray, of: str, wrong: bool | None) -> Row:
    error = np.linalg.norm(found.astype(np.float64) - exact) / np.linalg.norm(exact)
    tolerance = TOLERANCE[name.split()[0]]
    return _judged(name, "relative error", float(error), tolerance, of=of, wrong=wrong)


def _judged(
    name: str, unit: str, value: float, tolerance: float, *, of: str, wrong: bool | None = False
) -> Row:
    """A row with its verdict: what is wrong on purpose must be found so, None is not judged."""
    verdict = None
    if wrong is not None:
        as_wanted = value > tolerance if wrong else value <= tolerance  # NaN is neither
        verdict = ("found wrong, as it is" if wrong else "ok") if as_wanted else "FAILED"
    at = {"of": of} if of else {}
    return row(
        name, at, kind="estimate", unit=unit, value=value, tolerance=tolerance, verdict=verdict
    )


if __name__ == "__main__":
    _asked = Numerics.model_validate_json(sys.argv[1])
    _arrays: dict[str, Any] = {**drawn(_asked, 0), **computed(_asked, "highest")}
    np.savez(sys.argv[2], **_arrays)
