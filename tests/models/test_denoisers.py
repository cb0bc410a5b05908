"""Networks of diffusion: convolution, shapes, sizes that do not halve, starts, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bounds
from models import convolutions, denoisers, diffusion


@pytest.mark.parametrize(
    ("shape", "window", "strides"),
    [((4, 6, 3), 3, 1), ((5, 7, 2), 3, 2), ((5, 7, 2), 5, 1), ((4, 6, 3), 1, 2)],
)
def test_patches_and_xlas_convolution_agree(shape, window, strides):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (window, window, shape[-1], 4))

    def both(convolve):
        def value(x, kernel):
            return jnp.sum(jnp.sin(convolve(x, kernel)))

        return convolve(x, kernel), *jax.grad(value, (0, 1))(x, kernel)

    wanted = both(lambda x, k: convolutions._native(x, k, strides))
    for convolve in (
        lambda x, k: convolutions._by_patches(x, k, strides),
        lambda x, k: convolutions.convolve(x, k, strides=strides),
    ):
        for a, b in zip(both(convolve), wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 9, 3)])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("kind", ["unet", "mlp", "gated"])
def test_networks_fit_images_and_start_at_zero(kind, learned, shape):
    if kind == "unet":
        net = denoisers.unet(8, (1, 2), 1, attention=(1,), learned_variance=learned)
    else:
        gated = kind == "gated"
        net = denoisers.mlp(16, 2, fourier=(1,), learned_variance=learned, gated=gated)
    theta = jax.jit(net.init, static_argnums=1)(jax.random.key(0), shape)
    out = jax.jit(net.predict)(theta, jnp.ones(shape), jnp.array(0.5))
    if learned:
        out, share = out
        assert share.shape == shape
        np.testing.assert_allclose(share, 0.5)
    assert out.shape == shape
    np.testing.assert_array_equal(out, 0)


def perturbed(net, shape):
    theta = jax.jit(net.init, static_argnums=1)(jax.random.key(0), shape)
    return oracles.moved(theta, scale=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unet", "mlp"])
def test_networks_see_the_time_every_pixel_and_dropout(kind):
    shape = (8, 8, 1)
    net = (
        denoisers.unet(8, (1, 2), 1, attention=(1,), dropout=0.5)
        if kind == "unet"
        else denoisers.mlp(16, 2, dropout=0.5)
    )
    theta = perturbed(net, shape)
    x = jax.random.normal(jax.random.key(2), shape)

    predict = jax.jit(net.predict)

    def out(x, gamma, key=None):
        return np.asarray(predict(theta, x, jnp.asarray(gamma), key))

    assert np.abs(out(x, 0.0) - out(x, 0.1)).max() > 1e-4
    assert np.abs(out(x, 0.0) - out(x, 3.0)).max() > 1e-3
    slope = jax.jit(jax.grad(lambda x: net.predict(theta, x, jnp.array(0.0))[0, 0, 0]))(x)
    assert np.all(np.abs(slope) > 0)  # attention and the middle reach every corner
    key = jax.random.key(3)
    np.testing.assert_array_equal(out(x, 0.0, key), out(x, 0.0, jax.random.clone(key)))
    assert np.abs(out(x, 0.0, jax.random.clone(key)) - out(x, 0.0)).max() > 1e-3
    assert np.abs(out(x, 0.0, jax.random.key(4)) - out(x, 0.0, jax.random.clone(key))).max() > 1e-3


def test_fourier_features_tell_neighboring_levels_from_what_lies_between():
    x = bounds.densities.scale_levels(jnp.arange(17), levels=17).reshape(17, 1, 1)
    features = denoisers.with_fourier_features(x, (4,))
    assert features.shape == (17, 1, 3)
    np.testing.assert_allclose(features[..., 1], 0, atol=1e-4)  # the period is one level
    between = denoisers.with_fourier_features(x + 1 / 32, (4,))
    np.testing.assert_allclose(np.abs(between[..., 1]), 1, atol=1e-3)


def test_reverse_chain_of_gaussian_data_draws_that_data():
    """Mean and variance of x_1 under the exact chain are those of q(x_1)."""
    s2, gamma = 0.25, bounds.diffusion.cosine_schedule(30)
    model = bounds.diffusion.Diffusion(
        gamma, lambda x: x, diffusion.gaussian_denoise(s2), lambda theta, x, x_1, x_hat: 0.0
    )
    keys = jax.random.split(jax.random.key(0), 4000)
    chains = jax.jit(jax.vmap(lambda k: diffusion.reverse_chain(model, None, k, (2,), kept=4)))(
        keys
    )
    assert chains.shape == (4000, 4, 2)
    x_1 = np.asarray(chains[:, -1]).reshape(-1)
    a2 = float(jax.nn.sigmoid(-gamma[0]))
    wanted = a2 * s2 + 1 - a2
    assert abs(x_1.mean()) < 4.5 * np.sqrt(wanted / 8000)
    assert abs(x_1.var() / wanted - 1) < 4.5 * np.sqrt(2 / 8000)
    np.testing.assert_allclose(np.asarray(chains[:, 0]).var(), 1, atol=0.08)  # noise comes first
    spread = np.asarray(chains).var(axis=(0, 2))
    assert np.all(np.diff(spread) < 0)


def test_group_norms_are_of_a_whole_image():
    """Not of its rows, which Flax would take for a batch: their means would not pass."""
    net = denoisers.unet(8, (1,), 1)
    theta = perturbed(net, (8, 8, 1))
    x = jnp.ones((8, 8, 1)) * jnp.arange(8.0)[:, None, None]
    block = theta["params"]["down_0_0"]
    norm = denoisers._group_norm("norm_in")
    out = norm.apply({"params": block["norm_in"]}, x.repeat(8, axis=-1))
    assert np.asarray(out).std(axis=(0, 1)).min() > 0.1


@pytest.mark.parametrize("kind", ["unet", "mlp"])
def test_layers_in_bfloat16_round_and_features_do_not(kind):
    def net(dtype):
        if kind == "unet":
            return denoisers.unet(8, (1,), 1, attention=(0,), fourier=(7,), dtype=dtype)
        return denoisers.mlp(16, 1, fourier=(7,), dtype=dtype)

    shape = (4, 4, 1)
    plain, half = net(None), net(jnp.bfloat16)
    theta, gamma = perturbed(plain, shape), jnp.array(0.5)
    x = jax.random.normal(jax.random.key(2), shape)
    coarse = x.astype(jnp.bfloat16).astype(x.dtype)

    def value_and_gradient(net, x):
        def value(theta):
            out = net.predict(theta, x, gamma)
            assert out.dtype == x.dtype
            return jnp.sum(jnp.square(out)), out

        (_, out), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(theta)
        return out, gradient

    def distance(a, b):
        return jnp.linalg.norm(a - b) / jnp.linalg.norm(b)

    wanted, gradient = value_and_gradient(plain, x)
    found, of_half = value_and_gradient(half, x)
    assert 1e-4 < distance(found, wanted) < 0.05
    for a, b in zip(jax.tree.leaves(of_half), jax.tree.leaves(gradient), strict=True):
        assert a.dtype == b.dtype
        assert distance(a, b) < 0.2
    # Of x rounded before its features are taken, 2^7 pi x says nothing any more.
    assert distance(plain.predict(theta, coarse, gamma), wanted) > 0.1
