"""experiments.dequantize: trained, selected, scored; and the noise behind every number fresh."""

import json
import math
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

import bounds
from configs import dequantize_digits
from experiments.dequantization import build, evaluation, report, study
from experiments.runtime import data
from experiments.runtime.errors import UserError
from experiments.runtime.results import row
from models import noise


def tiny(variant="couplings", **changes):
    config = dequantize_digits.get_config(variant)
    for name in config.models:
        config.models[name].width = 8
    config.seeds, config.num_steps, config.refit_steps = (0, 1), 4, 4
    config.num_components = config.noise_components = 2
    config.noise_width, config.noise_couplings = 8, 2
    config.log_every, config.save_every = 2, 4
    config.validation_samples, config.evaluation_images, config.evaluation_samples = 1, 6, (1, 4)
    config.sample_grid = 4
    for name, value in changes.items():
        config[name] = value
    return config


def only(config, *names):
    for name in list(config.models):
        if name not in names:
            del config.models[name]
    config.compare = ()
    return config


@pytest.fixture(scope="module")
def problem():
    return build.make_problem(tiny())


# --- a study ------------------------------------------------------------------------------------


def test_seeds_trained_together_are_those_trained_alone(problem, tmp_path):
    """Clipped to a norm that acts: that of each seed, not of both."""
    config = only(tiny(clip_norm=0.05), "affine_uniform")
    together = study.run(problem, study.Point("affine_uniform", (0, 1)), config, f"{tmp_path}/2")
    alone = study.run(problem, study.Point("affine_uniform", (1,)), config, f"{tmp_path}/1")
    for a, b in zip(jax.tree.leaves(together[2][1]), jax.tree.leaves(alone[2][0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert together[0] != alone[0]


def test_rows_of_a_density_with_an_exact_answer(problem, tmp_path):
    """Two noises beside one exact value: the gaps are differences, and every bound is above it."""
    config = only(tiny("exact", seeds=(0,)), "variational")
    rows, model, params = study.run(
        problem, study.Point("variational", (0,)), config, str(tmp_path)
    )
    exact = [r for r in rows if r["kind"] == "exact" and r["unit"] == "bits/dim"]
    assert len(exact) == 1
    images = build.as_images(problem.dataset.test[:6])
    log_prob = model.density.log_prob
    assert log_prob is not None
    nats = jax.vmap(log_prob, (None, 0))(params[0].theta, images)
    by_hand = -np.mean(np.asarray(nats)) / (64 * math.log(2))
    np.testing.assert_allclose(exact[0]["value"], by_hand, rtol=1e-5)
    found = {(r["at"]["noise"], r["name"]): r["value"] for r in rows}
    assert {n for n, _ in found} == {"logistic", "uniform"}
    for where in ("logistic", "uniform"):
        for name in ("ELBO", "IW-4"):
            gap = found[where, name] - by_hand
            np.testing.assert_allclose(found[where, f"{name} gap"], gap, atol=1e-5)
            assert gap > 0


def test_refitted_noise_leaves_the_density_as_it_was(problem, tmp_path):
    config = only(tiny("exact", seeds=(0,)), "exact")
    point = study.Point("exact", (0,))
    each = [study.settings(config, "exact", 0)]
    model = build.make_model(problem, each[0])
    params, _ = study._train(problem, model, each, str(tmp_path), None)
    refit = study._refit(problem, model, each, params, str(tmp_path), None)
    assert refit is not None
    for a, b in zip(
        jax.tree.leaves(params[0].theta), jax.tree.leaves(refit[1][0].theta), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    fresh = (
        refit[0]
        .init(jax.random.key(9), jnp.asarray(build.as_images(problem.dataset.train[:8])))
        .phi
    )
    moved = [
        np.abs(a - b).max()
        for a, b in zip(jax.tree.leaves(fresh), jax.tree.leaves(refit[1][0].phi), strict=True)
    ]
    assert max(moved) > 0
    assert point.label == "exact_seed0"


def test_summary_is_over_seeds_and_pairs_them():
    def measured(model, seed, value):
        return row("ELBO", {"model": model, "seed": seed, "noise": "uniform", "k": 1},
                   kind="upper_bound", unit="bits/dim", value=value)  # fmt: skip

    rows = [measured("a", s, v) for s, v in enumerate((2.0, 2.2, 2.4))]
    rows += [measured("b", s, v) for s, v in enumerate((1.9, 2.1, 2.2))]
    config = types.SimpleNamespace(compare=(("a", "b"),))
    summary = study.summarise(rows, config)
    by_name = {(r["name"], r["at"]["model"]): r for r in summary}
    mean = by_name["ELBO", "a"]
    np.testing.assert_allclose([mean["value"], mean["standard_error"]], [2.2, 0.2 / 3**0.5])
    assert (mean["n"], mean["kind"]) == (3, "upper_bound")
    paired = by_name["ELBO difference", "a - b"]
    differences = np.array([0.1, 0.1, 0.2])
    np.testing.assert_allclose(paired["value"], differences.mean())
    np.testing.assert_allclose(paired["standard_error"], differences.std(ddof=1) / 3**0.5)


def test_program_trains_scores_draws_and_goes_on(tmp_path, capsys, monkeypatch):
    from experiments import dequantize

    flags.FLAGS.mark_as_parsed()
    config = only(tiny(), "affine_flow", "autoregressive")
    config.compare = (("affine_flow", "autoregressive"),)
    workdir = str(tmp_path)
    dequantize.main(config, workdir)
    said = capsys.readouterr().out
    assert "upper_bound" in said and "exact" in said and "1,197 training" in said  # noqa: PT018
    with open(os.path.join(workdir, "results.json")) as file:
        record = json.load(file)
    kinds = {(r["at"]["model"], r["name"]): r["kind"] for r in record["rows"] if "point" in r}
    assert kinds["affine_flow", "ELBO"] == "upper_bound"
    assert kinds["autoregressive", "exact"] == "exact"
    assert kinds["affine_flow", "round-trip error"] == "estimate"
    bounds_rows = [r for r in record["rows"] if r["name"] == "ELBO" and "point" in r]
    assert all(r["monte_carlo_error"] > 0 and r["standard_error"] > 0 for r in bounds_rows)
    for name in ("affine_flow_seed0_1", "autoregressive_seed0_1"):
        assert os.path.getsize(os.path.join(workdir, name, "samples.png")) > 0
    assert os.path.exists(os.path.join(workdir, "figure.svg"))

    def fail(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(study, "run", fail)
    dequantize.main(config, workdir)
    assert capsys.readouterr().out == said


def test_published_numbers_say_what_they_are_of(capsys, tmp_path, problem):
    config = only(tiny(), "affine_flow")
    config.dataset = "mnist"
    report.show(problem, [], config, str(tmp_path))
    said = capsys.readouterr().out
    assert "none of it was run here" in said
    assert "1.078" in said


# --- noise --------------------------------------------------------------------------------------


def constant_model(levels=4):
    """p(x + u) falls steeply within a cell, so that every draw of noise gives another weight."""

    def log_density(theta, x, u, dropout=None):
        return jnp.sum(-4.0 * u + jnp.log(4.0 / (1 - jnp.exp(-4.0)))) - x.size * jnp.log(levels)

    density = build.Density(
        lambda key, x: (), log_density, None, lambda theta, key: jnp.zeros((2, 2, 1)), None
    )
    return build.Model(density, noise.uniform_noise())


def spread(evaluate):
    """chi-square per degree of freedom of one image 60 times, by its own Monte Carlo errors."""
    values, errors = (np.asarray(v, np.float64)[:, 0] for v in evaluate(np.zeros((60, 2, 2, 1))))
    return float(np.mean(np.square(values - values.mean())) / np.mean(np.square(errors)))


def test_every_image_has_noise_of_its_own():
    model = constant_model()
    config = types.SimpleNamespace(
        evaluation_samples=(1, 16), samples_per_pass=16, images_per_pass=7
    )
    params = bounds.Params((), ())

    def ours(images):
        return evaluation.curve(model, params, images, jax.random.key(0), config)

    def reused(images):  # the same draws for every image of the pass
        one = evaluation.curve(model, params, images[:1], jax.random.key(0), config)
        return [np.repeat(v, len(images), axis=0) for v in one]

    # 60 draws: chi-square per degree of freedom is 1 +- .19; 5 standard errors.
    assert abs(spread(ours) - 1) < 0.95
    assert not abs(spread(reused) - 1) < 0.95
    once = ours(np.zeros((9, 2, 2, 1)))
    again = evaluation.curve(
        model, params, np.zeros((9, 2, 2, 1)), jax.random.key(0),
        types.SimpleNamespace(evaluation_samples=(1, 16), samples_per_pass=4, images_per_pass=2),
    )  # fmt: skip
    np.testing.assert_allclose(once.values, again.values, rtol=1e-5)


def test_curve_is_of_disjoint_groups():
    log_w = jnp.log(jnp.arange(1.0, 9.0))
    values, errors = evaluation.iwae_curve(log_w, (1, 4, 8))
    np.testing.assert_allclose(values[0], np.mean(np.log(np.arange(1, 9))), rtol=1e-6)
    groups = np.log([2.5, 6.5])
    np.testing.assert_allclose(values[1], groups.mean(), rtol=1e-6)
    np.testing.assert_allclose(errors[1], groups.std(ddof=1) / 2**0.5, rtol=1e-5)
    np.testing.assert_allclose(values[2], math.log(4.5), rtol=1e-6)
    w = np.arange(1, 9)
    np.testing.assert_allclose(errors[2], w.std(ddof=1) / (8**0.5 * 4.5), rtol=1e-5)


# --- bad input ----------------------------------------------------------------------------------


def made_up(images, levels=17):
    return data.Dataset("made up", images, images[:2], images[:2], levels)


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        (np.full((4, 8, 8), 17, np.uint8), "0 .. 16"),
        (np.full((4, 8, 8), -1, np.int32), "0 .. 16"),
        (np.full((4, 8, 8), 0.5), "integers"),
    ],
    ids=["above the levels", "below 0", "floats"],
)
def test_images_that_are_no_integers_of_the_levels_are_refused(images, wanted):
    with pytest.raises(UserError, match=wanted):
        build.check_images(made_up(images))


def test_images_of_several_sizes_are_refused():
    images = np.zeros((4, 8, 8), np.uint8)
    with pytest.raises(UserError, match="one size"):
        build.check_images(made_up(images)._replace(test=np.zeros((2, 8, 6), np.uint8)))


@pytest.mark.parametrize(
    ("shape", "wanted"), [((8, 7, 1), "checkerboard"), ((7, 8, 1), "space_to_depth")]
)
def test_odd_sizes_are_refused(shape, wanted):
    blank = np.zeros((4, *shape), np.uint8)
    problem = build.Problem(made_up(blank), shape)
    own = study.settings(tiny(), "mixture_uniform", 0)
    with pytest.raises(UserError, match=wanted):
        build.make_model(problem, own)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"noise": "gaussian"}, "config.noise"),
        ({"coupling": "spline"}, "config.coupling"),
        ({"density": "pixelcnn"}, "config.density"),
        ({"network": "mlp"}, "config.network"),
        ({"layout": ("checkers:2",)}, "squeeze"),
        ({"norm": "batch"}, "config.norm"),
        ({"width": 0}, "config.width"),
        ({"dropout": 1.0}, "config.dropout"),
        ({"objective": "exact"}, "no exact objective"),
        ({"objective": "eblo"}, "config.objective"),
        ({"num_steps": 0}, "config.num_steps"),
        ({"evaluation_samples": (4, 1)}, "evaluation_samples"),
        ({"evaluation_samples": (1, 4, 6)}, "evaluation_samples"),
        ({"warmup_steps": 4}, "warmup_steps"),
        ({"compare": (("mixture_uniform", "x"),)}, "config.compare"),
    ],
    ids=str,
)
def test_mistakes_are_found_before_anything_is_trained(problem, changes, wanted):
    config = only(tiny(), "mixture_uniform")
    for name, value in changes.items():
        config[name] = value
    if "width" in changes:
        config.models.mixture_uniform.width = 0
    with pytest.raises(UserError, match=wanted):
        study.check(problem, config, study.points(config))


def test_a_model_with_a_field_that_does_not_exist_is_refused(problem):
    config = only(tiny(), "mixture_uniform")
    config.models.mixture_uniform.widht = 3
    with pytest.raises(UserError, match="widht"):
        study.check(problem, config, study.points(config))


def test_integers_alone_cannot_be_dequantized(problem):
    config = only(tiny(), "autoregressive")
    config.models.autoregressive.objective = "elbo"
    with pytest.raises(UserError, match="its objective is exact"):
        study.check(problem, config, study.points(config))


def test_an_inverse_that_did_not_converge_is_said_and_not_drawn(problem):
    model = constant_model()
    lost = model.density._replace(
        simulate=lambda theta, key: jnp.full((2, 2, 1), jnp.nan),
        round_trip=lambda theta, y: jnp.where(y > 3, jnp.nan, y),
    )
    params = bounds.Params((), ())
    with pytest.raises(UserError, match="did not converge for 5 of 5"):
        evaluation.samples(problem, model._replace(density=lost), params, jax.random.key(0), 5)
    config = types.SimpleNamespace(evaluation_seed=0)
    with pytest.raises(UserError, match="did not converge"):
        evaluation.round_trip(problem, model._replace(density=lost), params, {}, config)
