"""experiments.dequantize: trained, selected, scored; and the noise behind every number fresh."""

import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dequantize_cases import constant_model, tiny

import bounds
from experiments.data import sets
from experiments.dequantize import build, evaluation, family, report, training
from experiments.runtime.results import row
from experiments.studies import curves
from experiments.studies.ensemble import train_members
from experiments.studies.images import Problem, as_images, make_problem
from experiments.studies.settings import Memory
from experiments.studies.study import Point, summarize

PASSES = Memory(images_per_pass=7, samples_per_pass=16)


@pytest.fixture(scope="module")
def problem():
    return make_problem("digits_shuffled", "")


# --- a study ------------------------------------------------------------------------------------


def trained(study, folder):
    """(rows, parameters) of the only model of a study."""
    (name,) = study.models
    return family.train_and_score(family.check(study), Point(name, study.seeds), str(folder))


@pytest.mark.slow
def test_seeds_trained_together_are_those_trained_alone(tmp_path):
    """Clipped to a norm that acts: that of each seed, not of both."""
    clipped = {"optimizer": {"clip_norm": 0.05}}
    _, together = trained(tiny("affine_uniform", **clipped), tmp_path / "2")
    _, alone = trained(tiny("affine_uniform", **clipped, seeds=(1,)), tmp_path / "1")
    for a, b in zip(jax.tree.leaves(together[1]), jax.tree.leaves(alone[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_best_step_on_validation_is_scored_and_not_the_last(tmp_path, monkeypatch):
    """A validation that falls at every save: the first save is the best."""
    validated = []

    def falling(params):
        validated.append(jax.tree.map(np.asarray, params))
        return -float(len(validated))

    monkeypatch.setattr(training, "validation", lambda *arguments: falling)
    study = tiny(
        "autoregressive", seeds=(0,), training={"ema_decay": 0.0}, records={"save_every": 2}
    )
    _, (scored,) = trained(study, tmp_path)
    first, last = validated
    jax.tree.map(np.testing.assert_array_equal, scored, first)
    assert any(map(np.any, jax.tree.leaves(jax.tree.map(np.not_equal, first, last))))


def test_validation_never_looks_at_test_images(problem):
    """Blank test images would change any number that depends on them."""
    own = tiny().of_model("autoregressive")
    blank = problem.dataset._replace(test=np.zeros_like(problem.dataset.test))
    model = build.make_model(problem, own)
    params = jax.jit(model.init)(jax.random.key(0), as_images(problem.dataset.train[:8]))
    ours, others = (
        training.validation(p, model, own, 0) for p in (problem, problem._replace(dataset=blank))
    )
    assert ours is not None
    assert others is not None
    assert ours(params) == others(params)
    gone = problem.dataset._replace(validation=np.zeros_like(problem.dataset.validation))
    changed = training.validation(problem._replace(dataset=gone), model, own, 0)
    assert changed is not None
    assert ours(params) != changed(params)


def test_dropout_is_off_in_evaluation(problem):
    values, params = [], None
    for dropout in (0.0, 0.9):
        own = tiny(model={"dropout": dropout}).of_model("affine_flow")
        model = build.make_model(problem, own)
        if params is None:
            start = jax.jit(model.init)(jax.random.key(0), as_images(problem.dataset.train[:8]))
            params = jax.tree.map(lambda v: v + 0.05, start)
        measured = evaluation.curve(
            model, params, problem.dataset.test[:3], jax.random.key(1), (1,), PASSES
        )
        values.append(measured.values)
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


def test_a_flow_is_a_density_of_noisy_integers():
    """One cell of an image of four pixels, integrated by many draws: 0 .. levels is the whole."""
    images = np.random.default_rng(0).integers(0, 2, (140, 2, 2), np.uint8)
    small = Problem(sets.Dataset("small", images, images[:0], images[:9], 2), (2, 2, 1))
    model = build.make_model(small, tiny().of_model("mixture_uniform"))
    params = jax.jit(model.init)(jax.random.key(0), jnp.asarray(as_images(images[:128])))
    cells = jnp.asarray(np.indices((2, 2, 2, 2)).reshape(4, 16).T.reshape(16, 2, 2, 1), float)

    @jax.jit
    def log_prob(x):
        return bounds.log_likelihood(
            model.latent(), params, jax.random.key(1), x, num_samples=4000, chunk_size=1000
        )

    values, diagnostics = jax.lax.map(log_prob, cells)
    mass = np.exp(np.asarray(values, np.float64))
    error = np.sqrt(np.sum(np.square(mass * diagnostics.standard_error)))
    # The logit's margin of .05 at either end leaves some mass outside the cells.
    assert 0.5 < mass.sum() < 1 + 5 * error
    y = 2 * jax.random.uniform(jax.random.key(2), (20_000, 2, 2, 1))
    log_density = model.density.log_density
    assert log_density is not None
    each = jax.lax.map(
        lambda y: log_density(params.theta, jnp.floor(y), y - jnp.floor(y)), y, batch_size=2000
    )
    density = 16 * np.exp(np.asarray(each, np.float64))
    spread = density.std(ddof=1) / np.sqrt(len(density))
    assert abs(density.mean() - mass.sum()) < 5 * np.hypot(spread, error)


def test_bits_count_every_channel():
    blank = np.zeros((1, 4, 4, 3), np.uint8)
    colored = Problem(sets.Dataset("x", blank, blank, blank, 256), (4, 4, 3))
    np.testing.assert_allclose(colored.bits(-48 * math.log(256)), 8)


@pytest.fixture(scope="module")
def variational(tmp_path_factory):
    """(rows, parameters, densities from which the density and then its noise started)."""
    starts = []

    def watched(runs, *arguments, **named):
        start = runs[0].init()
        starts.append(start.theta)
        return train_members([runs[0]._replace(init=lambda: start)], *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family, "train_members", watched)
        study = tiny("variational", variant="exact", seeds=(0,))
        rows, (params,) = trained(study, tmp_path_factory.mktemp("variational"))
    return rows, params, starts


def test_rows_of_a_density_with_an_exact_answer(problem, variational):
    """Two noises beside one exact value: the gaps are differences, and every bound is above it."""
    rows, params, _ = variational
    model = build.make_model(problem, tiny(variant="exact").of_model("variational"))
    exact = [r for r in rows if r["kind"] == "exact" and r["unit"] == "bits/dim"]
    assert len(exact) == 1
    log_prob = model.density.log_prob
    assert log_prob is not None
    of_each = jax.jit(jax.vmap(log_prob, (None, 0)))
    nats = of_each(params.theta, as_images(problem.dataset.test[:6]))
    by_hand = -np.mean(np.asarray(nats)) / (64 * math.log(2))
    np.testing.assert_allclose(exact[0]["value"], by_hand, rtol=1e-5)
    found = {(r["at"]["noise"], r["name"]): r for r in rows}
    assert {n for n, _ in found} == {"logistic", "uniform"}
    for where in ("logistic", "uniform"):
        for name in ("ELBO", "IW-4"):
            gap = found[where, name]["value"] - by_hand
            row = found[where, f"{name} gap"]
            np.testing.assert_allclose(row["value"], gap, atol=1e-5)
            assert row["gap_of"] == name
            assert gap > 0


def test_noise_is_refitted_to_the_density_that_was_trained(variational):
    _, params, (before, refit) = variational
    for a, b, c in zip(*map(jax.tree.leaves, (refit, params.theta, before)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.any(a != c) or not np.any(a)


def test_refitted_noise_leaves_the_density_as_it_was(problem):
    """It is that density, without dropout, that the noise is fitted to."""
    # Uniform noise: nothing is drawn but u.
    changes = {
        "model": {"dropout": 0.5}, "noise": {"name": "uniform"}, "objective": {"name": "elbo"},
        "training": {"ema_decay": 0.0},
    }  # fmt: skip
    own = tiny(variant="exact", models={"exact": changes}).of_model("exact")
    model = build.make_model(problem, own)
    images = jnp.asarray(as_images(problem.dataset.train[:8]))
    theta = jax.jit(model.init)(jax.random.key(3), images).theta
    run = training.make_run(problem, model, own, 0, theta=theta)
    start = run.init()
    for a, b in zip(jax.tree.leaves(start.theta), jax.tree.leaves(theta), strict=True):
        np.testing.assert_array_equal(a, b)
    batch = {"x": images, "index": jnp.arange(8)}
    key = jax.random.key(4)
    of_params = jax.jit(jax.value_and_grad(lambda p, k: run.loss_fn(p, (), batch, k, 0)[0]))
    loss, grads = of_params(start, key)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.clone(key), jnp.arange(8))

    @jax.jit
    @jax.vmap
    def by_hand(key, x):
        _, key = jax.random.split(key)
        return bounds.pathwise(model.latent(), num_samples=1, bound=bounds.elbo)(start, key, x)

    np.testing.assert_allclose(loss, -jnp.mean(by_hand(keys, images)), rtol=1e-5)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads.theta))


def test_summary_is_over_seeds_and_pairs_them_with_the_fitted_noise():
    def measured(model, seed, value, noise="flow"):
        return row(
            "ELBO",
            {"model": model, "seed": seed, "noise": noise, "k": 1},
            kind="upper_bound",
            unit="bits/dim",
            value=value,
        )

    rows = []
    for seed, value in enumerate((2.0, 2.2, 2.4)):
        rows += [measured("a", seed, value), measured("a", seed, 3.0, "uniform")]
    rows += [measured("b", s, v) for s, v in enumerate((1.9, 2.1, 2.2))]
    summary = summarize(rows, (("a", "b"),))
    by_name = {
        (r["name"], r["at"]["model"]): r for r in summary if r["at"].get("noise") != "uniform"
    }
    mean = by_name["ELBO", "a"]
    np.testing.assert_allclose([mean["value"], mean["standard_error"]], [2.2, 0.2 / 3**0.5])
    assert (mean["n"], mean["kind"]) == (3, "upper_bound")
    paired = by_name["ELBO difference", "a - b"]
    differences = np.array([0.1, 0.1, 0.2])
    np.testing.assert_allclose(paired["value"], differences.mean())
    np.testing.assert_allclose(paired["standard_error"], differences.std(ddof=1) / 3**0.5)


def test_program_trains_scores_draws_and_goes_on(tmp_path, capsys, monkeypatch):
    from experiments.dequantize import __main__ as dequantize

    names = ("affine_flow", "autoregressive")
    study, workdir = tiny(*names, compare=(names,)), str(tmp_path)
    dequantize.main(study, workdir)
    said = capsys.readouterr().out
    assert "upper_bound" in said and "exact" in said and "1,197 training" in said  # noqa: PT018
    with open(os.path.join(workdir, "results.json")) as file:
        record = json.load(file)
    kinds = {(r["at"]["model"], r["name"]): r["kind"] for r in record["rows"] if "point" in r}
    assert kinds["affine_flow", "ELBO"] == "upper_bound"
    assert kinds["autoregressive", "exact"] == "exact"
    assert kinds["affine_flow", "round-trip error"] == "estimate"
    bounds_rows = [r for r in record["rows"] if r["name"] == "ELBO" and "point" in r]
    assert all(r["standard_error"] > r["monte_carlo_error"] > 0 for r in bounds_rows)
    for name in ("affine_flow_seed0_1", "autoregressive_seed0_1"):
        assert os.path.getsize(os.path.join(workdir, name, "samples.png")) > 0
    assert os.path.exists(os.path.join(workdir, "figure.svg"))

    def fail(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(family, "PARTS", family.PARTS._replace(run=fail))
    dequantize.main(study, workdir)
    assert capsys.readouterr().out == said


def test_published_numbers_say_what_they_are_of(capsys, tmp_path, problem):
    report.show(problem, [], tiny("affine_flow", data={"name": "mnist"}), str(tmp_path))
    said = capsys.readouterr().out
    assert "none of it was run here" in said
    assert "1.078" in said


def test_errors_of_the_noise_average_over_images_in_bits():
    model = constant_model()
    study = tiny(evaluation={"num_images": 0}, memory={"images_per_pass": 5, "samples_per_pass": 4})
    images = np.zeros((7, 2, 2), np.uint8)
    small = Problem(sets.Dataset("small", images, images, images, 4), (2, 2, 1))
    params = bounds.Params((), ())
    found = evaluation.rows(small, model, params, {}, study, None)
    nats = evaluation.curve(model, params, images, jax.random.key(0), (1, 4), study.memory)
    scale = 4 * math.log(2)
    for i, r in enumerate(found):
        np.testing.assert_allclose(r["value"], -nats.values[:, i].mean() / scale, rtol=1e-5)
        error = np.sqrt(np.sum(np.square(nats.monte_carlo_error[:, i]))) / 7 / scale
        np.testing.assert_allclose(r["monte_carlo_error"], error, rtol=1e-5)
        assert r["kind"] == "upper_bound"


# --- noise --------------------------------------------------------------------------------------


def spread(evaluate):
    """chi-square per degree of freedom of one image 60 times, by its own Monte Carlo errors."""
    values, errors = (np.asarray(v, np.float64)[:, 0] for v in evaluate(np.zeros((60, 2, 2, 1))))
    return float(np.mean(np.square(values - values.mean())) / np.mean(np.square(errors)))


def test_every_image_has_noise_of_its_own():
    model = constant_model()
    params = bounds.Params((), ())

    def ours(images, memory=PASSES):
        return evaluation.curve(model, params, images, jax.random.key(0), (1, 16), memory)

    def reused(images):  # the same draws for every image of the pass
        one = ours(images[:1])
        return [np.repeat(v, len(images), axis=0) for v in one]

    # 60 draws: chi-square per degree of freedom is 1 +- .19; 5 standard errors.
    assert abs(spread(ours) - 1) < 0.95
    assert not abs(spread(reused) - 1) < 0.95
    once = ours(np.zeros((9, 2, 2, 1)))
    again = ours(np.zeros((9, 2, 2, 1)), Memory(images_per_pass=2, samples_per_pass=4))
    np.testing.assert_allclose(once.values, again.values, rtol=1e-5)


def test_curve_is_of_disjoint_groups():
    log_w = jnp.log(jnp.arange(1.0, 9.0))
    curve = jax.jit(curves.bound_curve, static_argnames=("counts", "alpha"))
    values, errors = curve(log_w, counts=(1, 4, 8))
    np.testing.assert_allclose(values[0], np.mean(np.log(np.arange(1, 9))), rtol=1e-6)
    groups = np.log([2.5, 6.5])
    np.testing.assert_allclose(values[1], groups.mean(), rtol=1e-6)
    np.testing.assert_allclose(errors[1], groups.std(ddof=1) / 2**0.5, rtol=1e-5)
    np.testing.assert_allclose(values[2], math.log(4.5), rtol=1e-6)
    w = np.arange(1, 9)
    np.testing.assert_allclose(errors[2], w.std(ddof=1) / (8**0.5 * 4.5), rtol=1e-5)
    values, errors = curve(log_w, counts=(8,), alpha=0.5)  # 2 log of the mean root
    roots = np.sqrt(w)
    np.testing.assert_allclose(values[0], 2 * math.log(roots.mean()), rtol=1e-6)
    np.testing.assert_allclose(errors[0], 2 * roots.std(ddof=1) / 8**0.5 / roots.mean(), rtol=1e-5)
