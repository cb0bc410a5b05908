"""The training loop, its batches and its optimisers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bounds
from experiments.data import batches
from experiments.runtime import mesh, optimizers, settings, subprograms, trainer
from experiments.runtime.errors import UserError
from experiments.vae.settings import Train
from models.exact import linear_gaussian

MODEL = linear_gaussian.make_model()
PARAMS = bounds.Params(
    jnp.array([0.3, -0.2]),
    linear_gaussian.Inference(0.5 * jnp.eye(2), jnp.array([0.4, 0.2])),
)
ADAM = optax.adam(1e-2)


def stream(bad=None):
    """Data that change from epoch to epoch, 5 steps each; batch `bad` holds a NaN."""
    dataset = linear_gaussian.generate(jax.random.key(0), 16, 2)

    def batch(data, key, step):
        index = jax.random.randint(key, (4,), 0, 16)
        x = jnp.where(step == (-1 if bad is None else bad), jnp.nan, dataset[index])
        return {"x": x + data[0][step - data[1]], "index": index}

    def window(first, length):
        return jnp.arange(first, first + length) // 5.0, first

    return trainer.Stream(window, batch, 5)


def run(state=None, num_steps=17, loss=None, source=None, **settings):
    state = trainer.init_state(PARAMS, ADAM) if state is None else state
    return trainer.train(
        loss or trainer.from_objective(bounds.pathwise(MODEL, num_samples=2)),
        state,
        source or stream(),
        ADAM,
        jax.random.key(3),
        num_steps=num_steps,
        **settings,
    )


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("at_once", [1, 3, 4, 5, 20])
def test_gradients_taken_in_parts_add_up_to_those_of_the_batch(at_once):
    batch = {"x": linear_gaussian.generate(jax.random.key(0), 10, 2), "index": jnp.arange(10) + 7}

    def value_and_grad(at_once):
        loss = trainer.from_objective(bounds.dreg(MODEL, num_samples=3), at_once=at_once)
        program = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (value, (_, metrics)), grads = program(PARAMS, (), batch, jax.random.key(1), 0)
        assert value == -metrics["bound"]
        return value, grads

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        value_and_grad(at_once),
        value_and_grad(0),
    )


@pytest.mark.parametrize("steps_per_chunk", [1, 3, 5, 7])
def test_chunks_change_nothing_but_rounding(steps_per_chunk):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        run(steps_per_chunk=steps_per_chunk),
        run(steps_per_chunk=17),
    )


@pytest.mark.parametrize("middle", [4, 8, 12])
def test_starting_again_after_a_chunk_changes_no_bit(middle):
    whole = run(steps_per_chunk=4)
    assert_same(run(run(num_steps=middle, steps_per_chunk=4), steps_per_chunk=4), whole)


def test_every_step_gets_the_data_of_its_window():
    constant = stream()._replace(window=lambda first, length: (jnp.zeros(length), first))
    one = run(num_steps=5).params.theta
    np.testing.assert_array_equal(one, run(num_steps=5, source=constant).params.theta)
    assert np.any(run(num_steps=6).params.theta != run(num_steps=6, source=constant).params.theta)


def test_metrics_are_means_since_the_last_call():
    seen = []
    run(steps_per_chunk=1, on_chunk=lambda state, means: seen.append(float(means["bound"])))
    means = []
    run(steps_per_chunk=7, on_chunk=lambda s, m: means.append((int(s.step), float(m["bound"]))))
    assert [step for step, _ in means] == [7, 14, 17]
    expected = [np.mean(seen[:7]), np.mean(seen[7:14]), np.mean(seen[14:])]
    np.testing.assert_allclose([value for _, value in means], expected, rtol=1e-5)


def test_nan_in_a_batch_stops_training_and_names_its_step():
    states = []
    with pytest.raises(UserError, match="not finite at step 7;"):
        run(source=stream(bad=7), steps_per_chunk=3, on_chunk=lambda s, m: states.append(s))
    assert [int(s.step) for s in states] == [3, 6]
    assert all(np.all(np.isfinite(leaf)) for s in states for leaf in jax.tree.leaves(s.params))


def test_nan_in_the_gradient_alone_never_reaches_a_checkpoint():
    def loss(params, extra, batch, key, step):
        value = jnp.sum(params.theta**2)
        # A finite value with an infinite slope, at the last step of a chunk.
        kink = jnp.sqrt(jnp.where(step == 2, 0.0, 1.0) * params.theta[0] ** 2)
        return value + kink, (extra, {})

    states = []
    with pytest.raises(UserError, match="not finite at step 2;"):
        run(loss=loss, steps_per_chunk=3, on_chunk=lambda s, m: states.append(s))
    assert not states


def test_infinity_in_the_optimizer_alone_never_reaches_a_checkpoint():
    """The square of a gradient overflows; the step divided by it is 0."""

    def loss(params, extra, batch, key, step):
        return 1e25 * params.theta[0], (extra, {})

    with pytest.raises(UserError, match="update is not finite at step 0;"):
        run(loss=loss, steps_per_chunk=3)


def test_training_reaches_the_known_optimum():
    """The linear-Gaussian model under the ELBO: mu* = mean(x), A* = I/2, b* = mu/2."""
    dataset = linear_gaussian.generate(jax.random.key(0), 256, 2)
    model = linear_gaussian.make_model()
    start = linear_gaussian.perturb(linear_gaussian.optimum(dataset), jax.random.key(1), 0.5)
    seen = []
    optimizer = optax.adam(2e-2)
    state = trainer.train(
        trainer.from_objective(bounds.stl(model, num_samples=8, bound=bounds.elbo)),
        trainer.init_state(start, optimizer),
        trainer.Stream(
            lambda first, length: dataset,
            lambda x, key, step: {"x": x, "index": jnp.arange(256)},
            10_000,
        ),
        optimizer,
        jax.random.key(2),
        num_steps=501,
        steps_per_chunk=200,
        on_chunk=lambda state, metrics: seen.append((int(state.step), float(metrics["bound"]))),
    )
    assert [step for step, _ in seen] == [200, 400, 501]
    assert int(state.step) == 501
    best = linear_gaussian.optimum(dataset)
    np.testing.assert_allclose(state.params.theta, best.theta, atol=0.05)
    np.testing.assert_allclose(state.params.phi.weight, best.phi.weight, atol=0.05)
    exact = jnp.mean(jax.vmap(linear_gaussian.expected_elbo, (None, 0))(best, dataset))
    assert abs(seen[-1][1] - exact) < 0.1


def test_average_of_parameters():
    decay, states = 0.9, []
    state = trainer.init_state(PARAMS, ADAM, ema=True)
    run(
        state,
        num_steps=4,
        ema_decay=decay,
        steps_per_chunk=1,
        on_chunk=lambda s, m: states.append(s),
    )
    average = np.asarray(PARAMS.theta, np.float64)
    for state in states:
        average = decay * average + (1 - decay) * np.asarray(state.params.theta, np.float64)
        np.testing.assert_allclose(state.ema.theta, average, rtol=1e-6)
    assert_same([s.params for s in states][-1], run(num_steps=4).params)
    assert run(num_steps=4).ema == ()


def test_extra_is_carried():
    def loss(params, extra, batch, key, step):
        return jnp.sum(params.theta**2), ({"seen": extra["seen"] + step}, {"seen": extra["seen"]})

    state = trainer.init_state(PARAMS, ADAM, extra={"seen": jnp.asarray(0)})
    assert int(run(state, num_steps=6, loss=loss).extra["seen"]) == 15


# --- batches ------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(0, 17, (23, 4, 4)).astype(np.uint8)


def image_stream(**settings):
    return batches.image_stream(
        IMAGES,
        batches.binarize(17),
        jax.random.key(1),
        batch_size=5,
        mesh=mesh.device_mesh(mesh.DATA),
        **settings,
    )


def order(source, epoch, window=(0, 12)):
    data = source.window(*window)
    steps = range(4 * epoch, 4 * epoch + 4)
    return np.concatenate(
        [source.batch(data, jax.random.key(2), jnp.asarray(s))["index"] for s in steps]
    )


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own():
    source = image_stream()
    first, second = order(source, 0), order(source, 1)
    assert source.steps_per_epoch == 4
    for each in (first, second):
        assert len(set(each.tolist())) == 20
    assert len({tuple(order(source, e, (4 * e, 4)).tolist()) for e in range(6)}) == 6
    assert first.tolist() == order(image_stream(), 0).tolist()
    # An odd window, over the end of an epoch, shows the same.
    assert second.tolist() == order(image_stream(), 1, (3, 6)).tolist()
    kept = image_stream(reshuffle=False)
    assert order(kept, 0).tolist() == order(kept, 1).tolist() == list(range(20))


def test_binarisation_is_a_function_of_key_and_image_alone():
    source = image_stream(reshuffle=False)
    data, step = source.window(0, 4), jnp.asarray(1)
    got = source.batch(data, jax.random.key(2), step)
    same = source.batch(data, jax.random.key(2), step)
    other = source.batch(data, jax.random.key(4), step)
    np.testing.assert_array_equal(got["x"], same["x"])
    assert np.any(got["x"] != other["x"])
    images, index, first = data
    shifted = source.batch(
        (images, jnp.roll(index.reshape(-1), -2).reshape(4, 5), first), jax.random.key(2), step
    )
    np.testing.assert_array_equal(shifted["index"][:3], got["index"][2:])
    np.testing.assert_array_equal(shifted["x"][:3], got["x"][2:])


def test_binarised_pixels_have_the_mean_of_their_intensity():
    """Largest of 16 z-scores over 20,000 draws; a false alarm in 10,000 runs."""
    keys = jax.random.split(jax.random.key(5), 20_000)
    draws = np.asarray(jax.vmap(lambda k: batches.binarize(17)(k, jnp.asarray(IMAGES[0])))(keys))
    p = IMAGES[0].reshape(-1) / 16
    spread = np.sqrt(p * (1 - p) / len(keys))
    np.testing.assert_array_equal(draws.mean(0)[spread == 0], p[spread == 0])
    z = (draws.mean(0) - p)[spread > 0] / spread[spread > 0]
    assert np.abs(z).max() < 4.5
    assert (
        np.abs((draws.mean(0) - IMAGES[0].reshape(-1) / 17)[spread > 0] / spread[spread > 0]).max()
        > 4.5
    )


@pytest.mark.parametrize("size", [0, 24])
def test_batch_that_the_data_cannot_fill_is_refused(size):
    with pytest.raises(UserError, match="between 1 and 23"):
        batches.image_stream(
            IMAGES,
            batches.as_integers,
            jax.random.key(0),
            batch_size=size,
            mesh=mesh.device_mesh(mesh.DATA),
        )


# --- optimisers ---------------------------------------------------------------------------------


def make(name, **changes):
    fields = {
        "learning_rate": 0.1, "warmup_steps": 0, "clip_norm": 0.0, "num_steps": 10,
        "batch_size": 20, **changes,
    }  # fmt: skip
    return optimizers.make_optimizer(name, **fields)


def test_burda_schedule_at_the_borders_of_its_stages():
    schedule = optimizers.burda_schedule(10 * optimizers.BURDA_EPOCHS)
    rates = [1e-3, 7.2e-4, 5.2e-4, 3.7e-4, 2.7e-4, 1.9e-4, 1.4e-4, 1e-4]
    start = 0
    for stage, rate in enumerate(rates):
        end = start + 10 * 3**stage
        np.testing.assert_allclose([schedule(start), schedule(end - 1)], rate, rtol=1e-6)
        start = end
    assert start == 10 * optimizers.BURDA_EPOCHS == 32_800


def test_a_shorter_training_goes_through_all_stages_of_burda():
    full, short = (optimizers.burda_schedule(n) for n in (3280 * 596, 100 * 596))
    shares = (np.arange(3280) + 0.5) / 3280
    np.testing.assert_array_equal(
        [short(int(s * 100 * 596)) for s in shares], [full(int(s * 3280 * 596)) for s in shares]
    )
    assert short(0) == full(0) > short(100 * 596 - 1) == full(3280 * 596 - 1)


def test_released_adam_is_the_recursion_of_the_released_code():
    """Its simultaneous updates: each step uses the moments, and the count, from before it."""
    optimizer = make("released_code", num_steps=optimizers.BURDA_EPOCHS)
    grads = np.random.default_rng(1).normal(size=(6, 3))
    params, m, v = np.zeros(3), np.zeros(3), np.ones(3)
    got, moments = jnp.zeros(3), optimizer.init(jnp.zeros(3))
    rates = [1e-3, 7.2e-4, 7.2e-4, 7.2e-4, 5.2e-4, 5.2e-4]
    for t, grad in enumerate(grads, 1):
        updates, moments = optimizer.update(jnp.asarray(grad, jnp.float32), moments, got)
        got = optax.apply_updates(got, updates)
        alpha = rates[t - 1] * np.sqrt(1 - 0.999**t) / (1 - 0.99**t)
        # Ascent on the bound there is descent on the loss here; the gradient is the batch's sum.
        params = params - alpha * m / (np.sqrt(v) + 1e-4)
        m, v = 0.99 * m + 0.01 * 20 * grad, 0.999 * v + 0.001 * (20 * grad) ** 2
        np.testing.assert_allclose(got, params, rtol=1e-4, atol=1e-9)
    assert np.abs(got).max() > 0


def test_paper_protocol_is_adam_on_the_mean_gradient():
    paper = make("paper", num_steps=optimizers.BURDA_EPOCHS)
    adam = optax.adam(1e-3, b1=0.9, b2=0.999, eps=1e-4)
    grad = jnp.array([1e-4, -2.0, 0.5])
    a, _ = paper.update(grad, paper.init(grad), grad)
    b, _ = adam.update(grad, adam.init(grad), grad)
    np.testing.assert_allclose(a, b, rtol=1e-6)


def rates_of(name, num_steps, **changes):
    """The rates of the first steps: Adam's step is the rate where the gradient never changes."""
    optimizer = make(name, num_steps=num_steps, **changes)
    grad, state, rates = jnp.ones(1), optimizer.init(jnp.ones(1)), []
    for _ in range(num_steps):
        update, state = optimizer.update(grad, state, grad)
        rates.append(-float(update[0]))
    return rates


def test_warm_up_rises_to_the_rate_and_the_cosine_falls_to_0():
    rise = [0.025, 0.05, 0.075, 0.1]
    found = rates_of("adam_warmup", 7, warmup_steps=4)
    np.testing.assert_allclose(found, [*rise, 0.1, 0.1, 0.1], rtol=1e-4)
    found = rates_of("adam_cosine", 8, warmup_steps=4)
    fall = [0.05 * (1 + np.cos(np.pi * t / 4)) for t in range(4)]
    np.testing.assert_allclose(found, [*rise, *fall], rtol=1e-4)
    np.testing.assert_allclose(rates_of("adam_warmup", 3, warmup_steps=0), 0.1, rtol=1e-4)


@pytest.mark.parametrize("changes", [{"warmup_steps": -1}, {"warmup_steps": 10}], ids=str)
def test_warm_ups_that_make_no_sense_are_refused(changes):
    config = subprograms.load_config(
        "configs/train_digits.py",
        {"optimizer": {"name": "adam_cosine", **changes}, "training": {"num_steps": 10}},
    )
    with pytest.raises(UserError, match=r"--config\.optimizer\.warmup_steps must be"):
        settings.parse(Train, config)


def test_clipping_bounds_the_norm_of_all_gradients_together():
    sgd = make("sgd", clip_norm=1.0)
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    updates, _ = sgd.update(grads, sgd.init(grads), grads)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-0.06, -0.08], rtol=1e-6)


def test_unknown_optimizer_names_the_known_ones():
    config = subprograms.load_config("configs/train_digits.py", {"optimizer": {"name": "adma"}})
    known = "'adam_cosine', 'sgd', 'paper' or 'released_code', got 'adma'"
    with pytest.raises(UserError, match=known):
        settings.parse(Train, config)
