"""experiments.surgery: its numbers against each other, resuming, pictures and what it refuses."""

import json
import os
import xml.etree.ElementTree
from types import SimpleNamespace

import jax
import matplotlib.image
import numpy as np
import oracles
import pytest

from configs import surgery_digits
from experiments import train
from experiments.runtime import results, settings, subprograms
from experiments.runtime.errors import UserError
from experiments.surgery import __main__ as surgery
from experiments.surgery import decomposition, gaps, report, study
from experiments.surgery.settings import Surgery
from experiments.vae import report as training_report
from experiments.vae.settings import Train

TRAINED = {
    "model": {"latents": (3,), "hidden": ((6,),)},
    "objective": {"name": "iwae", "num_samples": 2},
    "optimizer": {"learning_rate": 0.02},
    "training": {"num_steps": 4, "batch_size": 20, "validation_samples": 2},
    "records": {"log_every": 2, "save_every": 2, "keep_checkpoints": 3},
    "evaluation": {"few_samples": 2, "num_samples": 4, "num_images": 4},
}
SIZES = {
    "decomposition": {
        "num_images": 40, "num_draws": 4, "curve_draws": 2, "batch_size": 8, "num_batches": 5,
    },
    "prior": {"num_images": 12},
    "gap": {
        "splits": ("train", "test"), "num_images": 4, "num_steps": 20, "step_samples": 8,
        "num_draws": 20, "num_samples": 60,
    },
    "picture": {"num_sets": 4, "num_nodes": 24, "num_samples": (3,), "num_draws": 20},
    "memory": {"samples_per_pass": 20, "posteriors_per_pass": 30},
}  # fmt: skip
MODELS = {
    name: settings.merged(TRAINED, {"objective": {"name": objective}})
    for name, objective in {"VAE": "elbo", "DReG": "dreg"}.items()
}
PLANE = settings.merged(TRAINED, {"model": {"latents": (2,)}})


def tiny(runs="", /, **changes):
    """Settings of a run of seconds; what `changes` has of whole fields takes their places."""
    ours = SIZES if runs else settings.merged(SIZES, {"picture": {"model": PLANE}})
    config = settings.merged(surgery_digits.get_config(runs).to_dict(), ours)
    if not runs:
        config["models"] = MODELS
    return settings.parse(Surgery, put(config, changes))


def put(config, changes):
    """The config with fields, or FIELDs of SECTION__FIELD, in the places of what was there."""
    for name, value in changes.items():
        section, _, field = name.partition("__")
        config = {**config, section: {**config[section], field: value} if field else value}
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
                r
                for r in rows
                if r["name"] == "average KL - sampled"
                and (r["at"]["model"], r["at"].get("when")) == (model, when)
            )
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
                r["at"]["step"]
                for r in rows_of(finished)
                if r["name"] == name and r["at"]["model"] == model and "step" in r["at"]
            ]
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
            gap, *parts = (
                value(rows, name, data=data)
                for name in ("gap", "approximation gap", "amortisation gap")
            )
            np.testing.assert_allclose(gap, sum(parts), atol=1e-6)
            assert parts[1] > 0  # 20 steps of 4 images from an encoder that is hardly trained
        assert value(rows, "gap", data="train") != value(rows, "gap", data="test")


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


def test_gaps_of_a_split_are_of_its_images_their_posteriors_and_its_own_draws(monkeypatch):
    vae, keys = SimpleNamespace(model=None), []

    def measure(joint, theta, images, q, key, how, **sizes):
        np.testing.assert_array_equal(q, -images)
        keys.append(jax.random.key_data(jax.random.clone(key)).tolist())
        return gaps.Gaps(*[images[:, 0]] * len(gaps.Gaps._fields))

    content = {"train": 1.0, "test": 2.0}
    monkeypatch.setattr(gaps, "measure", measure)
    monkeypatch.setattr(gaps.encoders, "joint", lambda vae: None)
    monkeypatch.setattr(gaps.encoders, "encoded", lambda vae, phi, images, size: -images)
    monkeypatch.setattr(
        gaps.encoders, "images", lambda problem, split, *rest: np.full((4, 3), content[split])
    )
    model = SimpleNamespace(
        name="VAE", problem=SimpleNamespace(vae=vae), params=SimpleNamespace(theta=None, phi=None)
    )
    rows = gaps.part(model, tiny(), [])
    for split, value_of in content.items():
        assert value(rows, "log p(x)", data=split) == value_of
    assert keys[0] != keys[1]


def test_finished_runs_are_taken_apart_as_they_are(finished, tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(train, "main", lambda *a: started.append(a))
    for name in ("training curve", "optimal prior", "gap"):
        monkeypatch.delitem(study.PARTS, name)
    monkeypatch.setattr(report, "draw", lambda *a: [])
    asked = tiny(f"mine={finished / 'VAE'}")
    assert not asked.models
    surgery.main(asked, str(tmp_path))
    assert not started
    assert not (tmp_path / "mine").exists()
    expected = [
        {**r, "at": {**r["at"], "model": "mine"}}
        for r in rows_of(finished)
        if (r["at"]["model"], r["part"]) == ("VAE", "decomposition")
    ]
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
        surgery.main(asked, str(tmp_path))


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"models": {}}, ["models and runs are empty"]),
        ({"models": {"a/b": TRAINED}}, ["a/b", "folder"]),
        ({"models": {"two_dimensions": TRAINED}}, ["two_dimensions", "picture.model"]),
        ({"models": {"a": 3}}, ["--config.models.a", "3"]),
        ({"runs": {"VAE": "runs/VAE"}}, ["both have the name 'VAE'"]),
        ({"runs": {"mine": 3}}, ["--config.runs.mine", "3"]),
        ({"runs": {"two_dimensions": "runs/x"}}, ["two_dimensions", "picture.model"]),
        ({"checkpoint": "bset"}, ["--config.checkpoint", "best", "latest", "'bset'"]),
        ({"decomposition__num_draws": 1}, ["--config.decomposition.num_draws", "2", "1"]),
        ({"decomposition__num_images": 1}, ["--config.decomposition", "num_images", "got 1"]),
        ({"gap__learning_rate": 0.0}, ["--config.gap.learning_rate", "0.0"]),
        ({"picture__num_samples": (1, 8)}, ["--config.picture.num_samples", "2", "1"]),
        ({"picture__num_samples": (8, 8)}, ["--config.picture.num_samples", "must n", "twice"]),
        ({"seed": -1}, ["--config.seed", "-1"]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, dict) else " ",
)
def test_mistake_of_a_field_is_named(changes, wanted):
    with pytest.raises(UserError) as caught:
        tiny(**changes)
    is_one_sentence(caught, wanted)


def is_one_sentence(caught, wanted):
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for fragment in wanted:
        assert fragment in message


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"models": {"a": {"objective": {"nmae": "iwae"}}}}, ["--config.models.a", "nmae"]),
        ({"models": {"a": {"objective": {"name": "iwa"}}}}, ["a.objective.name", "'iwa'"]),
        (
            {"models": {"a": {"model": {"latents": (4, 2), "hidden": ((5,), (5,))}}}},
            ["a has 2 stochastic layers"],
        ),
        ({"training": "configs/absent.py"}, ["configs/absent.py is not there"]),
        ({"runs": {"mine": "runs/absent"}}, ["runs/absent", "experiments.train"]),
        ({"checkpoint": "999999"}, ["999999 is no step that"]),
        ({"member": 7}, ["--config.member must be a seed of", "7"]),
        ({"picture__model": MODELS["VAE"]}, ["latents must be (2,)", "(3,)"]),
        ({"decomposition__batch_size": 41}, ["--config.decomposition.batch_size", "40", "41"]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, dict) else " ",
)
def test_mistake_is_named_before_anything_is_trained(changes, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "main", None)
    with pytest.raises(UserError) as caught:
        surgery.main(tiny(**changes), str(tmp_path / "out"))
    is_one_sentence(caught, wanted)
    assert not (tmp_path / "out").exists()


def test_a_run_without_checkpoints_is_refused(finished, tmp_path):
    os.makedirs(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / results.CONFIG).write_text((finished / "VAE/config.json").read_text())
    with pytest.raises(UserError, match=r"no checkpoint in .*; train first"):
        surgery.main(tiny(f"mine={tmp_path / 'run'}"), str(tmp_path / "out"))


def test_default_models_keep_every_checkpoint_for_their_curves():
    asked = settings.parse(Surgery, surgery_digits.get_config())
    for changes in asked.models.values():
        ours = settings.parse(Train, subprograms.load_config(asked.training, changes))
        saved = ours.training.num_steps // ours.records.save_every
        assert saved <= ours.records.keep_checkpoints
