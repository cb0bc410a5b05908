"""experiments.dalle: exact rows, captions and pictures."""

import functools
import json
import os

import dalle_cases
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from dalle_cases import by_hand, tiny

import bounds
from experiments.dalle import __main__ as dalle
from experiments.dalle import build, enumeration, evaluation, marginal, training
from experiments.data import captions
from experiments.studies.images import as_images
from models.token_prior import picked


@pytest.fixture(scope="module")
def data():
    return dalle_cases.data()


@pytest.fixture(scope="module")
def trained():
    return dalle_cases.trained()


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


def test_enumeration_is_that_of_the_library_and_its_gap_the_posteriors(data, trained):
    model, params = trained
    images, tokens = evaluation._test(data, tiny().evaluation)
    found = enumeration.enumerated(model, params, images, tokens)
    library = jax.jit(bounds.joint.enumerated(model.joint, num_codes=3))
    for i in range(len(images)):
        bound = library(params, None, (jnp.asarray(images[i]), jnp.asarray(tokens[i])))
        np.testing.assert_allclose(found.values.bound[i], bound, rtol=1e-5)
    rest = found.values.log_p - found.values.bound - found.gap
    np.testing.assert_allclose(rest, 0.0, atol=1e-4)
    assert np.all(found.gap > 0)
    for i in range(2):  # by NumPy, code by code
        log_joint, log_q = by_hand(model, params, images[i], tokens[i])
        log_p = np.logaddexp.reduce(log_joint)
        np.testing.assert_allclose(found.values.log_p[i], log_p, atol=1e-4)
        kl = np.sum(np.exp(log_q) * (log_q - log_joint + log_p))
        np.testing.assert_allclose(found.gap[i], kl, atol=1e-4)


def log_weights(latent, params, datum):
    draw = functools.partial(bounds.log_weights, latent, num_samples=4000)
    return jax.jit(draw)(params, jax.random.key(0), datum)


def test_log_likelihood_agrees_with_importance_sampling(data, trained):
    model, params = trained
    images, tokens = evaluation._test(data, tiny().evaluation)
    exact = enumeration.enumerated(model, params, images, tokens).values.log_p
    latent = bounds.joint.latent(model.joint)
    datum = jnp.asarray(images[0]), jnp.asarray(tokens[0])
    log_w = log_weights(latent, params, datum)
    w = np.exp(np.asarray(log_w, np.float64) - float(exact[0]))
    assert abs(w.mean() - 1) < oracles.z_limit(1) * w.std() / np.sqrt(len(w))


def test_prior_sums_to_one_over_all_sequences(data, trained):
    model, params = trained
    assert abs(evaluation.prior_total(data, model, params) - 1) < 1e-5
    # Prefixes give what whole sequences give.
    codes = enumeration.all_codes(4, 3)
    _, image = enumeration.log_priors(model, params, data.tokens["test"][:1])
    y = jnp.asarray(data.tokens["test"][0])
    one = jax.jit(jax.vmap(lambda z: picked(model.joint.prior(params.theta, y, z)[1], z)))
    each = one(codes[::7])
    np.testing.assert_allclose(image[0, ::7], each, rtol=1e-4, atol=1e-5)


def test_prior_gap_is_the_divergence_of_the_mean_posterior(data, trained):
    model, params = trained
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
    model, _ = trained
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
    model, params = trained
    tokens = np.array([[0, 1, 2, 0], [2, 2, 2, 2], [1, 0, 0, 1], [0, 0, 1, 1], [1, 2, 1, 2]])
    right = evaluation.caption_is_right(data, model, params, tokens, data.tokens["test"][:5])

    @jax.jit
    def score(y, z):
        text, logits = model.joint.prior(params.theta, y, z)
        return text + picked(logits, z)

    for z, is_right, own in zip(tokens, right, data.captions.test[:5], strict=True):
        scores = {}
        for word in captions.DIGITS:
            y = jnp.asarray(data.vocabulary.tokens(word))
            scores[word] = float(score(y, jnp.asarray(z)))
        assert is_right == (max(scores, key=scores.get) == own)


def test_rows_per_image_are_what_their_names_say(data, trained):
    model, params = trained
    asked = tiny()
    parts = evaluation._terms_of(data, model, params, asked.evaluation, asked.memory)
    images, _ = evaluation._test(data, asked.evaluation)
    mean = jax.jit(lambda t, c: model.dvae.likelihood.mean(model.dvae.decode(t, c)))
    for i, x in enumerate(images):
        codes = jax.nn.one_hot(parts["tokens"][i], 3)
        error = (np.asarray(mean(params.theta["decoder"], codes)) - x.reshape(-1)) ** 2
        np.testing.assert_allclose(parts["squared_error"][i], error.mean(), rtol=1e-4)
    hard, relaxed = np.array([1.0, 2.0]), np.array([[2.0, 1.5], [4.0, 2.5]])
    rows = evaluation.relaxations({"hard": hard, "relaxed": relaxed}, {}, (1.0, 0.5))
    assert [(r["at"]["temperature"], r["value"]) for r in rows] == [(1.0, 1.5), (0.5, 0.5)]
    np.testing.assert_allclose(parts["hard"], bounds.joint.bound(parts["terms"]), rtol=1e-5)


def test_captions_are_found_with_their_own_probability_too(data, trained):
    """A word that is far more probable than the rest is found everywhere."""
    model, params = trained
    theta = jax.tree.map(lambda leaf: leaf, params.theta)
    word = data.vocabulary.words.index("seven")
    bias = theta["prior"]["params"]["to_words"]["bias"]
    theta["prior"]["params"]["to_words"]["bias"] = bias.at[word].add(30.0)
    tokens = np.zeros((300, 4), np.int32)
    moved = params._replace(theta=theta)
    right = evaluation.caption_is_right(data, model, moved, tokens, data.tokens["test"])
    np.testing.assert_array_equal(right, np.array(data.captions.test) == "seven")


@pytest.mark.slow
def test_densities_are_not_told_in_bits(data):
    asked = tiny(model={"likelihood": "logit_laplace"})
    model = build.make_model(data, asked)
    params = jax.jit(model.init)(jax.random.key(0))
    rows = evaluation.rows(data, model, params, {}, asked)
    assert not [r for r in rows if r["unit"] == "bits/dim" or r["name"] == "log p(x, y)"]
    assert any(r["name"] == "log density of x, y" for r in rows)


def test_program_trains_scores_draws_and_goes_on(data, trained, tmp_path, capsys, monkeypatch):
    asked = tiny(models={"beta1": {"objective": {"beta": 1.0}}})
    # The same as it would make, of which other tests here have compiled the sums.
    monkeypatch.setattr(build, "make_data", lambda wanted, data_dir: data)
    monkeypatch.setattr(build, "make_model", lambda data, own: trained[0])
    started, drawn = [], []
    make, sample = training.make_prior_run, evaluation.sampled

    def record(data, model, own, seed, params):
        run = make(data, model, own, seed, params)
        if params is not None:
            started.append((params, run.init()))
        return run

    monkeypatch.setattr(training, "make_prior_run", record)
    monkeypatch.setattr(evaluation, "sampled", lambda *a: drawn.append(a[2]) or sample(*a))
    dalle.main(asked, str(tmp_path))
    # The second stage starts from the first and leaves its part bit for bit.
    ((first, start),), (params,) = started, drawn
    for before, after in (
        (first, start),
        (first.phi, params.phi),
        (first.theta["decoder"], params.theta["decoder"]),
    ):
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, after)))
    priors = first.theta["prior"], params.theta["prior"]
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, *priors)))
    said = capsys.readouterr().out
    for name in ("log p(x, y)", "variational gap", "relaxation gap", "prior gap", "caption acc"):
        assert name in said
    for name in ("results.json", "figure.png", "beta1_seed0/samples.png"):
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
    dalle.main(asked, str(tmp_path))
    assert (tmp_path / "results.json").read_bytes() == before
    assert os.path.exists(tmp_path / "beta1_seed0" / "dvae" / "metrics.jsonl")


def test_rows_by_importance_samples_where_codes_are_too_many(data, trained, monkeypatch):
    model, params = trained
    asked = tiny(evaluation={"num_samples": 512}, memory={"samples_per_pass": 64})
    exact = evaluation.rows(data, model, params, {}, asked)
    monkeypatch.setattr(enumeration, "LIMIT", 1)
    found = evaluation.rows(data, model, params, {}, asked)
    value = {r["name"]: r["value"] for r in exact if r["unit"] == "nats"}["log p(x, y)"]
    iwae = next(r for r in found if r["name"] == "IWAE" and r["at"]["K"] == 512)
    assert abs(iwae["value"] - value) < 0.3
    bits = next(r for r in found if r["name"] == "joint bound" and r["unit"] == "bits/dim")
    nats = next(r for r in found if r["name"] == "joint bound" and r["unit"] == "nats")
    np.testing.assert_allclose(bits["value"], -nats["value"] / 64 / np.log(2), rtol=1e-6)
    assert {"reconstruction", "D", "KL(q || p(z | y))", "-log p(y)"} <= {r["name"] for r in found}


def test_log_p_of_images_alone_sums_captions_out(data, trained, monkeypatch):
    model, params = trained
    asked = tiny()
    wanted, memory = asked.evaluation, asked.memory
    images = evaluation._test(data, tiny().evaluation)[0][:3]
    found = {
        (r["name"], r["unit"]): r
        for r in marginal.rows(data, model, params, images, {"model": "beta1"}, wanted, memory)
    }
    sequences = marginal.all_sequences(data)
    text, image = enumeration.log_priors(model, params, sequences)
    log_prior = np.asarray(text[:, None] + image, np.float64)  # of every caption and code
    log_p, bound = [], []
    for x in images:
        joint, log_q = by_hand(model, params, x, sequences[3])
        of_code = joint - log_prior[3] + np.logaddexp.reduce(log_prior, axis=0)
        log_p.append(np.logaddexp.reduce(of_code))
        bound.append(np.sum(np.exp(log_q) * (of_code - log_q)))
    exact, lower = found["log p(x)", "nats"], found["bound on log p(x)", "nats"]
    np.testing.assert_allclose(exact["value"], np.mean(log_p), atol=1e-4)
    np.testing.assert_allclose(lower["value"], np.mean(bound), atol=1e-4)
    assert (exact["kind"], lower["kind"]) == ("exact", "lower_bound")
    assert lower["value"] < exact["value"]
    assert found["log p(x)", "bits/dim"]["value"] < found["bound on log p(x)", "bits/dim"]["value"]
    # Draws in place of sums, of the same images: equal within what they vary.
    latent = marginal.latent_model(model, jnp.asarray(sequences))
    values = np.asarray(log_weights(latent, params, (jnp.asarray(images[0]), ())), np.float64)
    error = oracles.z_limit(1) * values.std() / np.sqrt(4000)
    assert abs(values.mean() - bound[0]) < error
    # Of some captions the sum is less than p(z): a bound still, and nothing exact.
    monkeypatch.setattr(marginal, "SEQUENCES", 10)
    part = marginal.rows(data, model, params, images, {"model": "beta1"}, wanted, memory)
    assert {(r["name"], r["kind"]) for r in part if r["unit"] == "nats"} == {
        ("bound on log p(x)", "lower_bound")
    }
    assert part[0]["value"] < lower["value"]
    sampled = marginal._sampled(model, params, images, sequences, wanted, memory)
    assert sampled.shape == (len(images),)
    assert np.all(np.isfinite(sampled))
