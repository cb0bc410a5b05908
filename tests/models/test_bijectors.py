"""Every bijector: its log-determinant is that of its Jacobian, and its inverse undoes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import bijectors, chains, elementwise

IMAGE = (4, 4, 2)


def linear(scale):
    """A conditioner: outputs linear in all of a and of the context."""

    def init(key, a, context, count):
        del context
        return scale * jax.random.normal(key, (a.size, a.size * count))

    def apply(params, a, context, count):
        flat = jnp.sin(a.reshape(-1) + context) @ params
        return flat.reshape(*a.shape, count)

    return bijectors.Conditioner(init, apply)


def coupling(transform, split):
    return bijectors.coupling(linear(0.3), transform, split)


CASES = {
    "affine checkerboard": coupling(elementwise.affine(), bijectors.checkerboard()),
    "affine channels": coupling(elementwise.affine(), bijectors.channels()),
    "mixture checkerboard": coupling(elementwise.mixture(4), bijectors.checkerboard()),
    "mixture swapped": coupling(
        elementwise.mixture(4), bijectors.swapped(bijectors.checkerboard())
    ),
    "norm of entries": bijectors.activation_norm(),
    "norm of channels": bijectors.activation_norm(share=(0, 1)),
    "1x1": bijectors.invertible_1x1(),
    "halves": bijectors.halves(
        bijectors.invertible_1x1(noise=0.5),
        bijectors.invertible_1x1(noise=0.5),
        bijectors.checkerboard(),
    ),
    "norm that starts as the identity": bijectors.activation_norm(identity=True),
    "space to depth": bijectors.space_to_depth(),
    "flatten": bijectors.flatten(IMAGE),
    "chain": chains.chain(
        [
            bijectors.activation_norm(),
            bijectors.invertible_1x1(),
            coupling(elementwise.mixture(3), bijectors.checkerboard()),
            bijectors.space_to_depth(),
            coupling(elementwise.affine(), bijectors.channels()),
        ]
    ),
    "inverted": bijectors.inverted(coupling(elementwise.mixture(3), bijectors.channels())),
}


def started(bijector, seed, size=1.0):
    """(parameters, one datum) after initialisation on a batch."""
    keys = jax.random.split(jax.random.key(seed), 3)
    batch = size * jax.random.normal(keys[0], (32, *IMAGE)) + 0.5
    params, y = bijector.init(keys[1], batch, jnp.zeros((32, 1)))
    return params, batch, y, keys[2]


def clipped():
    """The defect of a CDF clipped before its logit: the map and its derivative part ways."""
    right = elementwise.mixture(3)

    def forward(outputs, z):
        y, log_slope = right.forward(outputs, z)
        return jnp.clip(y, -0.5, 0.5), log_slope

    return coupling(right._replace(forward=forward), bijectors.channels())


def test_a_clipped_map_is_found_out():
    with pytest.raises(AssertionError):
        check(clipped())


@pytest.mark.parametrize("bijector", CASES.values(), ids=CASES)
def test_log_determinant_is_that_of_the_jacobian(bijector):
    check(bijector)


def check(bijector):
    params, batch, y, _ = started(bijector, 0)
    context = jnp.zeros(1)
    z = batch[3]

    def flat(v):
        return bijector.forward(params, v.reshape(IMAGE), context)[0].reshape(-1)

    sign, exact = np.linalg.slogdet(np.asarray(jax.jacobian(flat)(z.reshape(-1)), np.float64))
    found, log_det = bijector.forward(params, z, context)
    assert abs(sign) == 1
    np.testing.assert_allclose(log_det, exact, atol=1e-4)
    np.testing.assert_allclose(found, y[3], atol=1e-5)
    back, log_det_back = bijector.inverse(params, found, context)
    np.testing.assert_allclose(back, z, atol=1e-4)
    np.testing.assert_allclose(log_det_back, log_det, atol=1e-4)


@pytest.mark.parametrize("share", [(), (0, 1)])
def test_norm_standardizes_the_first_batch(share):
    bijector = bijectors.activation_norm(share=share)
    _, _, y, _ = started(bijector, 1, size=3.0)
    axes = (0, *(axis + 1 for axis in share))
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axes), 1, atol=1e-4)


# --- elementwise maps, far out -------------------------------------------------------------------

K = 4
finite = st.floats(-30, 30, width=32)
outputs = st.lists(st.floats(-2, 2, width=32), min_size=2 + 3 * K, max_size=2 + 3 * K)
TRANSFORMS = {"affine": elementwise.affine(), "mixture": elementwise.mixture(K)}


@pytest.mark.parametrize("name", TRANSFORMS)
@settings(max_examples=200, deadline=None)
@given(z=finite, outputs=outputs)
def test_round_trip_far_out(name, z, outputs):
    transform = TRANSFORMS[name]
    forward, inverse = _compiled(name)
    parameters = jnp.asarray(outputs[: transform.num_outputs], jnp.float32)
    y, log_slope, autodiff = forward(parameters, jnp.float32(z))
    assert np.isfinite(y)
    np.testing.assert_allclose(log_slope, np.log(autodiff), atol=1e-4)
    back, again = inverse(parameters, y)
    np.testing.assert_allclose(back, z, atol=1e-4 * max(1.0, float(np.exp(-log_slope)) / 10))
    np.testing.assert_allclose(again, log_slope, atol=1e-3)


_CACHE = {}


def _compiled(name):
    if name not in _CACHE:
        transform = TRANSFORMS[name]

        def forward(outputs, z):
            y, log_slope = transform.forward(outputs, z)
            return y, log_slope, jax.grad(lambda v: transform.forward(outputs, v)[0])(z)

        _CACHE[name] = jax.jit(forward), jax.jit(transform.inverse)
    return _CACHE[name]


def test_logit_of_the_distribution_function_where_it_saturates():
    """At 30 scales 1 - F is 1e-13: float32 knows it in logarithms only."""
    single = elementwise.Mixture(jnp.zeros(1), jnp.zeros(1), jnp.zeros(1))
    for z in (-30.0, -16.0, 16.0, 30.0):
        value, log_slope = elementwise.logit_cdf(single, jnp.asarray(z))
        np.testing.assert_allclose([value, log_slope], [z, 0.0], atol=1e-4)
    naive = jax.scipy.special.logit(jax.nn.sigmoid(jnp.asarray(18.0)))
    assert not abs(naive - 18.0) < 1e-1  # what the tails would be without the logarithms


def test_gradient_of_the_inverse_is_implicit():
    transform = elementwise.mixture(K)
    outputs = 0.7 * jax.random.normal(jax.random.key(0), (transform.num_outputs,))

    def inverse(outputs, y):
        return transform.inverse(outputs, y)[0]

    y = jnp.asarray(0.8)
    slopes = jax.grad(inverse, (0, 1))(outputs, y)
    z = inverse(outputs, y)
    by_outputs, by_z = jax.grad(lambda o, v: transform.forward(o, v)[0], (0, 1))(outputs, z)
    np.testing.assert_allclose(slopes[0], -by_outputs / by_z, atol=1e-5)
    np.testing.assert_allclose(slopes[1], 1 / by_z, rtol=1e-5)
    # And of what is computed at the root: d log_det / d y.
    _, along = jax.jvp(lambda v: transform.inverse(outputs, v)[1], (y,), (jnp.ones(()),))
    h = 1e-2
    steps = [transform.inverse(outputs, y + s)[1] for s in (h, -h)]
    np.testing.assert_allclose(along, (steps[0] - steps[1]) / (2 * h), atol=2e-3)


def test_inverse_that_does_not_converge_is_nan():
    transform = elementwise.mixture(K)
    outputs = jnp.zeros(transform.num_outputs).at[3].set(jnp.nan)
    assert np.isnan(transform.inverse(outputs, jnp.asarray(0.3))[0])
    assert np.isnan(elementwise.mixture(K).inverse(jnp.zeros(2 + 3 * K), jnp.inf)[0])


def test_components_that_start_alike_do_not_stay_alike():
    """A network that starts at 0 makes the identity, and its components learn apart."""
    transform = elementwise.mixture(K)
    zero = jnp.zeros(transform.num_outputs)
    z = jnp.linspace(-3, 3, 50)
    y, log_slope = transform.forward(jnp.broadcast_to(zero, (50, zero.size)), z)
    np.testing.assert_allclose(y, z, atol=1e-5)
    np.testing.assert_allclose(log_slope, 0, atol=1e-5)
    slopes = jax.grad(lambda o: transform.forward(o, jnp.asarray(0.7))[0])(zero)
    assert len(set(np.round(np.asarray(slopes[2 + K : 2 + 2 * K]), 6).tolist())) == K


# --- preprocessing and bad input ------------------------------------------------------------------


def test_logit_preprocessing_undoes_itself_and_knows_its_determinant():
    bijector = bijectors.logit_preprocess(256)
    y = jax.random.uniform(jax.random.key(0), IMAGE, minval=0.0, maxval=256.0)
    z, log_det = bijector.forward((), y, None)
    slopes = jax.vmap(jax.grad(lambda v: bijector.forward((), v[None], None)[0][0]))(y.reshape(-1))
    np.testing.assert_allclose(log_det, np.log(np.asarray(slopes, np.float64)).sum(), rtol=1e-5)
    back, log_det_back = bijector.inverse((), z, None)
    np.testing.assert_allclose(back, y, atol=1e-2)
    np.testing.assert_allclose(log_det_back, log_det, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (lambda: bijectors.space_to_depth().forward((), jnp.zeros((3, 4, 1)), None), "space_to"),
        (lambda: bijectors.checkerboard().take(jnp.zeros((4, 3, 1))), "checkerboard"),
        (lambda: bijectors.channels().take(jnp.zeros((4, 4, 3))), "channels"),
    ],
)
def test_odd_sizes_are_refused(call, wanted):
    with pytest.raises(ValueError, match=f"{wanted}.*even sizes.*shape"):
        call()
