"""The transformer that predicts masked tokens, and draws of what it predicts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import moved

import bounds
from models import masked_tokens, token_prior

LEVELS, GRID = 3, (1, 3)
MASK = LEVELS


def small(**changes):
    settings = {"levels": LEVELS, "grid": GRID, "layers": 1, "width": 8, "heads": 2}
    return masked_tokens.make_masked(**settings | changes)


@pytest.fixture(scope="module")
def network():
    made = small()
    return made, moved(jax.jit(made.init)(jax.random.key(0)))


def test_every_row_sees_all_tokens_and_a_mask_is_one_of_its_own(network):
    made, theta = network
    tokens = jnp.asarray([0, MASK, 2])
    before = made.predict(theta, tokens)
    assert before.shape == (3, LEVELS)
    for place in range(3):
        after = made.predict(theta, tokens.at[place].set((tokens[place] + 1) % (LEVELS + 1)))
        assert np.all(np.abs(after - before).max(axis=1) > 1e-5)


def shares(network, tokens, count=20_000):
    """How often each sequence is drawn, of all."""
    made, theta = network
    keys = jax.random.split(jax.random.key(5), count)
    draw = jax.jit(jax.vmap(lambda key: masked_tokens.reveal(made.made(), theta, key, tokens)))
    return np.bincount(np.asarray(draw(keys)) @ [9, 3, 1], minlength=27) / count, count


def largest_z(share, expected, count):
    """Over sequences that come up often enough to have a normal law, and the others together."""
    often = expected * count > 20
    share, expected = (np.append(v[often], v[~often].sum()) for v in (share, expected))
    error = np.sqrt(np.maximum(expected * (1 - expected), 1 / count) / count)
    return np.max(np.abs(share - expected) / error)


def test_draws_have_the_probabilities_of_the_mixture_over_orders(network):
    made, theta = network
    every = jnp.asarray(list(itertools.product(range(LEVELS), repeat=3)))
    found = jax.jit(jax.vmap(lambda x: bounds.masked.enumerated(made.made(), theta, x)))(every)
    np.testing.assert_allclose(np.exp(found.log_prob).sum(), 1.0, rtol=1e-5)
    share, count = shares(network, jnp.full(3, MASK))
    expected = np.exp(np.asarray(found.log_prob, np.float64))
    assert largest_z(share, expected, count) < oracles.z_limit(28)
    # All at once they would be independent.
    at_once = jax.vmap(
        lambda x: bounds.masked.token_log_probs(made.made(), theta, x, jnp.ones(3, bool))
    )(every)
    at_once = np.exp(np.asarray(at_once, np.float64).sum(axis=1))
    assert largest_z(share, at_once, count) > oracles.z_limit(28)


def test_visible_tokens_stay_and_the_others_are_drawn_given_them(network):
    made, theta = network
    share, count = shares(network, jnp.asarray([MASK, 1, MASK]))
    pairs = list(itertools.product(range(LEVELS), repeat=2))
    drawn = np.array([share[9 * a + 3 + c] for a, c in pairs])
    np.testing.assert_allclose(drawn.sum(), 1.0)

    def predict(theta, tokens):
        return made.predict(theta, jnp.stack([tokens[0], jnp.asarray(1), tokens[1]]))[::2]

    inside = bounds.masked.Masked(predict, 2, LEVELS)
    found = jax.vmap(lambda x: bounds.masked.enumerated(inside, theta, x))(jnp.asarray(pairs))
    expected = np.exp(np.asarray(found.log_prob, np.float64))
    assert largest_z(drawn, expected, count) < oracles.z_limit(10)


def test_dropout_acts_with_a_key_alone():
    made = small(dropout=0.5)
    theta, tokens = moved(made.init(jax.random.key(0))), jnp.asarray([0, MASK, 1])
    keys = jax.random.split(jax.random.key(1))
    plain, *dropped = (made.made(key).predict(theta, tokens) for key in (None, *keys))
    assert jnp.array_equal(plain, made.predict(theta, tokens))
    assert not jnp.allclose(plain, dropped[0])
    assert not jnp.allclose(*dropped)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"heads": 3}, "multiple of heads"), ({"levels": 0}, "levels must be at least 1")],
)
def test_sizes_that_make_no_network(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.fixture(scope="module")
def prior():
    made = masked_tokens.make_masked_prior(
        num_words=2, text_length=2, num_codes=2, grid=(1, 2), layers=1, width=8, heads=2
    )
    return made, moved(jax.jit(made.init)(jax.random.key(0)))


def test_a_masked_prior_in_one_order_sums_to_one(prior):
    made, theta = prior
    y = jnp.asarray(list(itertools.product(range(3), repeat=2)))
    z = jnp.asarray(list(itertools.product(range(2), repeat=2)))

    def log_p(y, z):
        text, image = made(theta, y, z)
        return text + token_prior.picked(image, z)

    each = jax.jit(jax.vmap(jax.vmap(log_p, (None, 0)), (0, None)))(y, z)
    np.testing.assert_allclose(np.exp(np.asarray(each, np.float64)).sum(), 1.0, atol=1e-5)


def test_its_rows_are_those_of_the_orders_from_left_to_right(prior):
    made, theta = prior
    y, z = jnp.asarray([2, 0]), jnp.asarray([1, 0])
    of_text, of_image = made.masked(y)
    text, image = made(theta, y, z)
    left_to_right = jnp.arange(2)
    for part, tokens, found in (
        (of_text, y, text), (of_image, z, token_prior.picked(image, z)),
    ):  # fmt: skip
        latent = bounds.masked.any_order(part)
        log_w = latent.log_p(theta, tokens, left_to_right) - latent.log_q((), tokens, left_to_right)
        np.testing.assert_allclose(found, log_w, rtol=1e-5)


def test_draws_in_turn_have_the_probabilities_of_that_order_and_samples_those_of_all(prior):
    made, theta = prior
    y = jnp.asarray(list(itertools.product(range(3), repeat=2)))
    z = jnp.asarray(list(itertools.product(range(2), repeat=2)))
    given, count = y[0], 20_000
    keys = jax.random.split(jax.random.key(4), count)
    text, image, any_order = (
        np.bincount(np.asarray(jax.jit(jax.vmap(draw))(keys)) @ places, minlength=size) / count
        for draw, places, size in (
            (lambda key: made.draw_text(theta, key), [3, 1], 9),
            (lambda key: made.draw_image(theta, key, given), [2, 1], 4),
            (lambda key: made.sample(theta, key, given), [2, 1], 4),
        )
    )
    of_text, of_image = (
        np.exp(np.asarray(jax.jit(jax.vmap(log_p))(values), np.float64))
        for log_p, values in (
            (lambda y: made(theta, y, z[0])[0], y),
            (lambda z: token_prior.picked(made(theta, given, z)[1], z), z),
        )
    )
    mixture = jax.vmap(lambda z: bounds.masked.enumerated(made.masked(given)[1], theta, z))(z)
    of_all = np.exp(np.asarray(mixture.log_prob, np.float64))
    assert largest_z(text, of_text, count) < oracles.z_limit(10)
    assert largest_z(image, of_image, count) < oracles.z_limit(5)
    assert largest_z(any_order, of_all, count) < oracles.z_limit(5)
    assert largest_z(any_order, of_image, count) > 10


def test_a_code_is_another_token_than_the_word_of_its_number(prior):
    """What the last token is predicted from: two words, a code and one mask, each a row."""
    made, theta = prior
    y, z = jnp.asarray([1, 0]), jnp.asarray([1, 0])
    slope = jax.grad(lambda theta: made.logits(theta, y, z)[1][1, 0])(theta)
    rows = np.flatnonzero(np.abs(slope["params"]["tokens"]).max(axis=1))
    assert rows.tolist() == [0, 1, 3 + 1, 5]
