"""experiments.snr: pooled measurements, settings, points of the toy, a VAE on data."""

import json
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bounds
from configs import snr_gaussian, snr_phase, snr_vae
from experiments.data import sets
from experiments.runtime import results
from experiments.runtime.errors import UserError
from experiments.runtime.mesh import device_mesh
from experiments.runtime.settings import merged
from experiments.snr import gaussian, measure, phase, settings, vae
from experiments.snr.blocks import block_moments
from experiments.snr.problem import ESTIMATORS
from models.exact import linear_gaussian
from models.exact.linear_gaussian_finite import finite

MODEL = linear_gaussian.make_model()
PARAMS = bounds.Params(
    jnp.array([0.3, -0.2]),
    linear_gaussian.Inference(0.5 * jnp.eye(2), jnp.array([0.4, 0.2])),
)
X = jnp.array([1.5, -0.5])


# --- measurements -----------------------------------------------------------------------------


def measured(num_replicates=400, num_blocks=8, chunk_size=17, seed=0, factory=bounds.pathwise):
    return measure.measure(
        factory(MODEL, num_samples=4),
        PARAMS,
        jax.random.key(seed),
        X,
        num_replicates=num_replicates,
        num_blocks=num_blocks,
        chunk_size=chunk_size,
    )


def test_measurement_is_that_of_all_replicates_and_of_all_but_each_block():
    got = measured()
    objective = bounds.pathwise(MODEL, num_samples=4)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(400))
    of_each = jax.jit(jax.vmap(lambda k: jax.grad(objective)(PARAMS, k, X).theta))
    theta = np.asarray(of_each(keys), np.float64)
    np.testing.assert_allclose(got.mean["theta"][0], theta.mean(0), rtol=1e-4)
    np.testing.assert_allclose(got.variance["theta"][0], theta.var(0, ddof=1), rtol=1e-4)
    without = np.delete(theta, slice(100, 150), axis=0)  # the third of eight blocks
    assert got.count[3] == 350
    np.testing.assert_allclose(got.mean["theta"][3], without.mean(0), rtol=1e-4)
    np.testing.assert_allclose(got.variance["theta"][3], without.var(0, ddof=1), rtol=1e-4)


def test_pooled_snr_and_its_standard_error():
    """Against the spread of 60 independent measurements of 8 blocks; entries share samples."""
    objective = bounds.pathwise(MODEL, num_samples=4)
    blocks = jax.jit(
        lambda: block_moments(
            lambda p, k: {"theta": jax.grad(objective)(p, k, X).theta},
            PARAMS,
            jax.random.key(0),
            num_replicates=480 * 50,
            num_blocks=480,
            chunk_size=50,
            mesh=device_mesh(),
        )
    )()
    parts = [jax.tree.map(lambda v, i=i: v[8 * i : 8 * i + 8], blocks) for i in range(60)]
    values = [
        measure.snr_squared(measure.from_blocks(p.count, p.mean, p.m2), "theta") for p in parts
    ]
    estimates = np.array([v.value for v in values])
    errors = np.array([v.standard_error for v in values])
    # The sd of 60 values is known to 9%, the mean jackknife error to about 3%.
    assert 0.65 < errors.mean() / estimates.std(ddof=1) < 1.5
    value = measure.root(values[0])
    assert value.low < value.value < value.high
    negative = measure.root(measure.Value(-0.1, 0.2, -0.5, 0.3))
    assert negative.value == 0
    assert negative.low == 0
    np.testing.assert_allclose(negative.high, np.sqrt(0.3))


def test_low_noise_numerator_estimates_the_same_ratio():
    plain, better = measured(20_000, 20, 500), measured(20_000, 20, 500, 1, bounds.dreg)
    a, b = measure.snr_squared(plain, "phi"), measure.snr_squared_of(better, plain, "phi")
    assert abs(a.value - b.value) < 4.5 * np.hypot(a.standard_error, b.standard_error)
    assert b.standard_error < 0.5 * a.standard_error


def by_hand(values, num_blocks=4):
    """A Measurement of one group from replicates [R, P], and the values themselves."""
    blocks = values.reshape(num_blocks, -1, values.shape[1])
    mean = blocks.mean(1)
    m2 = ((blocks - mean[:, None]) ** 2).sum(1)
    return measure.from_blocks(np.full(num_blocks, blocks.shape[1]), {"g": mean}, {"g": m2})


def pooled_by_hand(numerator, noise):
    """Mean over entries that vary of (mean^2 - s^2/R) / noise variance."""
    count = len(numerator)
    signal = numerator.mean(0) ** 2 - numerator.var(0, ddof=1) / count
    spread = noise.var(0, ddof=1)
    return np.mean(signal[spread > 0] / spread[spread > 0])


def test_pooled_statistics_by_hand():
    """Twelve replicates, so that bias and jackknife factors matter; one entry never varies."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1.0, (2, 12, 3))
    a[:, 2] = b[:, 2] = 0.0
    own, other = by_hand(a), by_hand(b)
    np.testing.assert_allclose(measure.snr_squared(own, "g").value, pooled_by_hand(a, a))
    np.testing.assert_allclose(measure.snr_squared_of(own, other, "g").value, pooled_by_hand(a, b))
    ratio = pooled_by_hand(a, a) / pooled_by_hand(b, b)
    np.testing.assert_allclose(measure.snr_squared_ratio(own, "g", other, "g").value, ratio)
    np.testing.assert_allclose(measure.variance(own, "g").value, a.var(0, ddof=1).mean())
    squared = (a.mean(0) ** 2 - a.var(0, ddof=1) / 12).mean()
    np.testing.assert_allclose(measure.mean_squared(own, "g").value, squared)

    left_out = [np.delete(a, slice(3 * i, 3 * i + 3), axis=0) for i in range(4)]
    values = np.array([pooled_by_hand(v, v) for v in left_out])
    error = np.sqrt(3 / 4 * np.sum((values - values.mean()) ** 2))
    got = measure.snr_squared(own, "g")
    np.testing.assert_allclose(got.standard_error, error)
    half = 3.182446 * error  # the 97.5% quantile of t with 3 degrees of freedom
    np.testing.assert_allclose([got.low, got.high], [got.value - half, got.value + half], rtol=1e-5)
    np.testing.assert_allclose(
        measure.root(measure.Value(4.0, 0.4, 3.2, 4.8)), [2, 0.1, 3.2**0.5, 4.8**0.5]
    )


def test_projection_on_an_expected_gradient():
    means = np.vstack([np.array([2.0, 4.0])] * 5)
    got = measure.projection(means, np.array([1.0, 2.0]))
    np.testing.assert_allclose(got.value, 2.0)
    assert got.standard_error == 0


def test_slope_is_that_of_the_root():
    rows = [
        {"at": {"K": k}, "squared": 9.0 / k, "squared_standard_error": 0.01 / k}
        for k in (1, 10, 100)
    ]
    slope, low, high = measure.slope_of_rows(rows, "K")
    np.testing.assert_allclose(slope, -0.5, atol=1e-6)
    assert low < -0.5 < high


# --- settings ---------------------------------------------------------------------------------


def parsed(config, **changes):
    return settings.parse(merged(config.to_dict(), changes))


def test_a_config_may_name_every_estimator():
    assert get_args(settings.EstimatorName) == tuple(ESTIMATORS)


@pytest.mark.parametrize(("number", "num_blocks"), [(10, 3), (4, 4), (0, 2), (100, 1)])
def test_counts_of_replicates_that_cannot_work(number, num_blocks):
    with pytest.raises(UserError, match=r"--config\.replicates.*(number|num_blocks) must .*got \d"):
        parsed(snr_phase.get_config(), replicates={"number": number, "num_blocks": num_blocks})


@pytest.mark.parametrize(
    ("config", "changes", "wanted"),
    [
        (snr_gaussian, {"problem": "gauss"}, "problem must be one of gaussian, vae, phase, got"),
        (snr_gaussian, {"problem": {"a": 1}}, "problem must be one of .* got {'a': 1}"),
        (snr_phase, {"alphas": (0.5, 1.5)}, r"alphas.* must be .*1, got 1\.5"),
        (snr_phase, {"alphas": ()}, "alphas must be filled"),
        (snr_phase, {"num_dims": (10_001,)}, "num_dims.* must be .*10000, got 10001"),
        (snr_phase, {"toy": {"datum": 1024}}, r"datum must be below num_data \(1024\), got 1024"),
        (snr_phase, {"toy": {"num_dims": 3}}, r"toy\.num_dims is no field"),
        (snr_gaussian, {"estimators": ("dreg", "dreg")}, "estimators.* must .*twice"),
        (snr_vae, {"estimators": ("vimco",)}, "estimators.* must be .*pathwise.*got 'vimco'"),
        (snr_gaussian, {"elbo": False}, "elbo must be True for rloo"),
        (snr_vae, {"estimators": ("ovis",)}, "num_samples must be at least 2 for ovis"),
        (snr_vae, {"num_samples": (4, 0)}, "num_samples.* must be .*1, got 0"),
        (snr_vae, {"training": {"learning_rate": 0.0}}, r"learning_rate must be .*got 0\.0"),
        (snr_vae, {"fit": {"first": 1}}, "fit is no field"),
    ],
    ids=str,
)
def test_mistakes_in_the_config_are_named(config, changes, wanted):
    with pytest.raises(UserError, match=f"^--config.*{wanted}"):
        parsed(config.get_config(), **changes)


# --- the toy ----------------------------------------------------------------------------------


SMALL = {"replicates": {"number": 400, "num_blocks": 8}, "num_samples": (4,)}


def test_a_point_of_the_phase_diagram_is_that_of_the_toy_of_its_size():
    """At alpha 0 the bound is IWAE's: the closed forms of both programs agree."""
    toy = {"num_data": 16}
    diagram = phase.problem(
        parsed(snr_phase.get_config(), num_dims=(2, 3), alphas=(0.0,), toy=toy, **SMALL)
    )
    assert [p.label for p in diagram.points] == ["D=2 alpha=0.0 K=4", "D=3 alpha=0.0 K=4"]
    found = {r["name"]: r for r in diagram.points[1].run()}
    assert all(r["at"] == {"alpha": 0.0, "D": 3, "K": 4} for r in found.values())
    toy = {"num_data": 16, "num_dims": 3}
    point, _ = gaussian.problem(
        parsed(snr_gaussian.get_config(), toy=toy, estimators=("pathwise", "dreg"), **SMALL)
    ).points
    wanted = {r["name"]: r for r in point.run()}
    np.testing.assert_allclose(
        [found[n]["theory"] for n in ("phi pathwise", "phi dreg")],
        [wanted[n]["theory"] for n in (f"phi {gaussian.LOW_NOISE}", "phi dreg")],
        rtol=1e-4,
    )
    pairs = (("phi pathwise", f"phi {gaussian.LOW_NOISE}"), ("phi dreg", "phi dreg"))
    for one, other in pairs:  # two-sided, 6e-5 each under a normal error
        a, b = found[one], wanted[other]
        error = math.hypot(a["squared_standard_error"], b["squared_standard_error"])
        assert abs(a["squared"] - b["squared"]) < 4 * error


def test_the_gap_of_a_point_is_the_exact_one():
    """By draws against integrals; alpha 0 in the place of 0.5 fails the same test."""
    asked = parsed(
        snr_phase.get_config(), num_dims=(3,), alphas=(0.5,), gaps=4000,
        toy={"num_data": 16, "variance": 0.5, "perturbation": 0.3}, **SMALL,
    )  # fmt: skip
    found = {r["name"]: r for r in phase.problem(asked).points[0].run()}
    gap, setting = found["gap"], gaussian.Setting(asked.seed, asked.toy, 3)
    wrong = finite(np.asarray(setting.delta), 4, 0.5, 0.0).gap
    assert abs(gap["value"] - gap["theory"]) < 4.5 * gap["standard_error"]
    assert abs(gap["value"] - wrong) > 4.5 * gap["standard_error"]
    for name in phase.DIFFERENCES:
        off = found[name]["value"] - found[name]["theory"]
        assert off == pytest.approx(gap["value"] - gap["theory"], rel=1e-6)
        assert found[name]["standard_error"] == pytest.approx(gap["standard_error"])
    # Where E[w^2] is infinite there is no form in 1/K, and no number.
    narrow = parsed(
        snr_phase.get_config(), num_dims=(3,), alphas=(0.0,), gaps=4,
        toy={"num_data": 16, "variance": 0.2, "perturbation": 0.3}, **SMALL,
    )  # fmt: skip
    rows = {r["name"]: r for r in phase.problem(narrow).points[0].run()}
    assert rows[phase.DIFFERENCES[0]]["value"] is None
    json.dumps(list(rows.values()), allow_nan=False)
    with pytest.raises(UserError, match="alphas must be below 1 where gaps"):
        parsed(snr_phase.get_config(), gaps=10, alphas=(1.0,))


def test_estimators_that_were_added_moved_no_key_of_those_before_them():
    """The place of a name is folded into its keys."""
    assert list(ESTIMATORS)[:4] == ["pathwise", "dreg", "stl", "elbo"]
    sizes = {**SMALL, "num_samples": (1, 2), "toy": {"num_data": 16, "num_dims": 2}}
    few = gaussian.problem(
        parsed(snr_gaussian.get_config(), estimators=("pathwise", "dreg"), **sizes)
    )
    all_of_them = gaussian.problem(parsed(snr_gaussian.get_config(), **sizes))
    own = {p.label: {r["name"]: r["value"] for r in p.run()} for p in all_of_them.points}
    for point in few.points:
        for r in point.run():
            assert own[point.label][r["name"]] == r["value"]
    new = {"phi ovis", "phi left sum", "theta left sum", "phi tvo"}
    assert own["K=1"].keys() >= {"phi left sum"}
    assert "phi ovis" not in own["K=1"]  # which takes two samples
    assert own["K=2"].keys() >= new
    assert "phi rloo" in own["M=2"]
    assert "phi rloo" not in own["M=1"]


# --- a VAE on data ----------------------------------------------------------------------------


def test_vae_trains_on_training_and_validation_images_of_the_data_set_of_the_config(monkeypatch):
    images = np.random.default_rng(0).integers(0, 5, (24, 3, 2, 2), np.uint8)
    asked = []

    def load(name, data_dir):
        asked.append((name, data_dir))
        return sets.Dataset("Small", images[:18], images[18:20], images[20:], 5)

    monkeypatch.setattr(sets, "load", load)
    config = snr_vae.get_config()
    problem = vae.problem(parsed(config, data={"name": "mnist"}, data_dir="folder"))
    assert asked == [("mnist", "folder")]
    setting = problem.points[0].run.args[1]
    np.testing.assert_allclose(setting.intensities, images[:20].reshape(20, 12) / 4, rtol=1e-6)
    assert setting.batch.shape == (16, 12)

    row = results.row(
        "theta pathwise",
        {"K": 1},
        kind="estimate",
        unit="ratio",
        value=1.0,
        low=0.9,
        high=1.1,
        floor=0.1,
    )
    assert "VAE on Small:" in problem.draw([row], [])._suptitle.get_text()


def test_vae_config_starts_from_the_digits_of_the_published_numbers():
    digits = vae.problem(parsed(snr_vae.get_config())).points[0].run.args[1]
    from sklearn.datasets import load_digits

    np.testing.assert_allclose(digits.intensities, load_digits().data[:1497] / 16)
