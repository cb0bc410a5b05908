"""Annealed importance sampling: step sizes, schedules, memory, unusual input, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import TIGHT

import bounds
from models.exact import linear_gaussian

MODEL = linear_gaussian.make_model()
THETA = jnp.array([0.3, -0.2])
X = jnp.array([1.5, -0.5])
PARAMS = bounds.Params(THETA, linear_gaussian.Inference(0.5 * jnp.eye(2), 0.5 * THETA + 0.5))
SETTINGS = {
    "betas": jnp.array([0.0, 0.3, 0.7, 1.0]),
    "step_sizes": jnp.array([0.8, 0.7]),
    "num_leapfrog": 2,
}


def test_pilot_reaches_its_target_whatever_the_unit_of_z():
    betas = bounds.annealing_schedule(5)

    @jax.jit
    def run(scale, key_pilot, keys):
        def propose(phi, key, x):
            z, log_q = MODEL.propose(phi, key, x)
            return scale * z, log_q

        scaled = bounds.LatentModel(
            propose,
            lambda phi, x, z: MODEL.log_q(phi, x, z / scale),
            lambda theta, x, z: MODEL.log_p(theta, x, z / scale),
        )
        settings = {"betas": betas, "num_leapfrog": 3}
        step_sizes = bounds.tune_step_sizes(scaled, PARAMS, key_pilot, X, num_chains=64, **settings)
        chain = jax.vmap(
            lambda key: bounds.ais(scaled, PARAMS, key, X, step_sizes=step_sizes, **settings)
        )
        return step_sizes, chain(keys)[1].mean(0)

    for scale in (0.01, 1.0, 100.0):
        key_pilot, key = jax.random.split(jax.random.key(8))
        step_sizes, acceptance = run(scale, key_pilot, jax.random.split(key, 2000))
        assert step_sizes.shape == (3,)
        np.testing.assert_allclose(acceptance, 0.65, atol=0.15)


def test_results_are_constants_to_differentiation():
    def total(params, x, start):
        up, _ = bounds.ais(MODEL, params, jax.random.key(0), x, **SETTINGS)
        down, _ = bounds.reverse_ais(MODEL, params, jax.random.key(1), x, start, **SETTINGS)
        return up + down

    grads = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(PARAMS, X, jnp.zeros(2))
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(grads))


def test_memory_does_not_grow_with_temperatures():
    def memory(num_temperatures):
        def run(key, x):
            betas = bounds.annealing_schedule(num_temperatures)
            return bounds.ais(MODEL, PARAMS, key, x, betas=betas, step_sizes=0.1)

        compiled = jax.jit(run).lower(jax.random.key(0), X).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # A few numbers per temperature: the weights, acceptances and betas.
    assert memory(2000) - memory(20) < 2000 * 4 * 10


def test_old_keys_and_half_precision():
    @jax.jit
    def run(up_key, down_key, z):
        up, _ = bounds.ais(MODEL, PARAMS, up_key, X, **SETTINGS)
        down, acceptance = bounds.reverse_ais(MODEL, PARAMS, down_key, X, z, **SETTINGS)
        return up, down, acceptance

    keys = jax.random.PRNGKey(0), jax.random.PRNGKey(1)
    up, down, acceptance = run(*keys, jnp.array([0.9, -0.3], jnp.bfloat16))
    assert np.isfinite([up, down]).all()
    assert up.dtype == down.dtype == jnp.float32
    assert np.all(acceptance > 0.1)


def test_one_start_for_chains_on_many_devices():
    """z and x are everywhere the same, keys are not: shard_map checks the types of a scan."""
    mesh = jax.make_mesh((1,), ("chains",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    start = jnp.array([0.9, -0.3])

    def run(z, keys):
        return jax.vmap(lambda k: bounds.reverse_ais(MODEL, PARAMS, k, X, z, **SETTINGS)[0])(keys)

    sharded = jax.shard_map(run, mesh=mesh, in_specs=(P(), P("chains")), out_specs=P("chains"))
    keys = jax.random.split(jax.random.key(9), 4)
    found = jax.jit(sharded)(start, keys)
    np.testing.assert_allclose(found, jax.jit(run)(start, jax.random.clone(keys)), rtol=1e-5)


@pytest.mark.x64
def test_schedule():
    betas = bounds.annealing_schedule(9, radius=3.0)
    steps = jax.nn.sigmoid(3.0 * jnp.linspace(-1.0, 1.0, 9))
    expected = (steps - steps[0]) / (steps[-1] - steps[0])
    np.testing.assert_allclose(betas, expected, rtol=TIGHT, atol=1e-6)
    assert betas[0] == 0
    assert betas[-1] == 1
    np.testing.assert_allclose(
        bounds.annealing_schedule(6, radius=1e-3), np.linspace(0, 1, 6), atol=1e-6
    )
    np.testing.assert_array_equal(bounds.annealing_schedule(2), [0.0, 1.0])
    assert np.all(np.diff(bounds.annealing_schedule(10_000)) > 0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"betas": jnp.array([0.1, 0.5, 0.7, 1.0])}, ValueError, "start at 0"),
        ({"betas": jnp.array([0.0, 0.5, 0.7, 0.9])}, ValueError, "end at 1"),
        ({"betas": jnp.array([0.0, 0.7, 0.7, 1.0])}, ValueError, "increase strictly"),
        ({"betas": np.array([0.0, 0.7, np.nan, 1.0])}, ValueError, "increase strictly"),
        ({"betas": jnp.array(1.0)}, ValueError, "got \\(\\)"),
        ({"betas": jnp.array([1.0])}, ValueError, "got \\(1,\\)"),
        ({"step_sizes": jnp.ones(4)}, ValueError, "have shape \\(2,\\).*got shape \\(4,\\)"),
        ({"step_sizes": 0.0}, ValueError, "positive and finite"),
        ({"num_leapfrog": 0}, ValueError, "num_leapfrog must be at least 1"),
        ({"num_leapfrog": True}, TypeError, "num_leapfrog must be a Python integer"),
    ],
)
def test_wrong_settings(change, error, message):
    settings = SETTINGS | change
    with pytest.raises(error, match=message):
        bounds.ais(MODEL, PARAMS, jax.random.key(0), X, **settings)
    with pytest.raises(error, match=message):
        bounds.reverse_ais(MODEL, PARAMS, jax.random.key(0), X, jnp.zeros(2), **settings)
    if "step_sizes" not in change:
        del settings["step_sizes"]
        with pytest.raises(error, match=message):
            bounds.tune_step_sizes(MODEL, PARAMS, jax.random.key(0), X, **settings)


def test_models_that_cannot_be_annealed():
    blind = MODEL._replace(log_q=None)
    with pytest.raises(ValueError, match=r"log_q=None; use bounds\.log_likelihood"):
        bounds.ais(blind, PARAMS, jax.random.key(0), X, **SETTINGS)
    discrete = MODEL._replace(propose=lambda phi, key, x: (jnp.array([1, 0]), jnp.array(-1.0)))
    with pytest.raises(TypeError, match=r"floating-point, got dtype int(32|64)"):
        bounds.ais(discrete, PARAMS, jax.random.key(0), X, **SETTINGS)
    with pytest.raises(TypeError, match="got dtype int32"):
        bounds.reverse_ais(MODEL, PARAMS, jax.random.key(0), X, jnp.zeros(2, jnp.int32), **SETTINGS)


def test_wrong_pilot_and_schedule():
    for change, message in [
        ({"num_rounds": 0}, "num_rounds must be at least 1"),
        ({"num_chains": 0}, "num_chains must be at least 1"),
        ({"target": 1.0}, "target must be an acceptance between 0 and 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            bounds.tune_step_sizes(
                MODEL, PARAMS, jax.random.key(0), X, betas=SETTINGS["betas"], **change
            )
    with pytest.raises(ValueError, match="num_temperatures must be at least 2, got 1"):
        bounds.annealing_schedule(1)
    with pytest.raises(ValueError, match="radius must be positive"):
        bounds.annealing_schedule(5, radius=0.0)
