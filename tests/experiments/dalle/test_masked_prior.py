"""The prior that predicts masked tokens: its mixture over orders, its loss and its rows."""

import itertools

import dalle_cases
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from dalle_cases import batch_of, tiny

import bounds
from experiments.dalle import build, enumeration, evaluation, training

MASKED = {"prior": {"network": "masked", "dropout": 0.0}}


@pytest.fixture(scope="module")
def data():
    return dalle_cases.data()


@pytest.fixture(scope="module")
def trained(data):
    model = build.make_model(data, tiny(**MASKED))
    return model, oracles.moved(jax.jit(model.init)(jax.random.key(1)), scale=0.2)


def test_all_orders_of_the_tokens_sum_to_one_and_are_those_of_the_library(data, trained):
    model, params = trained
    captions = data.tokens["test"][:2]
    text, image = enumeration.log_priors(model, params, captions, all_orders=True)
    same, one_order = enumeration.log_priors(model, params, captions)
    np.testing.assert_array_equal(text, same)
    for values in (image, one_order):
        np.testing.assert_allclose(np.exp(np.asarray(values, float)).sum(axis=1), 1.0, rtol=1e-5)
    assert np.abs(image - one_order).max() > 1e-3
    codes = enumeration.all_codes(4, 3)
    orders = jnp.asarray(list(itertools.permutations(range(4))))
    _, part = model.prior.masked(jnp.asarray(captions[1]))
    latent = bounds.masked.any_order(part)
    for place in (0, 37):
        each = jax.vmap(lambda o: latent.log_p(params.theta["prior"], codes[place], o))(orders)  # noqa: B023
        np.testing.assert_allclose(jax.nn.logsumexp(each), image[1, place], rtol=1e-4)


def test_loss_of_the_second_stage_is_minus_the_elbo_over_orders(data, trained):
    model, params = trained
    loss_fn = training.make_prior_loss(data, model, tiny(**MASKED).prior)
    batch = batch_of(data, 2)
    losses = jax.jit(jax.vmap(lambda k: loss_fn(params, (), batch, k, 0)[0]))(
        jax.random.split(jax.random.key(2), 2000)
    )
    codes = jnp.asarray(enumeration.all_codes(4, 3))

    @jax.jit
    def exact(x, y):
        text, image = model.prior.masked(y)
        theta = params.theta["prior"]
        log_q = jax.nn.log_softmax(model.dvae.encode(params.phi, x))
        q = jnp.exp(jnp.sum(log_q[jnp.arange(4), codes], axis=1))
        elbo = jax.vmap(lambda z: bounds.masked.enumerated(image, theta, z).elbo)(codes)
        return bounds.masked.enumerated(text, theta, y).elbo + jnp.sum(q * elbo)

    right = -np.mean([exact(x, y) for x, y in zip(batch["x"], data.tokens["train"], strict=False)])
    losses = np.asarray(losses, np.float64)
    error = losses.std(ddof=1) / np.sqrt(losses.size)
    assert abs(losses.mean() - right) < oracles.z_limit(1) * error
    assert abs(losses.mean() - right * 5 / 4) > 10 * error  # the weight of times in place of counts


def test_rows_have_both_readings_of_the_network(data, trained):
    model, params = trained
    images, captions = evaluation._test(data, tiny(**MASKED).evaluation)
    rows = evaluation.exact_rows(data, model, params, images, captions, {"model": "masked"})
    found = {r["name"]: r["value"] for r in rows if r["unit"] == "nats"}
    for name in ("", ", all orders"):
        assert found[f"joint bound{name}"] < found[f"log p(x, y){name}"]
    assert found["joint bound"] != found["joint bound, all orders"]
