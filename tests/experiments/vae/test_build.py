"""What settings are turned into: the right images, keys, order and start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_cases import problem_of, tiny

import bounds
from experiments.runtime import fit, trainer
from experiments.studies import held_out
from experiments.vae import build, sandwich


@pytest.fixture(scope="module")
def problem():
    return problem_of(tiny())


def test_validation_is_the_bound_of_the_validation_images(problem):
    trained = tiny(training={"validation_samples": 400})
    params = problem.vae.init(jax.random.key(1), np.full(64, 0.3, np.float32))
    measured = held_out.per_image(
        problem.vae.model,
        params,
        build.prepared(problem, "validation", 0),
        jax.random.key(2),
        few=1,
        many=400,
    ).iwae_many
    # Both are means over the same images: their samples alone tell them apart.
    value = build.validation(problem, trained)(params)
    assert value == pytest.approx(measured.mean(), abs=0.05)
    test = held_out.per_image(
        problem.vae.model,
        params,
        build.prepared(problem, "test", 0),
        jax.random.key(2),
        few=1,
        many=400,
    ).iwae_many
    assert abs(test.mean() - value) > 0.1


def test_splits_are_binarised_by_keys_of_their_own(problem):
    def drawn(split, images, seed=0):
        own = problem._replace(dataset=problem.dataset._replace(**{split: images}))
        return build.prepared(own, split, seed)

    images = problem.dataset.test[:50]
    test, validation = drawn("test", images), drawn("validation", images)
    assert np.mean(test != validation) > 0.05
    assert np.mean(test != drawn("test", images, seed=7)) > 0.05
    # Every image keeps its own draw, however many there are.
    np.testing.assert_array_equal(test[:20], drawn("test", images[:20]))


@pytest.mark.parametrize("likelihood", build.LIKELIHOODS)
def test_untrained_decoder_starts_at_the_average_training_image(likelihood):
    problem = problem_of(tiny(model={"likelihood": likelihood}))
    params = build.init_params(problem, jax.random.key(0))
    average = problem.dataset.train.reshape(-1, 64).mean(0) / (problem.dataset.levels - 1)
    start = problem.vae.decode(params.theta, jnp.zeros(4)) / (problem.vae.likelihood.levels - 1)
    # Tails of a logistic are folded in, which moves its mean.
    np.testing.assert_allclose(start, average, atol=2e-3 if likelihood == "bernoulli" else 0.06)


@pytest.mark.parametrize(("optimizer", "same"), [("released_code", True), ("paper", False)])
def test_released_code_goes_through_the_images_in_the_order_of_the_file(problem, optimizer, same):
    trained = tiny(optimizer={"name": optimizer}, training={"batch_size": 50})
    run = build.make_run(problem, trained, 0)
    _, index, _ = run.stream.window(0, run.stream.steps_per_epoch)
    assert (np.asarray(index).reshape(-1).tolist() == list(range(1350))) == same


def test_the_average_of_the_parameters_is_evaluated_where_there_is_one():
    state = trainer.State(jnp.asarray(1), {"w": 1.0}, (), (), {"w": 2.0})
    assert fit.evaluated_params(state) == {"w": 2.0}
    assert fit.evaluated_params(state._replace(ema=())) == {"w": 1.0}


def test_seeds_differ_in_their_start_order_and_samples(problem):
    first, second = (build.make_run(problem, tiny(), s) for s in (0, 1))
    a, b = (r.init().phi[0]["params"]["mean"]["kernel"] for r in (first, second))
    assert np.any(a != b)
    a, b = (np.asarray(r.stream.window(0, 5)[1]) for r in (first, second))
    assert np.any(a != b)
    assert np.any(jax.random.key_data(first.key) != jax.random.key_data(second.key))


def test_all_models_of_a_grid_are_scored_by_the_same_draws():
    a, b, other = (
        jax.random.key_data(build.evaluation_key(tiny(**changes)))
        for changes in ({"seed": 0}, {"seed": 1}, {"data": {"binarization_seed": 1}})
    )
    np.testing.assert_array_equal(a, b)
    assert np.any(a != other)


def precisions(function, *arguments):
    """Of every matrix product in a program, within its calls and loops too."""
    found = []

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                found.append(equation.params["precision"])
            for value in equation.params.values():
                for inner in value if isinstance(value, tuple | list) else [value]:
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        walk(inner)

    walk(jax.make_jaxpr(function)(*arguments).jaxpr)
    return found


def test_evaluations_multiply_matrices_in_full_precision(problem):
    """Accelerators round the factors to 10 bits or 8 unless told not to."""
    params = build.init_params(problem, jax.random.key(0))
    x, index, key = jnp.zeros((3, 64)), jnp.arange(3), jax.random.key(1)
    _, z = sandwich.simulated(problem.vae, params, jax.random.key(2), 3)
    programs = [
        (held_out.evaluator(problem.vae.model, 2, 4, 4), (params, key, x, index)),
        (sandwich._chains(problem.vae, 4, 2, 2), (params, key, (x, z), index)),
    ]
    for program, arguments in programs:
        found = precisions(program.__wrapped__, *arguments)
        assert found
        assert all(p == (jax.lax.Precision.HIGHEST,) * 2 for p in found)
    plain = precisions(
        lambda p, k: bounds.log_weights(problem.vae.model, p, k, x[0], num_samples=2), params, key
    )
    assert plain
    assert not any(p == (jax.lax.Precision.HIGHEST,) * 2 for p in plain)
