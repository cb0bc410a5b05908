"""experiments.dalle: two stages, exact rows, captions, pictures, and what it refuses."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from absl import flags

import bounds
from configs import dalle_digits, dalle_images
from experiments import dalle
from experiments.dalle_models import build, enumeration, evaluation, report, study, training
from experiments.runtime import captions, fit, trainer
from experiments.runtime.data import Dataset
from experiments.runtime.errors import UserError
from experiments.training import problems, studies
from experiments.training.problems import as_images
from models.token_prior import picked


def tiny(**changes):
    config = dalle_digits.get_config()
    config.width, config.embedding, config.num_codes = 4, 4, 3
    config.prior_layers, config.prior_width, config.prior_heads = 1, 8, 2
    config.seeds, config.num_steps, config.prior_steps, config.warmup_steps = (0,), 4, 4, 1
    config.beta_steps, config.temperature_steps = 2, 2
    config.log_every, config.save_every = 2, 4
    config.evaluation_images, config.evaluation_draws, config.sample_grid = 6, 8, 2
    for name, value in changes.items():
        config[name] = value
    return config


@pytest.fixture(scope="module")
def data():
    return build.make_data(tiny())


def made(data, config, name="beta1"):
    own = study.settings(config, name, 0)
    return own, build.make_model(data, own)


@pytest.fixture(scope="module")
def trained(data):
    """A model away from its start, with its config."""
    own, model = made(data, tiny())
    params = jax.jit(model.init)(jax.random.key(1))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [v + 0.1 * jax.random.normal(k, v.shape) for v, k in zip(leaves, keys, strict=True)]
    return own, model, jax.tree.unflatten(tree, noisy)


def test_captions_are_those_of_the_images(data):
    """Each digit's mean image is nearest to the images of its own caption."""
    images = data.problem.dataset.train.reshape(len(data.captions.train), -1).astype(float)
    words = np.array(data.captions.train)
    means = np.stack([images[words == w].mean(axis=0) for w in captions.DIGITS])
    test = data.problem.dataset.test.reshape(300, -1).astype(float)
    nearest = np.argmin(((test[:, None] - means[None]) ** 2).sum(axis=-1), axis=1)
    right = np.array(captions.DIGITS)[nearest] == np.array(data.captions.test)
    assert right.mean() > 0.85
    assert set(data.classes) == set(captions.DIGITS)


def batch_of(data, count=16):
    return {"x": jnp.asarray(as_images(data.problem.dataset.train[:count])),
            "index": jnp.arange(count)}  # fmt: skip


def test_objective_of_the_first_stage_is_exact_where_it_is_enumerated(data, trained):
    _, model, params = trained
    config = studies.settings(tiny(objective="enumerated", beta_steps=0), "beta6_6", 0, scoring=())
    loss = training.make_dvae_loss(model, config)
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
    _, model, params = trained
    config = studies.settings(tiny(objective=objective, beta_steps=0), "beta6_6", 0, scoring=())
    batch = batch_of(data, 1)
    loss = jax.jit(jax.vmap(training.make_dvae_loss(model, config), (None, None, None, 0, None)))
    keys = jax.random.split(jax.random.key(0), 400)
    values = -np.asarray(loss(params, (), batch, keys, 0)[0], np.float64)
    exact = bounds.enumerated_joint(model.images, num_codes=3, beta=6.6)
    bound = float(jax.jit(exact)(params, None, (batch["x"][0], ())))
    z = (values.mean() - bound) / (values.std(ddof=1) / np.sqrt(len(values)))
    if objective == "reinforce":
        assert abs(z) < oracles.z_limit(1)
    else:
        log_joint, _ = _by_hand(model, params, batch["x"][0], data.tokens["train"][0])
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
    _, model, params = trained
    config = tiny(beta=3.0, beta_steps=10, temperature_steps=10)
    loss = jax.jit(training.make_dvae_loss(model, config))
    batch = {"x": batch_of(data)["x"][:2], "index": jnp.array([7, 3])}
    for step, beta, temperature in ((5, 1.5, (1 + 1 / 16) / 2), (10, 3.0, 1 / 16)):
        key = jax.random.key(4)
        found, _ = loss(params, (), batch, key, step)
        objective = bounds.relaxed_joint(model.images, temperature=temperature, beta=beta)
        values = [
            objective(params, jax.random.fold_in(jax.random.clone(key), i), (x, ()))
            for i, x in zip((7, 3), batch["x"], strict=True)
        ]
        np.testing.assert_allclose(found, -np.mean(values), rtol=1e-5)


@pytest.mark.parametrize("objective", ["vimco", "reinforce"])
def test_score_function_objectives_never_start_at_a_beta_of_zero(objective):
    config = tiny(beta=2.0, beta_steps=10, objective=objective)
    assert training.beta_schedule(config)(0) > 0


def test_schedules_are_half_cosines():
    config = tiny(beta_steps=10, temperature_steps=20, beta=4.0)
    beta, temperature = training.beta_schedule(config), training.temperature_schedule(config)
    np.testing.assert_allclose([beta(s) for s in (0, 5, 10, 99)], [0, 2, 4, 4], atol=1e-6)
    ends = [temperature(s) for s in (0, 10, 20, 99)]
    np.testing.assert_allclose(ends, [1, (1 + 1 / 16) / 2, 1 / 16, 1 / 16], atol=1e-6)


@pytest.mark.parametrize("tokens", ["sampled", "argmax"])
def test_second_stage_fits_the_prior_to_the_tokens_and_leaves_the_rest(data, trained, tokens):
    _, model, params = trained
    config = tiny(tokens=tokens, dropout=0.0, text_weight=2.0, image_weight=3.0)
    loss = training.make_prior_loss(data, model, config)
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


def test_enumeration_is_that_of_the_library_and_its_gap_the_posteriors(data, trained):
    _, model, params = trained
    images, tokens = evaluation._test(data, tiny())
    found = enumeration.enumerated(model, params, images, tokens)
    for i in range(len(images)):
        datum = jnp.asarray(images[i]), jnp.asarray(tokens[i])
        bound = bounds.enumerated_joint(model.joint, num_codes=3)(params, None, datum)
        np.testing.assert_allclose(found.values.bound[i], bound, rtol=1e-5)
    rest = found.values.log_p - found.values.bound - found.gap
    np.testing.assert_allclose(rest, 0.0, atol=1e-4)
    assert np.all(found.gap > 0)
    for i in range(2):  # by NumPy, code by code
        log_joint, log_q = _by_hand(model, params, images[i], tokens[i])
        log_p = np.logaddexp.reduce(log_joint)
        np.testing.assert_allclose(found.values.log_p[i], log_p, atol=1e-4)
        kl = np.sum(np.exp(log_q) * (log_q - log_joint + log_p))
        np.testing.assert_allclose(found.gap[i], kl, atol=1e-4)


def _by_hand(model, params, x, y):
    """log p(x, y, z) and log q(z | x) of all 81 codes in float64."""
    codes = jnp.asarray(enumeration.all_codes(4, 3))

    @jax.jit
    @jax.vmap
    def at(z):
        text, logits = model.joint.prior(params.theta, jnp.asarray(y), z)
        one_hot = jax.nn.one_hot(z, 3)
        log_px = model.dvae.log_px(params.theta["decoder"], jnp.asarray(x), one_hot)
        log_q = picked(model.dvae.encode(params.phi, jnp.asarray(x)), z)
        return text + picked(logits, z) + log_px, log_q

    return (np.asarray(v, np.float64) for v in at(codes))


def test_log_likelihood_agrees_with_importance_sampling(data, trained):
    _, model, params = trained
    images, tokens = evaluation._test(data, tiny())
    exact = enumeration.enumerated(model, params, images, tokens).values.log_p
    latent = bounds.joint_latent(model.joint)
    datum = jnp.asarray(images[0]), jnp.asarray(tokens[0])
    log_w = bounds.log_weights(latent, params, jax.random.key(0), datum, num_samples=4000)
    w = np.exp(np.asarray(log_w, np.float64) - float(exact[0]))
    assert abs(w.mean() - 1) < oracles.z_limit(1) * w.std() / np.sqrt(len(w))


def test_prior_sums_to_one_over_all_sequences(data, trained):
    _, model, params = trained
    assert abs(evaluation.prior_total(data, model, params) - 1) < 1e-5
    # Prefixes give what whole sequences give.
    codes = enumeration.all_codes(4, 3)
    _, image = enumeration.log_priors(model, params, data.tokens["test"][:1])
    y = jnp.asarray(data.tokens["test"][0])
    each = [picked(model.joint.prior(params.theta, y, jnp.asarray(z))[1], jnp.asarray(z))
            for z in codes[::7]]  # fmt: skip
    np.testing.assert_allclose(image[0, ::7], each, rtol=1e-4, atol=1e-5)


def test_prior_gap_is_the_divergence_of_the_mean_posterior(data, trained):
    _, model, params = trained
    images, tokens = as_images(data.problem.dataset.train[:30]), data.tokens["train"][:30]
    codes = enumeration.all_codes(4, 3)
    log_q = np.asarray(
        jax.nn.log_softmax(jax.vmap(model.dvae.encode, (None, 0))(params.phi, images)), np.float64
    )
    q = np.exp(np.stack([sum(row[n, c] for n, c in enumerate(codes.T)) for row in log_q]))
    total = 0.0
    for caption in np.unique(tokens, axis=0):
        own = np.all(tokens == caption, axis=-1)
        _, image = enumeration.log_priors(model, params, caption[None])
        mean = q[own].mean(axis=0)
        total += own.mean() * np.sum(mean * (np.log(mean) - np.asarray(image[0], np.float64)))
    found = enumeration.prior_gap(model, params, images, tokens)
    np.testing.assert_allclose(found, total, atol=1e-4)


def test_codebook_rows_at_both_extremes(data, trained):
    _, model, _ = trained
    tokens = np.arange(12).reshape(3, 4) % 3
    certain = np.log(np.eye(3)[tokens] * (1 - 3e-9) + 1e-9)
    parts = {"tokens": tokens, "log_probs": certain}
    rows = {r["name"]: r["value"] for r in evaluation.codebook(parts, {}, model)}
    np.testing.assert_allclose(rows["codes used"], 3)
    np.testing.assert_allclose(rows["perplexity"], 3, rtol=1e-5)
    np.testing.assert_allclose(rows["information, all places"], 4 * np.log(3), rtol=1e-5)
    np.testing.assert_allclose(rows["perplexity of a place"], 3, rtol=1e-5)
    nothing = np.full((3, 4, 3), -np.log(3))
    parts = {"tokens": tokens * 0, "log_probs": nothing}
    rows = {r["name"]: r["value"] for r in evaluation.codebook(parts, {}, model)}
    np.testing.assert_allclose(rows["codes used"], 1)
    np.testing.assert_allclose(rows["perplexity"], 3, rtol=1e-5)
    np.testing.assert_allclose(rows["information, all places"], 0, atol=1e-9)


def test_captions_are_found_by_bayes_rule(data, trained):
    _, model, params = trained
    config = tiny(evaluation_images=5)
    tokens = np.array([[0, 1, 2, 0], [2, 2, 2, 2], [1, 0, 0, 1], [0, 0, 1, 1], [1, 2, 1, 2]])
    right = evaluation.caption_is_right(data, model, params, tokens, config)
    for z, is_right, own in zip(tokens, right, data.captions.test, strict=False):
        scores = {}
        for word in captions.DIGITS:
            y = jnp.asarray(data.vocabulary.tokens(word))
            text, logits = model.joint.prior(params.theta, y, jnp.asarray(z))
            scores[word] = float(text + picked(logits, jnp.asarray(z)))
        assert is_right == (max(scores, key=scores.get) == own)


def test_rows_per_image_are_what_their_names_say(data, trained):
    own, model, params = trained
    parts = evaluation._terms_of(data, model, params, own)
    images, _ = evaluation._test(data, own)
    mean = jax.jit(lambda t, c: model.dvae.likelihood.mean(model.dvae.decode(t, c)))
    for i, x in enumerate(images):
        codes = jax.nn.one_hot(parts["tokens"][i], 3)
        error = (np.asarray(mean(params.theta["decoder"], codes)) - x.reshape(-1)) ** 2
        np.testing.assert_allclose(parts["squared_error"][i], error.mean(), rtol=1e-4)
    hard, relaxed = np.array([1.0, 2.0]), np.array([[2.0, 1.5], [4.0, 2.5]])
    config = tiny(evaluation_temperatures=(1.0, 0.5))
    rows = evaluation.relaxations({"hard": hard, "relaxed": relaxed}, {}, config)
    assert [(r["at"]["temperature"], r["value"]) for r in rows] == [(1.0, 1.5), (0.5, 0.5)]
    np.testing.assert_allclose(parts["hard"], bounds.joint_bound(parts["terms"]), rtol=1e-5)


@pytest.mark.slow
def test_densities_are_not_told_in_bits(data):
    config = tiny(likelihood="logit_laplace")
    own, model = made(data, config)
    params = jax.jit(model.init)(jax.random.key(0))
    rows = evaluation.rows(data, model, params, {}, own)
    assert not [r for r in rows if r["unit"] == "bits/dim" or r["name"] == "log p(x, y)"]
    assert any(r["name"] == "log density of x, y" for r in rows)


@pytest.fixture
def parsed():
    flags.FLAGS.mark_as_parsed()


def test_program_trains_scores_draws_and_goes_on(tmp_path, capsys, parsed, monkeypatch):
    config = tiny()
    config.models = {"beta1": {"beta": 1.0}}
    config.compare = ()
    started, drawn = [], []
    make, draw = training.make_prior_run, report.draw

    def record(data, model, own, params):
        run = make(data, model, own, params)
        if params is not None:
            started.append((params, run.init()))
        return run

    monkeypatch.setattr(training, "make_prior_run", record)
    monkeypatch.setattr(report, "draw", lambda *a: (drawn.append(a[2]), draw(*a)))
    dalle.main(config, str(tmp_path))
    # The second stage starts from the first and leaves its part bit for bit.
    ((first, start),), (params,) = started, drawn
    for before, after in (
        (first, start), (first.phi, params.phi), (first.theta["decoder"], params.theta["decoder"])
    ):  # fmt: skip
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, after)))
    priors = first.theta["prior"], params.theta["prior"]
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, *priors)))
    said = capsys.readouterr().out
    for name in ("log p(x, y)", "variational gap", "relaxation gap", "prior gap", "caption acc"):
        assert name in said
    for name in (
        "results.json",
        "figure.png",
        "beta1_seed0/samples.png",
    ):
        assert (tmp_path / name).exists()
    record = json.loads((tmp_path / "results.json").read_text())
    rows = [r for r in record["rows"] if r["at"].get("seed") == 0]
    by_name = {r["name"]: r for r in rows if r["unit"] == "nats"}
    assert by_name["|log p - bound - gap|, largest"]["value"] < 1e-4
    assert next(r["value"] for r in rows if r["name"] == "|sum of p(y, z) - 1|") < 1e-5
    parts = [by_name[n]["value"] for n in ("reconstruction", "D", "joint bound")]
    np.testing.assert_allclose(parts[0] - parts[1], parts[2], rtol=1e-5)
    assert {r["kind"] for r in rows if r["name"] == "log p(x, y)"} == {"exact"}
    assert {r["kind"] for r in rows if r["name"] == "relaxation gap"} == {"estimate"}
    before = (tmp_path / "results.json").read_bytes()
    dalle.main(config, str(tmp_path))
    assert (tmp_path / "results.json").read_bytes() == before
    assert os.path.exists(tmp_path / "beta1_seed0" / "dvae" / "metrics.jsonl")


def test_rows_by_importance_samples_where_codes_are_too_many(data, trained, monkeypatch):
    own, model, params = trained
    exact = evaluation.rows(data, model, params, {}, own)
    monkeypatch.setattr(enumeration, "LIMIT", 1)
    with own.unlocked():
        own = own.copy_and_resolve_references()
    own.evaluation_samples, own.samples_per_pass = 512, 64
    found = evaluation.rows(data, model, params, {}, own)
    value = {r["name"]: r["value"] for r in exact if r["unit"] == "nats"}["log p(x, y)"]
    iwae = next(r for r in found if r["name"] == "IWAE" and r["at"]["K"] == 512)
    assert abs(iwae["value"] - value) < 0.3
    bits = next(r for r in found if r["name"] == "joint bound" and r["unit"] == "bits/dim")
    nats = next(r for r in found if r["name"] == "joint bound" and r["unit"] == "nats")
    np.testing.assert_allclose(bits["value"], -nats["value"] / 64 / np.log(2), rtol=1e-6)
    assert {"reconstruction", "D", "KL(q || p(z | y))", "-log p(y)"} <= {r["name"] for r in found}


MISTAKES = {
    "beta": ({"beta": -1.0}, "config.beta must be a finite number of at least 0, got -1.0"),
    "temperature": ({"temperature_end": 0.0}, "config.temperature_end must be a finite number"),
    "negative temperature": ({"temperature_start": -1.0}, "temperature_start"),
    "grid": ({"grid": 3}, "config.grid=3 does not divide an image of 8x8"),
    "context": ({"text_length": 0}, "config.text_length must be a whole number of at least 1"),
    "objective": ({"objective": "gumbel"}, "config.objective must be one of relaxed"),
    "vimco": ({"objective": "vimco", "beta": 0.0}, "needs config.beta above 0"),
    "one sample": ({"objective": "vimco", "num_samples": 1}, "num_samples of at least 2"),
    "enumerated": (
        {"objective": "enumerated", "grid": 4, "num_codes": 16}, "would decode 16\\^16 sequences"
    ),
    "likelihood": ({"likelihood": "bernoulli"}, "is of 2 levels"),
    "tokens": ({"tokens": "best"}, "config.tokens must be one of sampled, argmax"),
    "weights": ({"text_weight": 0.0, "image_weight": 0.0}, "both 0"),
    "weight": ({"image_weight": -1.0}, "config.image_weight must be"),
    "heads": ({"prior_heads": 3}, "multiple of heads"),
    "codes": ({"num_codes": 1}, "config.num_codes must be a whole number of at least 2"),
    "width": ({"width": 6}, "multiple of 4"),
    "no captions": ({"dataset": "cifar10_first4000"}, "must have captions"),
    "infinite": ({"evaluation_temperatures": (1.0, float("inf"))}, "evaluation_temperatures"),
    "temperatures": ({"evaluation_temperatures": (1.0, 0.0)}, "evaluation_temperatures"),
    "word": ({"captions": ("eleven",)}, "has the unknown word 'eleven'"),
    "words": ({"captions": ("one two",)}, "more than the context of 1"),
    "steps": ({"prior_steps": 0}, "config.prior_steps must be a whole number of at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_before_anything_is_written(name, tmp_path, parsed, monkeypatch):
    changes, message = MISTAKES[name]
    config = tiny(**changes)
    config.models = {"own": {}}
    config.compare = ()
    if name == "no captions":
        own = problems.make_problem(tiny())
        monkeypatch.setattr(problems, "make_problem", lambda config: own)
    with pytest.raises(UserError, match=message):
        dalle.main(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_enlarged_images_repeat_their_pixels(data):
    large = build.enlarged(data.problem, 2)
    assert large.shape == (16, 16, 1)
    for split in ("train", "validation", "test"):
        small, big = (getattr(p.dataset, split) for p in (data.problem, large))
        for i in (0, 1):
            for j in (0, 1):
                np.testing.assert_array_equal(big[:, i::2, j::2], small)


@pytest.mark.parametrize("name", ["fashion_mnist", "emoji", "paper"])
def test_configs_of_larger_images_make_their_models(name):
    config = dalle_images.get_config(name)
    own, model = made(_made_up_data(config), config, "dvae")
    params = jax.eval_shape(model.init, jax.random.key(0))
    sizes = {"fashion_mnist": ((7, 7), 64), "emoji": ((8, 8), 256), "paper": ((32, 32), 8192)}
    assert (model.dvae.grid, model.num_codes) == sizes[name]
    training.make_dvae_loss(model, own)
    if name == "paper":
        assert sum(leaf.size for leaf in jax.tree.leaves(params.phi)) == 53_786_240


def _made_up_data(config):
    """Four images of the size of a config, with captions."""
    side = {"fashion_mnist": 28, "emoji": 64}[config.dataset]
    channels = () if side == 28 else (3,)
    images = np.random.default_rng(0).integers(0, 256, (4, side, side, *channels), np.uint8)
    problem = problems.Problem(
        Dataset("made up", images, images[:1], images[:1], 256), (side, side, *(channels or (1,)))
    )
    problem = build.enlarged(problem, config.enlarge)
    found = captions.Captions(("one", "two", "two", "one"), ("one",), ("two",))
    words = captions.vocabulary(found, config.text_length)
    tokens = {split: words.all_tokens(getattr(found, split)) for split in found._fields}
    return build.Data(problem, found, words, tokens)


@pytest.mark.slow
def test_model_of_the_papers_size_takes_a_step_of_each_stage():
    """256x256, 32x32 tokens of 8,192 codes: batches of one, in float32."""
    config = dalle_images.get_config("paper")
    config.batch_size, config.prior_layers, config.warmup_steps = 1, 2, 1
    data = _made_up_data(config)
    own, model = made(data, config, "dvae")
    state, fitted = None, []
    for make, settings in (
        (lambda c, _: training.make_dvae_run(data, model, c), own),
        (lambda c, p: training.make_prior_run(data, model, c, p), study.of_prior(own)),
    ):
        run = make(settings, state and state.params)
        state = fit.initial_state(run, settings)
        before = state.params
        state = trainer.train(
            run.loss_fn, state, run.stream, run.optimizer, run.key, num_steps=1,
            steps_per_chunk=1, ema_decay=settings.ema_decay,
        )  # fmt: skip
        moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, state.params)
        fitted.append(moved)
    assert all(jax.tree.leaves(fitted[0].theta["decoder"]))
    assert not any(jax.tree.leaves(fitted[1].phi))
    assert any(jax.tree.leaves(fitted[1].theta["prior"]))
