"""The discrete VAE and the prior of its tokens."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import moved

import bounds
from models import dvae, pixels, token_prior

V, T, K, GRID = 3, 2, 3, (1, 2)


def small_prior(**changes):
    settings = {"num_words": V, "text_length": T, "num_codes": K, "grid": GRID, "layers": 2,
                "width": 16, "heads": 2}  # fmt: skip
    return token_prior.make_prior(**settings | changes)


def small_dvae(shape=(4, 8, 1), **changes):
    settings = {
        "likelihood": pixels.discretized_logit_laplace(17),
        "num_codes": K,
        "groups": 2,
        "width": 8,
        "blocks": 1,
        "embedding": 4,
    }
    return dvae.make_dvae(shape, **settings | changes)


def start(model, shape=(4, 8, 1)):
    return jax.jit(model.init)(jax.random.key(0), jnp.full(shape, 5.0), jnp.full(shape, 4.0))


@pytest.fixture(scope="module")
def prior():
    made = small_prior()
    return made, moved(jax.jit(made.init)(jax.random.key(0)))


def test_prior_sums_to_one_over_all_sequences(prior):
    made, theta = prior
    y = jnp.asarray(list(itertools.product(range(V + 1), repeat=T)))
    z = jnp.asarray(list(itertools.product(range(K), repeat=2)))

    def log_p(y, z):
        text, image = made(theta, y, z)
        return text + token_prior.picked(image, z)

    each = jax.jit(jax.vmap(jax.vmap(log_p, (None, 0)), (0, None)))(y, z)
    assert each.shape == ((V + 1) ** T, K**2)
    np.testing.assert_allclose(np.exp(np.asarray(each, np.float64)).sum(), 1.0, atol=1e-5)
    assert np.exp(each).max() > 2 * np.exp(each).min()  # and it is not uniform


def test_every_token_sees_those_before_it_and_no_other(prior):
    made, theta = prior
    sequence = jnp.asarray([0, 1, 2, 0])

    def logits(sequence):
        text, image = made.logits(theta, sequence[:T], sequence[T:])
        return [*text, *image]

    before = logits(sequence)
    for place in range(4):
        after = logits(sequence.at[place].set((sequence[place] + 1) % 3))
        for row, (a, b) in enumerate(zip(before, after, strict=True)):
            same = bool(jnp.allclose(a, b, atol=1e-6))
            assert same == (row <= place), (row, place)


def test_padding_is_a_token_of_its_own_at_every_place(prior):
    made, theta = prior
    z = jnp.zeros(2, int)
    embeddings = theta["params"]["padding"]
    assert not jnp.allclose(embeddings[0], embeddings[1])
    changed = jax.tree.map(lambda v: v, theta)
    changed["params"]["padding"] = embeddings.at[0, 0].add(3.0)
    for y, same in (([0, V], True), ([V, V], False)):
        a, b = (made.logits(t, jnp.asarray(y), z)[1] for t in (theta, changed))
        assert bool(jnp.allclose(a, b)) == same


def test_samples_have_the_probabilities_of_the_prior(prior):
    made, theta = prior
    y, count = jnp.asarray([2, V]), 20_000
    keys = jax.random.split(jax.random.key(5), count)
    z = np.asarray(jax.jit(jax.vmap(made.sample, (None, 0, None)))(theta, keys, y))
    codes = jnp.asarray(list(itertools.product(range(K), repeat=2)))
    expected = np.exp(jax.vmap(lambda z: token_prior.picked(made(theta, y, z)[1], z))(codes))
    share = np.bincount(z @ [K, 1], minlength=K**2) / count
    error = np.sqrt(expected * (1 - expected) / count)
    assert np.max(np.abs(share - expected) / error) < oracles.z_limit(K**2)


def test_dropout_of_the_prior_acts_with_a_key_alone():
    made = small_prior(dropout=0.5)
    theta = moved(made.init(jax.random.key(0)))
    y, z = jnp.zeros(T, int), jnp.zeros(2, int)
    keys = jax.random.split(jax.random.key(1))
    plain, *dropped = (made.logits(theta, y, z, k)[1] for k in (None, *keys))
    assert jnp.array_equal(plain, made.logits(theta, y, z)[1])
    assert not jnp.allclose(plain, dropped[0])
    assert not jnp.allclose(*dropped)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, t: p.logits(t, jnp.asarray([0, 4]), jnp.zeros(2, int)), "y must hold tokens"),
        (lambda p, t: p.logits(t, jnp.zeros(2, int), jnp.asarray([0, 3])), "from 0 to 2, got 0 to"),
        (lambda p, t: p.logits(t, jnp.zeros(2, int), jnp.asarray([-1, 0])), "z must hold tokens"),
        (lambda p, t: p.logits(t, jnp.zeros(3, int), jnp.zeros(2, int)), "y must be 2 tokens"),
        (lambda p, t: small_prior(heads=3), "multiple of heads"),
        (lambda p, t: small_prior(layers=0), "layers must be at least 1"),
    ],
)
def test_prior_refuses_what_it_cannot_read(prior, call, message):
    with pytest.raises(ValueError, match=message):
        call(*prior)


def test_codes_of_the_dvae_are_a_grid_and_hard_codes_its_corners():
    model = small_dvae()
    params = moved(start(model), scale=0.2)
    x = jax.random.randint(jax.random.key(2), (4, 8, 1), 0, 17).astype(float)
    assert model.grid == (2, 4)
    assert model.num_tokens == 8
    assert jax.eval_shape(model.encode, params.phi, x).shape == (8, K)
    codes = jax.nn.one_hot(jnp.arange(8) % K, K)
    assert jax.eval_shape(model.decode, params.theta, codes).shape == (32, 2)
    assert jax.eval_shape(model.log_px, params.theta, x, codes).shape == ()
    # Every token matters to the image, and every pixel to the tokens.
    moves = jax.jit(jax.grad(model.log_px, 2))(params.theta, x, codes)
    assert np.all(np.abs(moves).sum(axis=-1) > 0)
    seen = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(model.encode(params.phi, x)))))(x)
    assert np.mean(np.abs(seen) > 0) > 0.9


def test_token_at_the_left_is_of_the_pixels_at_the_left():
    model = small_dvae(shape=(16, 16, 1), groups=4)
    params = moved(start(model, (16, 16, 1)), scale=0.2)
    codes = jax.nn.one_hot(jnp.zeros(4, int), K)
    other = codes.at[1].set(jax.nn.one_hot(1, K))
    decode = jax.jit(model.decode)
    change = decode(params.theta, other) - decode(params.theta, codes)
    by_pixel = np.abs(change).sum(axis=-1).reshape(16, 16)
    assert by_pixel[:8, 8:].mean() > by_pixel[8:, :8].mean()


def test_decoder_starts_at_the_average_image():
    model = small_dvae()
    params = start(model)
    outputs = jax.jit(model.decode)(params.theta, jax.nn.one_hot(jnp.zeros(8, int), K))
    assert np.all(np.abs(model.likelihood.mean(outputs) - 5.0) < 1.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (6, 8, 1), "groups": 3}, "do not divide an image of 6x8"),
        ({"width": 6}, "multiple of 4"),
        ({"num_codes": 1}, "num_codes must be at least 2"),
        ({"groups": 0}, "groups must be at least 1"),
    ],
)
def test_dvae_refuses_sizes_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        small_dvae(**changes)


def test_published_size_has_the_parameters_of_the_released_model():
    """Encoder and decoder as counted from the released code's layers."""
    shape = (256, 256, 3)
    model = dvae.make_dvae(
        shape,
        likelihood=pixels.discretized_logit_laplace(256),
        num_codes=8192,
        groups=4,
        width=256,
        blocks=2,
        embedding=128,
    )
    moments = [jax.ShapeDtypeStruct(shape, jnp.float32)] * 2
    params = jax.eval_shape(model.init, jax.random.key(0), *moments)
    assert model.grid == (32, 32)
    count = lambda tree: sum(v.size for v in jax.tree.leaves(tree))  # noqa: E731
    assert count(params.phi) == 53_786_240
    assert count(params.theta["params"]) == 43_829_766
    assert count(params.theta) == 43_829_766 + 2 * 256 * 256 * 3  # the average image


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_sum_to_one_and_their_mean_is_the_mean(levels):
    likelihood = pixels.discretized_logit_laplace(levels)
    outputs = jnp.asarray(
        [[m, s] for m in (-30.0, -3.0, 0.0, 0.4, 5.0) for s in (-12.0, -4.0, -1.0, 0.0, 3.0, 12.0)]
    )
    log_probs = np.asarray(jax.jit(lambda o: pixels.level_log_probs(likelihood, o))(outputs))
    assert np.all(np.isfinite(log_probs))
    p = np.exp(log_probs.astype(np.float64))
    np.testing.assert_allclose(p.sum(axis=-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(
        likelihood.mean(outputs), p @ np.arange(levels), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("levels", [2, 17])
def test_logit_laplace_cells_are_integrals_of_its_density(levels):
    """And the density alone, of pixels squeezed into (0.1, 0.9), is no distribution of levels."""
    mean, scale = 0.3, 0.8
    edges = (np.arange(levels + 1) - 0.5) * 0.8 / (levels - 1) + 0.1
    edges[0], edges[-1] = 0.0, 1.0
    found = bounds.densities.discretized_logit_laplace_log_prob(
        jnp.arange(levels), mean, np.log(scale), levels=levels
    )
    for level in range(levels):
        v = np.linspace(edges[level], edges[level + 1], 20_001)[1:-1]
        density = np.exp(
            bounds.densities.logit_laplace_log_prob(v, mean, np.log(scale)), dtype=np.float64
        )
        integral = np.trapezoid(density, v)
        np.testing.assert_allclose(np.exp(found[level]), integral, atol=2e-4)
    squeezed = pixels.squeeze(jnp.arange(levels, dtype=float), levels)
    mass = np.exp(bounds.densities.logit_laplace_log_prob(squeezed, mean, np.log(scale))).sum()
    assert abs(mass * 0.8 / levels - 1) > 0.05


@pytest.mark.parametrize(("mean", "scale", "outside"), [(0.0, 2.0, 0.33), (3.0, 0.5, 0.90)])
def test_density_leaves_mass_outside_of_the_squeezed_pixels(mean, scale, outside):
    v = np.linspace(0.1, 0.9, 200_001)
    density = np.exp(bounds.densities.logit_laplace_log_prob(jnp.asarray(v), mean, np.log(scale)))
    inside = np.trapezoid(np.asarray(density, np.float64), v)
    assert abs(1 - inside - outside) < 0.01


def test_density_can_exceed_one_where_probabilities_cannot():
    outputs = jnp.asarray([[0.0, -6.0]] * 4)
    x = jnp.full(4, 8.0)
    assert pixels.logit_laplace(17).log_prob(outputs, x) > 10
    assert pixels.discretized_logit_laplace(17).log_prob(outputs, x) <= 0


def test_logit_laplace_samples_have_its_probabilities():
    likelihood, count = pixels.discretized_logit_laplace(5), 20_000
    outputs = jnp.asarray([[0.4, -0.5]])
    keys = jax.random.split(jax.random.key(8), count)
    x = np.asarray(jax.vmap(likelihood.sample, (0, None))(keys, outputs))[:, 0]
    expected = np.exp(pixels.level_log_probs(likelihood, outputs)[0], dtype=np.float64)
    share = np.bincount(x.astype(int), minlength=5) / count
    assert np.max(np.abs(share - expected) / np.sqrt(expected / count)) < oracles.z_limit(5)


@pytest.mark.parametrize("x", [0, 3, 16])
def test_logit_laplace_gradients_are_finite_and_right(x):
    def value(mean, log_scale):
        return bounds.densities.discretized_logit_laplace_log_prob(
            jnp.asarray(float(x)), mean, log_scale, levels=17
        )

    for mean, log_scale in ((0.2, -0.7), (-8.0, -3.0), (25.0, 1.0), (0.0, -9.0)):
        grads = jax.grad(value, (0, 1))(mean, log_scale)
        assert np.all(np.isfinite(grads))
        h = 1e-3
        steps = [
            (value(mean + h, log_scale) - value(mean - h, log_scale)) / (2 * h),
            (value(mean, log_scale + h) - value(mean, log_scale - h)) / (2 * h),
        ]
        np.testing.assert_allclose(grads, steps, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: bounds.densities.logit_laplace_log_prob(1.0, 0.0, 0.0),
            "between 0 and 1, exclusive",
        ),
        (
            lambda: bounds.densities.discretized_logit_laplace_log_prob(17, 0.0, 0.0, levels=17),
            "whole numbers",
        ),
        (
            lambda: bounds.densities.discretized_logit_laplace_log_prob(
                1, 0.0, 0.0, levels=17, eps=0.5
            ),
            "eps must be above 0",
        ),
    ],
)
def test_wrong_pixels_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
