"""experiments.surgery: its numbers against each other, resuming, pictures and what it refuses."""

import json
import os
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import oracles
import pytest
from absl import flags
from scipy.special import logsumexp
from surgery_cases import gaussians

import bounds
from configs import surgery_digits
from experiments import train
from experiments.runtime import results, subprograms
from experiments.runtime.errors import UserError
from experiments.surgery import __main__ as surgery
from experiments.surgery import decomposition, report, study, two_dimensions
from experiments.vae import report as training_report

# Together: its three models are trained once, not on every worker.
pytestmark = pytest.mark.xdist_group("test_surgery_program")

TRAINED = {
    "latents": (3,), "hidden": ((6,),), "num_steps": 4, "log_every": 2, "save_every": 2,
    "keep_checkpoints": 3, "num_samples": 2, "batch_size": 20, "validation_samples": 2,
    "few_samples": 2, "test_samples": 4, "test_images": 4, "learning_rate": 0.02,
}  # fmt: skip
SIZES = {
    "train_images": 40, "test_images": 12, "draws": 4, "curve_draws": 2, "batch": 8,
    "num_batches": 5, "gap_images": 4, "gap_steps": 20, "gap_draws": 20, "gap_samples": 60,
    "picture_sets": 4, "picture_nodes": 24, "picture_samples": (3,), "picture_draws": 20,
    "samples_per_pass": 20, "posteriors_per_pass": 30,
}  # fmt: skip
MODELS = {"VAE": {**TRAINED, "objective": "elbo"}, "DReG": {**TRAINED, "objective": "dreg"}}
PLANE = {**TRAINED, "latents": (2,)}


def tiny(runs="", **changes):
    config = surgery_digits.get_config(runs)
    config.update(SIZES)
    if not runs:
        config.models, config.picture_model = MODELS, PLANE
    for name, value in changes.items():
        config[name] = value
    return config


def rows_of(folder):
    return json.loads((folder / results.FILE).read_text())["rows"]


def value(rows, name, **at):
    (found,) = (
        r for r in rows if r["name"] == name and all(r["at"].get(k) == v for k, v in at.items())
    )
    return found["value"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Workdir of a run of everything."""
    flags.FLAGS.mark_as_parsed()
    folder = tmp_path_factory.mktemp("surgery")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_report, "draw", lambda *a: [])  # pictures of each training
        surgery.main(tiny(), str(folder))
    return folder


# --- what a run writes ------------------------------------------------------------------------


def test_parts_add_up_before_and_after_training(finished):
    rows = rows_of(finished)
    for model in MODELS:
        for when in decomposition.WHEN:
            at = {"model": model, "when": when}
            information = value(rows, decomposition.INFORMATION, **at)
            marginal = value(rows, decomposition.MARGINAL_KL, **at)
            sampled = value(rows, decomposition.SAMPLED_KL, **at)
            np.testing.assert_allclose(information + marginal, sampled, atol=1e-5)
            parts = value(rows, decomposition.TOTAL_CORRELATION, **at)
            wise = value(rows, decomposition.DIMENSION_WISE, **at)
            np.testing.assert_allclose(parts + wise, marginal, atol=1e-5)
            each = {
                name: [value(rows, name, **at, dimension=d) for d in (1, 2, 3)]
                for name in (*decomposition.OF_DIMENSION, decomposition.VARIANCE_OF_MEAN)
            }
            exact = value(rows, decomposition.AVERAGE_KL, **at)
            np.testing.assert_allclose(np.sum(each["average KL of dimension"]), exact, rtol=1e-5)
            np.testing.assert_allclose(np.sum(each["KL of dimension"]), wise, atol=1e-5)
            assert -0.1 < information <= np.log(40)
            (difference,) = (
                r for r in rows if r["name"] == "average KL - sampled"
                and (r["at"]["model"], r["at"].get("when")) == (model, when)
            )  # fmt: skip
            np.testing.assert_allclose(difference["value"], exact - sampled, atol=1e-6)
            assert abs(difference["z_score"]) < oracles.z_limit(1)
            active = np.sum(np.array(each[decomposition.VARIANCE_OF_MEAN]) > 0.01)
            assert value(rows, "active units", **at) == active
    # One seed: they start alike, and their objectives take them apart.
    for name in (decomposition.AVERAGE_KL, decomposition.INFORMATION):
        start, end = (
            [value(rows, name, model=m, when=w) for m in MODELS] for w in decomposition.WHEN
        )
        assert start[0] == start[1]
        assert end[0] != end[1]


def test_every_row_says_what_it_is(finished):
    for row in rows_of(finished):
        assert row["kind"] in results.KINDS
        assert np.isfinite(row["value"]), row
        assert row["unit"]
        assert row["part"] in (*study.PARTS, "iwae_posterior")
        assert {"step", "weights", "checksum"} <= set(row)
        if row["kind"] != "exact" and row["name"] not in ("log p(x), sum over the grid",):
            assert row["standard_error"] is not None or row["at"].get("K") == 1, row
    informations = [r for r in rows_of(finished) if r["name"] == decomposition.INFORMATION]
    assert all(r["log_n"] == pytest.approx(np.log(40)) for r in informations)


def test_curve_has_the_start_and_every_checkpoint(finished):
    for model in MODELS:
        for name in (decomposition.INFORMATION, decomposition.MARGINAL_KL):
            found = [
                r["at"]["step"] for r in rows_of(finished)
                if r["name"] == name and r["at"]["model"] == model and "step" in r["at"]
            ]  # fmt: skip
            assert found == [0, 2, 4]
        rows = [r for r in rows_of(finished) if r["at"]["model"] == model]
        start = value(rows, decomposition.AVERAGE_KL, step=0)  # closed form: the same parameters
        assert start == value(rows, decomposition.AVERAGE_KL, when="before")
        best = rows[0]["step"]
        end = value(rows, decomposition.AVERAGE_KL, step=best)
        assert end == value(rows, decomposition.AVERAGE_KL, when="after") != start


def test_rise_is_the_marginal_kl_and_the_gap_has_two_parts(finished):
    for model in MODELS:
        rows = [r for r in rows_of(finished) if r["at"]["model"] == model]
        rise = value(rows, "rise of the ELBO by the prior q(z)", data="train")
        marginal = value(rows, decomposition.MARGINAL_KL, when="after")
        np.testing.assert_allclose(rise, marginal, atol=1e-5)
        for data in ("train", "test"):
            p, q = (value(rows, "ELBO", data=data, prior=r) for r in ("p(z)", "q(z)"))
            np.testing.assert_allclose(
                q - p, value(rows, "rise of the ELBO by the prior q(z)", data=data), atol=1e-5
            )
        parts = [value(rows, f"{name} gap") for name in ("approximation", "amortisation")]
        np.testing.assert_allclose(value(rows, "gap"), sum(parts), atol=1e-6)
        assert parts[1] > 0  # 20 steps of 4 images from an encoder that is hardly trained


def test_densities_of_the_plane_have_mass_one(finished):
    rows = [r for r in rows_of(finished) if r["at"]["model"] == "two_dimensions"]
    at_one = value(rows, "mass on the grid", K=1)
    np.testing.assert_allclose(at_one, 1.0, atol=0.01)
    for k in (1, 3):
        divergence = value(rows, "KL(q_EW || posterior)", K=k)
        rest = value(rows, "log p(x), sum over the grid") - value(rows, "ELBO of q_EW", K=k)
        np.testing.assert_allclose(rest, divergence, atol=1e-6)
    assert value(rows, "KL(q_EW || posterior)", K=3) < value(rows, "KL(q_EW || posterior)", K=1)


@pytest.mark.parametrize("name", ["figure", "iwae_posterior"])
def test_figures_are_there_and_not_blank(finished, name):
    xml.etree.ElementTree.parse(finished / f"{name}.svg")
    pixels = matplotlib.image.imread(finished / f"{name}.png")[..., :3]
    height, width = pixels.shape[:2]
    for rows in np.array_split(np.arange(height), 2):
        for columns in np.array_split(np.arange(width), 4 if name == "figure" else 3):
            panel = pixels[np.ix_(rows, columns)]
            assert panel.std() > 0.05  # ink
            assert np.max(panel.max(axis=-1) - panel.min(axis=-1)) > 0.3  # in colour


# --- continued --------------------------------------------------------------------------------


def test_what_is_missing_is_measured_again_and_nothing_else(finished, monkeypatch, capsys):
    """Of the two models that are trained nothing is trained again; each part is its own."""
    record = json.loads((finished / results.FILE).read_text())
    lost = [r for r in record["rows"] if (r["at"]["model"], r["part"]) == ("VAE", "gap")]
    assert lost
    kept = [r for r in record["rows"] if r not in lost]
    (finished / results.FILE).write_text(json.dumps({**record, "rows": kept}))
    started = []
    monkeypatch.setattr(train, "main", lambda *a: started.append(a))
    monkeypatch.setattr(report, "draw", lambda *a: [str(finished / "figure.png")])
    for name in ("decomposition", "training curve", "optimal prior"):
        monkeypatch.setitem(study.PARTS, name, None)
    surgery.main(tiny(), str(finished))
    assert not started
    assert rows_of(finished) == kept + lost
    printed = capsys.readouterr().out
    assert "index-code mutual information I" in printed
    assert f"Written: {finished / results.FILE}, {finished / 'figure.png'}" in printed
    assert "log 40 = 3.689" in printed


def test_finished_runs_are_taken_apart_as_they_are(finished, tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(train, "main", lambda *a: started.append(a))
    for name in ("training curve", "optimal prior", "gap"):
        monkeypatch.delitem(study.PARTS, name)
    monkeypatch.setattr(report, "draw", lambda *a: [])
    config = tiny(f"mine={finished / 'VAE'}")
    assert not config.models
    surgery.main(config, str(tmp_path))
    assert not started
    assert not (tmp_path / "mine").exists()
    expected = [
        {**r, "at": {**r["at"], "model": "mine"}} for r in rows_of(finished)
        if (r["at"]["model"], r["part"]) == ("VAE", "decomposition")
    ]  # fmt: skip
    assert rows_of(tmp_path) == expected
    assert "mine" in capsys.readouterr().out
    # Another checkpoint is another surgery.
    other = tiny(f"mine={finished / 'VAE'}", checkpoint="2")
    with pytest.raises(UserError, match="differs in checkpoint"):
        surgery.main(other, str(tmp_path))
    rows = [{**r, "checksum": 1} for r in expected]
    record = json.loads((tmp_path / results.FILE).read_text())
    (tmp_path / results.FILE).write_text(json.dumps({**record, "rows": rows}))
    with pytest.raises(UserError, match="another training now; choose another --workdir"):
        surgery.main(config, str(tmp_path))


# --- standard errors --------------------------------------------------------------------------


def test_standard_error_is_that_of_draws_for_fixed_images():
    """Of 400 repetitions; the spread between images, which is far larger, is no part of it."""
    posteriors = gaussians(0, 12, 2, spread=1.5, scale=0.4, dtype=np.float32)
    repeated = []
    for seed in range(400):
        found = decomposition.measure(posteriors, jax.random.key(seed), num_draws=5)
        names = ("kl", "information", "marginal_kl", "total_correlation")
        repeated.append(
            [
                decomposition.stratified(
                    getattr(found.mean.terms, n), getattr(found.variance.terms, n), 5
                )
                for n in names
            ]
        )
    values, errors = np.moveaxis(np.array(repeated), -1, 0)
    ratio = np.sqrt(np.mean(errors**2, axis=0)) / values.std(axis=0, ddof=1)
    assert np.all(np.abs(ratio - 1) < 4.5 / np.sqrt(2 * 400))  # of a standard deviation's error
    exact = decomposition.closed_kl(posteriors).sum(axis=-1)
    standard = np.sqrt(np.mean(errors[:, 0] ** 2) / 400)
    assert abs(values[:, 0].mean() - exact.mean()) < oracles.z_limit(1) * standard
    assert exact.std(ddof=1) / np.sqrt(12) > 2 * errors[:, 0].mean()


def test_minibatch_estimates_enclose_the_information():
    posteriors = gaussians(1, 40, 3, spread=1.0, scale=0.5, dtype=np.float32)
    found = decomposition.measure(posteriors, jax.random.key(0), num_draws=50)
    exact, _ = decomposition.stratified(
        found.mean.terms.information, found.variance.terms.information, 50
    )
    batches = decomposition.from_minibatches(
        posteriors, jax.random.key(1), batch=8, num_batches=200
    )
    assert batches.in_batch.mean() < exact < batches.stratified.mean()
    np.testing.assert_allclose(batches.weighted, batches.in_batch + np.log(40), rtol=1e-5)
    rows = decomposition.minibatch_rows({"model": "m"}, batches)
    kinds = {r["name"]: r["kind"] for r in rows}
    assert kinds == {
        "I, in-batch mean": "lower_bound", "I, stratified": "upper_bound",
        "I, MWS": "upper_bound",
    }  # fmt: skip
    # All data in one batch: the aggregated posterior itself, whichever way it is estimated.
    whole = decomposition.from_minibatches(posteriors, jax.random.key(2), batch=40, num_batches=300)
    np.testing.assert_allclose(whole.in_batch, whole.stratified, atol=1e-5)
    error = whole.in_batch.std(ddof=1) / np.sqrt(300)
    assert abs(whole.in_batch.mean() - exact) < oracles.z_limit(1) * error + 0.01


def test_jackknife_of_a_density_is_right_for_its_mass():
    """Its mass is a mean over blocks, so the jackknife gives the error of a mean."""
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(8, 4, 4))
    found = two_dimensions._jackknife(lambda v: np.exp(v).sum(), blocks)
    each = np.exp(blocks).sum(axis=(1, 2))
    np.testing.assert_allclose(found["value"], each.mean())
    np.testing.assert_allclose(found["standard_error"], each.std(ddof=1) / np.sqrt(8))
    assert two_dimensions._jackknife(logsumexp, blocks[:1]).keys() == {"value"}


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"models": {}}, ["config.models and config.runs are empty"]),
        ({"models": {"a/b": TRAINED}}, ["'a/b'", "folder"]),
        ({"models": {"two_dimensions": TRAINED}}, ["two_dimensions"]),
        ({"models": {"a": {"objectve": "iwae"}}}, ["objectve"]),
        ({"models": {"a": {"objective": "iwa"}}}, ["config.objective", "'iwa'"]),
        ({"models": {"a": 3}}, ["config.models.a", "3"]),
        (
            {"models": {"a": {"latents": (4, 2), "hidden": ((5,), (5,))}}},
            ["a has 2 stochastic layers"],
        ),
        ({"training": "configs/absent.py"}, ["configs/absent.py is not there"]),
        ({"runs": {"VAE": "runs/VAE"}}, ["both have the name 'VAE'"]),
        ({"runs": {"mine": "runs/absent"}}, ["runs/absent", "experiments.train"]),
        ({"runs": {"mine": 3}}, ["config.runs.mine", "3"]),
        ({"runs": {"two_dimensions": "runs/x"}}, ["two_dimensions", "picture_model"]),
        ({"checkpoint": "bset"}, ["best, latest or a step", "'bset'"]),
        ({"checkpoint": "999999"}, ["999999 is no step that"]),
        ({"member": 7}, ["config.member must be a seed of", "7"]),
        ({"picture_model": {**PLANE, "latents": (3,)}}, ["latents=(2,)", "(3,)"]),
        ({"draws": 1}, ["config.draws", "at least 2"]),
        ({"batch": 41}, ["config.batch", "from 2 to", "40", "41"]),
        ({"train_images": 1}, ["config.train_images", "1"]),
        ({"gap_learning_rate": 0.0}, ["config.gap_learning_rate"]),
        ({"picture_samples": (1, 8)}, ["config.picture_samples", "(1, 8)"]),
        ({"picture_samples": (8, 8)}, ["config.picture_samples", "twice"]),
        ({"seed": -1}, ["config.seed", "-1"]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, dict) else " ",
)
def test_mistake_is_named_before_anything_is_trained(changes, wanted, tmp_path, monkeypatch):
    flags.FLAGS.mark_as_parsed()
    monkeypatch.setattr(train, "main", None)
    config = tiny()
    for name, changed in changes.items():
        with config.unlocked():
            del config[name]
            config[name] = changed
    with pytest.raises(UserError) as caught:
        surgery.main(config, str(tmp_path / "out"))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for fragment in wanted:
        assert fragment in message
    assert not (tmp_path / "out").exists()


def test_a_run_without_checkpoints_is_refused(finished, tmp_path):
    os.makedirs(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / results.CONFIG).write_text((finished / "VAE/config.json").read_text())
    with pytest.raises(UserError, match=r"no checkpoint in .*; train first"):
        surgery.main(tiny(f"mine={tmp_path / 'run'}"), str(tmp_path / "out"))


def test_default_models_keep_every_checkpoint_for_their_curves():
    config = surgery_digits.get_config()
    for changes in config.models.values():
        trained = subprograms.load_config(config.training, changes)
        assert trained.num_steps // trained.save_every <= trained.keep_checkpoints


def test_active_units_do_not_count_what_is_dead():
    posteriors = bounds.GaussianPosteriors(
        jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.array([[0.1, 1.0], [0.1, 1.0]])
    )
    measured = decomposition.measure(posteriors, jax.random.key(0), num_draws=3)
    rows = decomposition.dimension_rows({"model": "m"}, posteriors, measured, 3)
    active = {r["at"]["dimension"]: r["active"] for r in rows if "active" in r}
    assert active == {1: True, 2: False}
    # The dead dimension is the prior: no information, no KL, and no error.
    dead = [r for r in rows if r["at"]["dimension"] == 2 and r["unit"] == "nats"]
    assert all(abs(r["value"]) < 1e-6 for r in dead)
