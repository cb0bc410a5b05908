"""The logit of a mixture's CDF and its derivatives, against sums of sigmoids in higher precision.

The reference knows no logarithm of a sigmoid and no derivative: F, 1 - F and f are plain sums, and
differences of fourth order of their logarithms are the slopes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import elementwise
from models.elementwise import LEAST_LOG_SCALE, Mixture

K = 5
WIDE = np.longdouble


def reference(log_weights, means, log_scales, z):
    """(logit F, log of its derivative) of arrays in `WIDE`, elementwise."""
    t = (z[..., None] - means) * np.exp(-log_scales)
    far = np.exp(-np.abs(t))
    up, down = np.where(t > 0, 1, far) / (1 + far), np.where(t > 0, far, 1) / (1 + far)
    weights = np.exp(log_weights)
    cdf, rest = np.sum(weights * up, -1), np.sum(weights * down, -1)
    pdf = np.sum(weights * np.exp(-log_scales) * up * down, -1)
    return np.log(cdf) - np.log(rest), np.log(pdf) - np.log(cdf) - np.log(rest)


def along(direction, *arguments):
    """The derivative of `reference` in a direction, one for each argument."""
    h = WIDE(1e-5)

    def at(step):
        moved = (a + step * h * d for a, d in zip(arguments, direction, strict=True))
        return np.stack(reference(*moved))

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)


def cases(count=400, seed=0):
    """Mixtures and numbers: at the centre, 30 scales out, between components far apart."""
    rng = np.random.default_rng(seed)
    logits, means = 2 * rng.normal(size=(count, K)), 2 * rng.normal(size=(count, K))
    log_weights = logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))
    log_scales = rng.uniform(-2, 1, (count, K))
    z = 3 * rng.normal(size=count)
    out = slice(0, count // 4)
    edge = means[out] + np.sign(z[out])[:, None] * 30 * np.exp(log_scales[out])
    z[out] = edge[:, 0]
    apart = slice(count // 4, count // 2)
    means[apart] *= 10
    return tuple(v.astype(np.float32) for v in (log_weights, means, log_scales, z))


def check(logit_cdf, dtype, rtol, *, mode):
    """Values, and derivatives in a random direction of all arguments at once."""
    arguments = cases()
    rng = np.random.default_rng(1)
    direction = [rng.normal(size=a.shape).astype(np.float32) for a in arguments]
    wanted = np.stack(reference(*(a.astype(WIDE) for a in arguments)))
    slopes = along(direction, *(a.astype(WIDE) for a in arguments))

    def both(*arguments):
        return jnp.stack(logit_cdf(Mixture(*arguments[:3]), arguments[3]))

    with jax.enable_x64(dtype == np.float64):
        own = [jnp.asarray(a, dtype) for a in arguments]
        towards = [jnp.asarray(d, dtype) for d in direction]
        if mode == "forward":
            found, moved = jax.jit(functools.partial(jax.jvp, both))(own, towards)
        else:
            found = jax.jit(both)(*own)
            rows = [
                jax.jit(jax.grad(lambda *a, i=i: jnp.sum(both(*a)[i]), (0, 1, 2, 3)))(*own)
                for i in (0, 1)
            ]
            moved = jnp.stack(
                [sum(_dot(g, d) for g, d in zip(row, towards, strict=True)) for row in rows]
            )
        assert found.dtype == moved.dtype == dtype
        found, moved = np.asarray(found), np.asarray(moved)
    # Relative to what is summed: the terms of a slope are as large as t dz/ds and cancel.
    t = np.abs(arguments[3][:, None] - arguments[1]) * np.exp(-arguments[2])
    size = np.max(t + np.exp(-arguments[2]), -1)
    assert np.all(np.abs(found - wanted) < rtol * (1 + t.max(-1)))
    assert np.all(np.abs(moved - slopes) < 10 * rtol * (1 + size))


def _dot(a, b):
    """Of all but the leading axis."""
    return jnp.sum((a * b).reshape(len(a), -1), -1)


MODES = ("forward", "reverse")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 2e-6), (np.float64, 1e-11)])
def test_logit_of_a_mixture_and_its_derivatives(dtype, rtol, mode):
    check(elementwise.logit_cdf, dtype, rtol, mode=mode)


def naive(mixture, z):
    """The CDF first: it saturates."""
    t = (z[..., None] - mixture.means) * jnp.exp(-mixture.log_scales)
    weights = jnp.exp(mixture.log_weights)
    cdf = jnp.sum(weights * jax.nn.sigmoid(t), -1)
    pdf = jnp.sum(
        weights * jnp.exp(-mixture.log_scales) * jax.nn.sigmoid(t) * jax.nn.sigmoid(-t), -1
    )
    return jnp.log(cdf) - jnp.log1p(-cdf), jnp.log(pdf) - jnp.log(cdf) - jnp.log1p(-cdf)


def without_its_scale(mixture, z):
    """The density's own log scale is left out of the derivative, as it easily is."""
    value, log_slope = elementwise.logit_cdf(mixture, z)
    own = jnp.sum(jnp.exp(mixture.log_weights) * mixture.log_scales, -1)
    return value, log_slope + own - jax.lax.stop_gradient(own)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrong", [naive, without_its_scale])
def test_wrong_derivatives_fail_the_same_test(wrong, mode):
    with pytest.raises(AssertionError):
        check(wrong, np.float32, 2e-6, mode=mode)


def test_second_derivatives_are_those_of_the_first():
    """At t = 0 as well, where the pieces of which log sigma is made meet."""
    mixture = Mixture(jnp.log(jnp.array([0.3, 0.7])), jnp.array([0.0, 1.0]), jnp.array([0.0, -1.0]))

    def slope(z):
        return jax.grad(lambda z: elementwise.logit_cdf(mixture, z)[0])(z)

    for z in (0.0, 1.0, -2.5):
        value, log_slope = elementwise.logit_cdf(mixture, jnp.asarray(z))
        np.testing.assert_allclose(jnp.log(slope(z)), log_slope, atol=1e-5)
        by_slope = jax.grad(slope)(z)
        by_log = jax.grad(lambda z: elementwise.logit_cdf(mixture, z)[1])(z)
        np.testing.assert_allclose(by_slope, by_log * jnp.exp(log_slope), rtol=1e-4)
        assert np.isfinite(value)


def test_a_coupling_at_the_least_scale_is_finite_and_so_are_its_gradients():
    """30 from the location of a component of scale e^-7: t is 33,000."""
    transform = elementwise.mixture(K)
    outputs = jnp.zeros(transform.num_outputs).at[2 + 2 * K :].set(2 * LEAST_LOG_SCALE)
    for z in (-30.0, -1e-3, 0.0, 1e-3, 30.0):
        for which in (0, 1):
            grads = jax.grad(lambda o, z, i=which: transform.forward(o, z)[i], (0, 1))
            assert all(np.isfinite(g).all() for g in grads(outputs, jnp.asarray(z)))
        value, log_slope = transform.forward(outputs, jnp.asarray(z))
        np.testing.assert_allclose(log_slope, -LEAST_LOG_SCALE, rtol=1e-5)
        np.testing.assert_allclose(value, z * np.exp(-LEAST_LOG_SCALE), rtol=1e-5, atol=1e-4)


def test_nothing_over_components_is_kept_for_the_derivative():
    """Of a vmapped coupling that recomputes: its inputs, and nothing else with an axis of K."""
    transform = elementwise.mixture(K, recompute=True)
    outputs, z = jnp.ones((7, transform.num_outputs)), jnp.ones(7)
    kept = jax.eval_shape(lambda o, z: jax.vjp(jax.vmap(transform.forward), o, z)[1], outputs, z)
    shapes = {leaf.shape for leaf in jax.tree.leaves(kept)}
    assert shapes <= {(), (K,), z.shape, outputs.shape}
