"""What the programs share: pooled measurements, records, the training loop, a VAE on data."""

import json
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

import bounds
from configs import snr_vae
from experiments.data import sets
from experiments.runtime import results, trainer
from experiments.runtime.errors import UserError
from experiments.runtime.mesh import block_moments, device_mesh
from experiments.snr import measure as m
from experiments.snr import vae
from models.exact import linear_gaussian

MODEL = linear_gaussian.make_model()
PARAMS = bounds.Params(
    jnp.array([0.3, -0.2]),
    linear_gaussian.Inference(0.5 * jnp.eye(2), jnp.array([0.4, 0.2])),
)
X = jnp.array([1.5, -0.5])


# --- measurements -----------------------------------------------------------------------------


def measured(num_replicates=400, num_blocks=8, chunk_size=17, seed=0, factory=bounds.pathwise):
    return m.measure(
        factory(MODEL, num_samples=4), PARAMS, jax.random.key(seed), X,
        num_replicates=num_replicates, num_blocks=num_blocks, chunk_size=chunk_size,
    )  # fmt: skip


def test_measurement_is_that_of_all_replicates_and_of_all_but_each_block():
    got = measured()
    objective = bounds.pathwise(MODEL, num_samples=4)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(400))
    theta = np.asarray(
        jax.vmap(lambda k: jax.grad(objective)(PARAMS, k, X).theta)(keys), np.float64
    )
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
            lambda p, k: {"theta": jax.grad(objective)(p, k, X).theta}, PARAMS, jax.random.key(0),
            num_replicates=480 * 50, num_blocks=480, chunk_size=50, mesh=device_mesh(),
        )
    )()  # fmt: skip
    parts = [jax.tree.map(lambda v, i=i: v[8 * i : 8 * i + 8], blocks) for i in range(60)]
    values = [m.snr_squared(m.from_blocks(p.count, p.mean, p.m2), "theta") for p in parts]
    estimates = np.array([v.value for v in values])
    errors = np.array([v.standard_error for v in values])
    # The sd of 60 values is known to 9%, the mean jackknife error to about 3%.
    assert 0.65 < errors.mean() / estimates.std(ddof=1) < 1.5
    value = m.root(values[0])
    assert value.low < value.value < value.high
    negative = m.root(m.Value(-0.1, 0.2, -0.5, 0.3))
    assert negative.value == 0
    assert negative.low == 0
    np.testing.assert_allclose(negative.high, np.sqrt(0.3))


def test_low_noise_numerator_estimates_the_same_ratio():
    plain, better = measured(20_000, 20, 500), measured(20_000, 20, 500, 1, bounds.dreg)
    a, b = m.snr_squared(plain, "phi"), m.snr_squared_of(better, plain, "phi")
    assert abs(a.value - b.value) < 4.5 * np.hypot(a.standard_error, b.standard_error)
    assert b.standard_error < 0.5 * a.standard_error


def by_hand(values, num_blocks=4):
    """A Measurement of one group from replicates [R, P], and the values themselves."""
    blocks = values.reshape(num_blocks, -1, values.shape[1])
    mean = blocks.mean(1)
    m2 = ((blocks - mean[:, None]) ** 2).sum(1)
    return m.from_blocks(np.full(num_blocks, blocks.shape[1]), {"g": mean}, {"g": m2})


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
    np.testing.assert_allclose(m.snr_squared(own, "g").value, pooled_by_hand(a, a))
    np.testing.assert_allclose(m.snr_squared_of(own, other, "g").value, pooled_by_hand(a, b))
    ratio = pooled_by_hand(a, a) / pooled_by_hand(b, b)
    np.testing.assert_allclose(m.snr_squared_ratio(own, "g", other, "g").value, ratio)
    np.testing.assert_allclose(m.variance(own, "g").value, a.var(0, ddof=1).mean())
    squared = (a.mean(0) ** 2 - a.var(0, ddof=1) / 12).mean()
    np.testing.assert_allclose(m.mean_squared(own, "g").value, squared)

    left_out = [np.delete(a, slice(3 * i, 3 * i + 3), axis=0) for i in range(4)]
    values = np.array([pooled_by_hand(v, v) for v in left_out])
    error = np.sqrt(3 / 4 * np.sum((values - values.mean()) ** 2))
    got = m.snr_squared(own, "g")
    np.testing.assert_allclose(got.standard_error, error)
    half = 3.182446 * error  # the 97.5% quantile of t with 3 degrees of freedom
    np.testing.assert_allclose([got.low, got.high], [got.value - half, got.value + half], rtol=1e-5)
    np.testing.assert_allclose(m.root(m.Value(4.0, 0.4, 3.2, 4.8)), [2, 0.1, 3.2**0.5, 4.8**0.5])


def test_projection_on_an_expected_gradient():
    means = np.vstack([np.array([2.0, 4.0])] * 5)
    got = m.projection(means, np.array([1.0, 2.0]))
    np.testing.assert_allclose(got.value, 2.0)
    assert got.standard_error == 0


def test_slope_is_that_of_the_root():
    rows = [
        {"at": {"K": k}, "squared": 9.0 / k, "squared_standard_error": 0.01 / k}
        for k in (1, 10, 100)
    ]
    slope, low, high = m.slope_of_rows(rows, "K")
    np.testing.assert_allclose(slope, -0.5, atol=1e-6)
    assert low < -0.5 < high


@pytest.mark.parametrize(("replicates", "blocks"), [(10, 3), (4, 4), (0, 2), (100, 1)])
def test_counts_of_replicates_that_cannot_work(replicates, blocks):
    with pytest.raises(UserError, match=r"num_(replicates|blocks)"):
        m.check_replicates(types.SimpleNamespace(num_replicates=replicates, num_blocks=blocks))


# --- records ----------------------------------------------------------------------------------


def test_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    config = ConfigDict({"seed": 3, "sizes": (1, 2)})
    record = results.open_record(str(tmp_path), "snr", config)
    record["rows"].append(
        results.row("a", {"K": 1}, kind="estimate", unit="nats", value=float("nan"), high=np.inf)
    )
    results.save_record(str(tmp_path), record)
    text = (tmp_path / results.FILE).read_text()
    assert json.loads(text)["rows"][0]["value"] is None, "strict JSON has no NaN"
    assert json.loads(text)["rows"][0]["high"] is None
    assert results.open_record(str(tmp_path), "snr", config)["rows"] == record["rows"]

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match="No space left"):
        results.save_record(str(tmp_path), {**record, "rows": []})
    assert (tmp_path / results.FILE).read_text() == text
    assert os.listdir(tmp_path) == [results.FILE], "no half-written file is left behind"


def test_record_of_another_config_or_program_is_not_touched(tmp_path):
    config = ConfigDict({"seed": 3})
    results.save_record(str(tmp_path), results.open_record(str(tmp_path), "snr", config))
    with pytest.raises(UserError, match=r"seed \(3 there, 4 now\)"):
        results.open_record(str(tmp_path), "snr", ConfigDict({"seed": 4}))
    with pytest.raises(UserError, match="results of snr"):
        results.open_record(str(tmp_path), "train", config)


def test_kind_is_one_of_four():
    with pytest.raises(ValueError, match="kind must be one of exact"):
        results.row("a", {}, kind="bound", unit="nats", value=1.0)


# --- training ---------------------------------------------------------------------------------


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


# --- a VAE on data ----------------------------------------------------------------------------


def test_vae_trains_on_training_and_validation_images_of_the_data_set_of_the_config(monkeypatch):
    images = np.random.default_rng(0).integers(0, 5, (24, 3, 2, 2), np.uint8)
    asked = []

    def load(name, data_dir):
        asked.append((name, data_dir))
        return sets.Dataset("Small", images[:18], images[18:20], images[20:], 5)

    monkeypatch.setattr(data, "load", load)
    config = snr_vae.get_config()
    config.dataset, config.data_dir = "mnist", "folder"
    problem = vae.problem(config)
    assert asked == [("mnist", "folder")]
    setting = problem.points[0].run.args[1]
    np.testing.assert_allclose(setting.intensities, images[:20].reshape(20, 12) / 4, rtol=1e-6)
    assert setting.batch.shape == (16, 12)

    row = results.row(
        "theta pathwise", {"K": 1}, kind="estimate", unit="ratio", value=1.0, low=0.9, high=1.1,
        floor=0.1,
    )  # fmt: skip
    assert "VAE on Small:" in problem.draw([row], [])._suptitle.get_text()


def test_vae_config_starts_from_the_digits_of_the_published_numbers():
    config = snr_vae.get_config()
    digits = vae.problem(config).points[0].run.args[1]
    from sklearn.datasets import load_digits

    np.testing.assert_allclose(digits.intensities, load_digits().data[:1497] / 16)
