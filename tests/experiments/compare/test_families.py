"""experiments.compare: which families it takes, what it refuses, and a small run."""

import os

import pytest

from configs import compare_digits, compare_images
from experiments.compare import __main__ as compare
from experiments.compare import consistency, families, report
from experiments.compare.settings import Compare
from experiments.runtime import results, settings, subprograms
from experiments.runtime.errors import UserError
from experiments.runtime.results import row
from experiments.studies.study import UNIT
from experiments.vae import build
from experiments.vae.settings import Train


def asked(*order, **families):
    """Settings of these families of configs/compare_digits.py, with changes to their entries."""
    config = compare_digits.get_config().to_dict()
    config = settings.merged(config, {"order": order, "families": families})
    return settings.parse(Compare, config)


def without_data(monkeypatch):
    """Models are not made before they are trained."""
    for name, family in families.FAMILIES.items():
        monkeypatch.setitem(families.FAMILIES, name, family._replace(check=lambda job: None))


MISTAKES = {
    "program": ({"program": "snr"}, "program must be one of train, dequantize"),
    "file": ({"config": "configs/nothing.py"}, "config file configs/nothing.py is not there"),
    "variant": ({"config": "configs/train_mnist.py:long"}, "the variant must be one of short"),
    "field": (
        {"changes": {"model": {"latent": (3,)}}},
        r"VAE.changes.model.latent is no field.*; did you mean .*VAE.changes.model.latents",
    ),
    "type": (
        {"changes": {"training": {"num_steps": "many"}}},
        "VAE.changes.training.num_steps must be a whole number, got 'many'",
    ),
    "pixels": ({"changes": {"model": {"likelihood": "bernoulli"}}}, "models binarised pixels"),
    "data": ({"changes": {"data": {"name": "digits"}}}, "is of 'digits', this comparison of"),
    "model": (
        {"changes": {"model": {"latents": (0,), "likelihood": "categorical"}}},
        r"families.VAE.changes.model.latents.0.? must be .* got 0",
    ),
    "scoring": (
        {"evaluation_changes": {"evaluation": {"curve_samples": (3,)}}},
        r"VAE.evaluation_changes.evaluation.{1,2}curve_samples must rise",
    ),
    "split": (
        {"evaluation_changes": {"data": {"split": "validation"}}},
        "a comparison is of test images",
    ),
    "start": (
        {
            "changes": {"model": {"latents": (4, 2), "hidden": ((8,), (8,))}},
            "evaluation_changes": {"annealing": {"start": "prior"}},
        },
        "annealing.start=prior is of one stochastic layer, and this model has 2",
    ),
    "other program": (
        {"config": "configs/diffusion_digits.py"}, r"VAE.changes lacks .*model.latents",
    ),
    "no file": ({"config": ""}, "a config file must be named"),
    "run": ({"run": "nowhere"}, "the --workdir of a finished run of experiments.train"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_before_anything_is_trained(name, tmp_path):
    entry, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        families.check(asked("VAE", VAE=entry), str(tmp_path))
    assert not os.listdir(tmp_path)


def test_names_of_families_are_checked(tmp_path, monkeypatch):
    without_data(monkeypatch)
    with pytest.raises(UserError, match="names 'GAN', which is none of"):
        asked("VAE", "GAN")
    with pytest.raises(UserError, match=r"config.order must be filled; it is empty"):
        asked()
    with pytest.raises(UserError, match="use letters, digits and _ only, and `title` for"):
        asked("Flow++", **{"Flow++": {"program": "dequantize"}})
    assert families.check(asked("Flow"), str(tmp_path))[0][1].name == "Flow++"
    with pytest.raises(UserError, match=r"families.VAE.color is no field.* has program, title"):
        asked("VAE", VAE={"color": "red"})


OF_DVAE = {
    "enlarged": ({"data": {"enlarge": 2}}, "models enlarged images"),
    "density": ({"model": {"likelihood": "logit_laplace"}}, "models real numbers"),
    "models": ({"models": 5}, "dVAE.changes.models must be fields with values, got 5"),
    "field": (
        {"models": {"beta1": {"objective": {"betta": 1.0}}}},
        r"dVAE.changes.models.beta1.objective.betta is no field; did you mean .*\.beta\?",
    ),
}


@pytest.mark.parametrize("name", OF_DVAE)
def test_models_of_something_else_are_refused(name, tmp_path):
    changes, message = OF_DVAE[name]
    with pytest.raises(UserError, match=message):
        families.check(asked("dVAE", dVAE={"changes": changes}), str(tmp_path))


@pytest.mark.parametrize("variant", compare_images.VARIANTS)
def test_configs_of_images_fit_their_programs(variant, tmp_path, monkeypatch):
    without_data(monkeypatch)
    config = settings.parse(Compare, compare_images.get_config(variant))
    chosen = families.check(config, str(tmp_path))
    assert {job.settings.data.name for _, job in chosen} == {variant}
    assert len(chosen) == (4 if variant == "cifar10" else 6)


RECORDS = {"log_every": 2, "save_every": 4}
SMALL = {
    "VAE": {
        "changes": {
            "model": {"latents": (2,), "hidden": ((8,),)}, "records": RECORDS,
            "objective": {"name": "elbo", "num_samples": 1}, "evaluation": {"num_samples": 16},
            "training": {"num_steps": 4, "validation_samples": 2},
        },
        "evaluation_changes": {
            "evaluation": {
                "num_images": 6, "num_samples": 32, "few_samples": 4, "curve_samples": (1, 8),
            },
            "annealing": {
                "test_images": 6, "simulated_images": 6, "temperatures": 5, "chains": 2,
                "leapfrog": 1,
            },
        },
    },
    "Exact": {
        "changes": {
            "training": {"num_steps": 4}, "records": RECORDS, "refit": {"num_steps": 2},
            "evaluation": {"num_images": 6, "num_samples": (1, 4)},
            "models": {
                "subset_flow": {
                    "model": {"width": 8, "num_components": 2, "num_layers": 1},
                    "noise": {"width": 8, "num_layers": 1},
                },
            },
        },
    },
}  # fmt: skip


def small(*order, **changed):
    """Families whose programs compile fast, for a few steps."""
    found = asked(*order, **settings.merged(SMALL, changed))
    del found.families["Exact"].changes["models"]["autoregressive"]
    return found


def test_a_small_comparison_and_again_from_what_it_left(tmp_path, capsys, monkeypatch):
    workdir = str(tmp_path / "compare")
    compare.main(small("VAE", "Exact"), workdir)
    printed = capsys.readouterr().out
    assert "contradict each other" in printed
    record = results.load(workdir)
    assert {r["at"]["family"] for r in record["rows"]} == {"VAE", "Exact"}
    for r in record["rows"]:
        assert r["kind"] in ("exact", "upper_bound", "lower_bound")
        assert r["unit"] == UNIT
        assert r["standard_error"] > 0
        assert r["parameters"] > 0
        assert r["training_seconds"] > 0
        assert r["seconds_per_image"] > 0
    assert {r["kind"] for r in record["rows"]} == {"exact", "upper_bound", "lower_bound"}
    exact = next(r for r in record["rows"] if r["kind"] == "exact")
    gaps = [r["above_exact"] for r in record["rows"] if r["above_exact"] is not None]
    assert len(gaps) == 4  # ELBO and IW-4, under two noises
    assert exact["at"]["model"] == "subset_flow"
    with open(os.path.join(workdir, report.PAGE)) as file:
        page = file.read()
    for r in record["rows"]:
        assert r["name"] in page
    for name in ("figure.png", "figure.svg"):
        assert os.path.getsize(os.path.join(workdir, name)) > 20_000
    assert os.path.getsize(os.path.join(workdir, "VAE", subprograms.OUTPUT)) > 100

    # Nothing is trained or measured again, and finished runs are taken from where they are.
    before = {r["name"]: r for r in record["rows"]}
    compare.main(small("VAE", "Exact"), workdir)
    again = results.load(workdir)
    assert {r["name"]: r for r in again["rows"]} == before
    monkeypatch.setattr(consistency, "contradictions", lambda rows: [(rows[0], rows[1], 9.0)])
    with pytest.raises(UserError, match=r"9\.0 standard errors off"):
        compare.main(small("Exact"), workdir)
    monkeypatch.undo()
    taken = small("Exact", Exact={"run": os.path.join(workdir, "Exact")})
    other = str(tmp_path / "other")
    compare.main(taken, other)
    elsewhere = results.load(other)
    values = [r["value"] for r in again["rows"] if r["at"]["family"] == "Exact"]
    assert [r["value"] for r in elsewhere["rows"]] == values
    assert not os.path.exists(os.path.join(other, "Exact"))


def test_a_folder_that_is_no_finished_run_of_the_family_is_refused(tmp_path):
    folder = str(tmp_path / "diffusion")
    os.makedirs(folder)
    config = subprograms.load_config("configs/diffusion_digits.py", {})
    # The summary is not there yet.
    of_point = row(
        "ELBO",
        {"model": "m", "seed": 0},
        kind="upper_bound",
        unit=UNIT,
        value=2.0,
        standard_error=0.01,
        n=300,
        point="m",
    )
    record = {"experiment": "diffusion", "config": config, "rows": [of_point]}
    results.save_record(folder, record)
    with pytest.raises(UserError, match=r"run is of experiments.diffusion, not dequantize"):
        families.check(asked("Exact", Exact={"run": folder}), str(tmp_path))
    taken = asked("Diffusion", Diffusion={"run": folder})
    with pytest.raises(UserError, match=r"has not come to its end; run experiments.diffusion"):
        families.check(taken, str(tmp_path))
    record["rows"].append(row("KL", {"model": "m"}, kind="estimate", unit="nats", value=1.0))
    results.save_record(folder, record)
    ((family, job),) = families.check(taken, str(tmp_path))
    assert [r["name"] for r in families.rows(family, job)] == ["ELBO"]
    results.save_record(folder, {**record, "rows": record["rows"][1:]})
    with pytest.raises(UserError, match=r"has no bound on log P\(x\) of images"):
        families.rows(family, job)
    results.save_record(folder, {**record, "config": {**config, "data": {"name": "digits"}}})
    with pytest.raises(UserError, match=r"is of 'digits', this comparison of 'digits_shuffled'"):
        families.check(taken, str(tmp_path))
    results.save_record(folder, {**record, "config": {**config, "chain": 3}})
    with pytest.raises(UserError, match=r"its config.chain must be a section of fields, got 3"):
        families.check(taken, str(tmp_path))
    results.save_record(folder, {"experiment": "diffusion", "config": config})
    with pytest.raises(UserError, match="has no readable results"):
        families.check(taken, str(tmp_path))


def test_a_training_that_goes_on_is_not_at_its_end(tmp_path):
    """Its results are those of fewer steps, beside checkpoints of more."""
    folder = str(tmp_path / "run")
    os.makedirs(folder)
    changes = settings.merged(
        SMALL["VAE"]["changes"],
        {"data": {"name": "digits_shuffled"}, "model": {"likelihood": "categorical"}},
    )
    config = subprograms.load_config("configs/train_digits.py", changes)
    trained = settings.parse(Train, config)
    results.save_record(
        folder, {"experiment": "train", "config": config, "rows": [{"name": "ELBO"}]}
    )
    taken = asked("VAE", VAE={"run": folder})
    results.save_config(folder, build.named(trained))
    assert families.check(taken, str(tmp_path))
    longer = {**build.named(trained), "training": {**config["training"], "num_steps": 9}}
    results.save_config(folder, longer)
    with pytest.raises(UserError, match=r"families.VAE: .* has not come to its end"):
        families.check(taken, str(tmp_path))
