"""experiments.dalle: the losses of both stages, their schedules, and the sizes of larger images."""

import dalle_cases
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from dalle_cases import batch_of, by_hand, tiny

import bounds
from configs import dalle_images
from experiments.dalle import build, enumeration, training
from experiments.dalle.settings import Dalle
from experiments.data import captions
from experiments.data.sets import Dataset
from experiments.runtime import fit, settings, trainer
from experiments.studies.images import Problem, as_images
from models.token_prior import picked


@pytest.fixture(scope="module")
def data():
    return dalle_cases.data()


@pytest.fixture(scope="module")
def trained():
    return dalle_cases.trained()


def at_beta6_6(name):
    """The first stage of a model of the study, at its last beta from the first step."""
    return (
        tiny(
            models={"beta6_6": {"objective": {"beta": 6.6}}},
            objective={"name": name, "beta_steps": 0},
        )
        .of_model("beta6_6")
        .objective
    )


def test_objective_of_the_first_stage_is_exact_where_it_is_enumerated(data, trained):
    model, params = trained
    loss = training.make_dvae_loss(model, at_beta6_6("enumerated"))
    batch = batch_of(data, 2)
    found, _ = jax.jit(loss)(params, (), batch, jax.random.key(0), 0)
    expected = []
    uniform = -model.dvae.num_tokens * np.log(model.num_codes)
    for x in batch["x"]:
        codes = enumeration.all_codes(model.dvae.num_tokens, model.num_codes)
        log_q = jax.nn.log_softmax(model.dvae.encode(params.phi, x))
        each = jnp.take_along_axis(log_q, jnp.asarray(codes).T, axis=1).sum(axis=0)
        one_hot = jax.nn.one_hot(codes, model.num_codes)
        log_px = jax.vmap(lambda c, x=x: model.dvae.log_px(params.theta["decoder"], x, c))(one_hot)
        expected.append(jnp.sum(jnp.exp(each) * (log_px - 6.6 * (each - uniform))))
    np.testing.assert_allclose(found, -np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize("objective", ["vimco", "reinforce"])
def test_discrete_objectives_have_the_mean_of_the_enumerated_one(data, trained, objective):
    """REINFORCE: B_beta itself; VIMCO: at least B_beta, and at most the supremum over q."""
    model, params = trained
    batch = batch_of(data, 1)
    loss = training.make_dvae_loss(model, at_beta6_6(objective))
    loss = jax.jit(jax.vmap(loss, (None, None, None, 0, None)))
    keys = jax.random.split(jax.random.key(0), 400)
    values = -np.asarray(loss(params, (), batch, keys, 0)[0], np.float64)
    exact = bounds.joint.enumerated(model.images, num_codes=3, beta=6.6)
    bound = float(jax.jit(exact)(params, None, (batch["x"][0], ())))
    z = (values.mean() - bound) / (values.std(ddof=1) / np.sqrt(len(values)))
    if objective == "reinforce":
        assert abs(z) < oracles.z_limit(1)
    else:
        log_joint, _ = by_hand(model, params, batch["x"][0], data.tokens["train"][0])
        assert z > -oracles.z_limit(1)
        log_px = log_joint - _log_prior(model, params, data.tokens["train"][0])
        supremum = 6.6 * np.logaddexp.reduce(log_px / 6.6 - 4 * np.log(3))
        assert values.mean() < supremum


def _log_prior(model, params, y):
    codes = jnp.asarray(enumeration.all_codes(4, 3))

    def at(z):
        text, logits = model.joint.prior(params.theta, jnp.asarray(y), z)
        return text + picked(logits, z)

    return np.asarray(jax.jit(jax.vmap(at))(codes), np.float64)


def test_default_objective_is_the_relaxed_one_at_the_beta_and_temperature_of_the_step(
    data, trained
):
    model, params = trained
    asked = tiny(objective={"beta": 3.0, "beta_steps": 10, "temperature_steps": 10})
    loss = jax.jit(training.make_dvae_loss(model, asked.objective))
    batch = {"x": batch_of(data)["x"][:2], "index": jnp.array([7, 3])}
    for step, beta, temperature in ((5, 1.5, (1 + 1 / 16) / 2), (10, 3.0, 1 / 16)):
        key = jax.random.key(4)
        found, _ = loss(params, (), batch, key, step)
        objective = bounds.joint.relaxed(model.images, temperature=temperature, beta=beta)
        values = [
            objective(params, jax.random.fold_in(jax.random.clone(key), i), (x, ()))
            for i, x in zip((7, 3), batch["x"], strict=True)
        ]
        np.testing.assert_allclose(found, -np.mean(values), rtol=1e-5)


@pytest.mark.parametrize("objective", ["vimco", "reinforce"])
def test_score_function_objectives_never_start_at_a_beta_of_zero(objective):
    asked = tiny(models={"own": {}}, objective={"name": objective, "beta": 2.0, "beta_steps": 10})
    assert training.beta_schedule(asked.objective)(0) > 0


def test_schedules_are_half_cosines():
    wanted = tiny(objective={"beta_steps": 10, "temperature_steps": 20, "beta": 4.0}).objective
    beta, temperature = training.beta_schedule(wanted), training.temperature_schedule(wanted)
    np.testing.assert_allclose([beta(s) for s in (0, 5, 10, 99)], [0, 2, 4, 4], atol=1e-6)
    ends = [temperature(s) for s in (0, 10, 20, 99)]
    np.testing.assert_allclose(ends, [1, (1 + 1 / 16) / 2, 1 / 16, 1 / 16], atol=1e-6)


@pytest.mark.parametrize("tokens", ["sampled", "argmax"])
def test_second_stage_fits_the_prior_to_the_tokens_and_leaves_the_rest(data, trained, tokens):
    model, params = trained
    changes = {"tokens": tokens, "dropout": 0.0, "text_weight": 2.0, "image_weight": 3.0}
    loss = training.make_prior_loss(data, model, tiny(prior=changes).prior)
    # In another order than that of the images.
    index = jnp.array([5, 0, 9, 2])
    batch = {"x": batch_of(data)["x"][index], "index": index}
    (found, (_, parts)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        params, (), batch, jax.random.key(0), 0
    )
    np.testing.assert_allclose(found, -2 * parts["log_text"] - 3 * parts["log_image"], rtol=1e-5)
    for part in (grads.phi, grads.theta["decoder"]):
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(part))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads.theta["prior"]))
    if tokens == "argmax":
        expected = []
        for x, y in zip(batch["x"], data.tokens["train"][index], strict=True):
            z = jnp.argmax(model.dvae.encode(params.phi, x), axis=-1)
            text, logits = model.joint.prior(params.theta, jnp.asarray(y), z)
            expected.append(2 * text + 3 * picked(logits, z))
        np.testing.assert_allclose(found, -np.mean(expected), rtol=1e-5)


def test_dropout_acts_in_the_second_stage_alone(data, trained):
    _, params = trained
    batch = batch_of(data, 2)
    for dropout in (0.0, 0.5):
        asked = tiny(prior={"tokens": "argmax", "dropout": dropout})
        own = build.make_model(data, asked)
        loss = jax.jit(training.make_prior_loss(data, own, asked.prior))
        keys = jax.random.split(jax.random.key(3))
        a, b = (float(loss(params, (), batch, key, 0)[0]) for key in keys)
        assert (a == b) == (dropout == 0.0)


def test_validation_of_the_prior_takes_each_image_with_its_caption(data, trained):
    model, params = trained
    asked = tiny(prior={"tokens": "argmax", "text_weight": 0.5, "image_weight": 2.0})
    value = training.make_prior_run(data, model, asked, 0, params).validate(params)

    def of_pair(x, y):
        z = jnp.argmax(model.dvae.encode(params.phi, x), axis=-1)
        text, logits = model.joint.prior(params.theta, y, z)
        return 0.5 * text + 2.0 * picked(logits, z)

    x = jnp.asarray(as_images(data.problem.dataset.validation))
    y = jnp.asarray(data.tokens["validation"])
    of_all = jax.jit(jax.vmap(of_pair))
    np.testing.assert_allclose(value, of_all(x, y).mean(), rtol=1e-5)
    assert abs(value - float(of_all(x, y[::-1]).mean())) > 1e-4


def test_enlarged_images_repeat_their_pixels(data):
    large = build.enlarged(data.problem, 2)
    assert large.shape == (16, 16, 1)
    for split in ("train", "validation", "test"):
        small, big = (getattr(p.dataset, split) for p in (data.problem, large))
        for i in (0, 1):
            for j in (0, 1):
                np.testing.assert_array_equal(big[:, i::2, j::2], small)


def larger(name, **changes):
    """What is trained of a config of larger images, and four images of its size."""
    config = settings.merged(dalle_images.get_config(name).to_dict(), changes)
    own = settings.parse(Dalle, config).of_model("dvae")
    return own, _made_up_data(own.data)


@pytest.mark.parametrize("name", ["fashion_mnist", "emoji", "paper"])
def test_configs_of_larger_images_make_their_models(name):
    own, data = larger(name)
    model = build.make_model(data, own)
    params = jax.eval_shape(model.init, jax.random.key(0))
    sizes = {"fashion_mnist": ((7, 7), 64), "emoji": ((8, 8), 256), "paper": ((32, 32), 8192)}
    assert (model.dvae.grid, model.num_codes) == sizes[name]
    training.make_dvae_loss(model, own.objective)
    if name == "paper":
        assert sum(leaf.size for leaf in jax.tree.leaves(params.phi)) == 53_786_240


def _made_up_data(wanted):
    """Four images of the size of a data set, with captions."""
    side = {"fashion_mnist": 28, "emoji": 64}[wanted.name]
    channels = () if side == 28 else (3,)
    images = np.random.default_rng(0).integers(0, 256, (4, side, side, *channels), np.uint8)
    dataset = Dataset("made up", images, images[:1], images[:1], 256)
    problem = build.enlarged(Problem(dataset, (side, side, *(channels or (1,)))), wanted.enlarge)
    found = captions.Captions(("one", "two", "two", "one"), ("one",), ("two",))
    words = captions.vocabulary(found, wanted.text_length)
    tokens = {split: words.all_tokens(getattr(found, split)) for split in found._fields}
    return build.Data(problem, found, words, tokens)


@pytest.mark.slow
def test_model_of_the_papers_size_takes_a_step_of_each_stage():
    """256x256, 32x32 tokens of 8,192 codes: batches of one, in float32."""
    own, data = larger(
        "paper", training={"batch_size": 1}, prior={"num_layers": 2}, optimizer={"warmup_steps": 1}
    )
    model = build.make_model(data, own)
    params, fitted = None, []
    for make in (
        lambda _: training.make_dvae_run(data, model, own, 0),
        lambda p: training.make_prior_run(data, model, own, 0, p),
    ):
        run = make(params)
        state = fit.initial_state(run)
        before = state.params
        state = trainer.train(
            run.loss_fn,
            state,
            run.stream,
            run.optimizer,
            run.key,
            num_steps=1,
            steps_per_chunk=1,
            ema_decay=run.ema_decay,
        )
        params = state.params
        moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, params)
        fitted.append(moved)
    assert all(jax.tree.leaves(fitted[0].theta["decoder"]))
    assert not any(jax.tree.leaves(fitted[1].phi))
    assert any(jax.tree.leaves(fitted[1].theta["prior"]))
