"""experiments.compare: what it collects, checks, draws and refuses."""

import json
import math
import os
from typing import Any

import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict

from configs import compare_digits, compare_images
from experiments.compare import __main__ as compare
from experiments.compare import collect, families, report
from experiments.runtime import results, subprograms
from experiments.runtime.errors import UserError
from experiments.runtime.results import row

UNIT = "bits/dim"


def study(*rows):
    """A record as the programs of studies write it: rows of points, then their summary."""
    return {"experiment": "dequantize", "config": {"dataset": "digits_shuffled"}, "rows": rows}


def of_seed(name, seed, value, kind="upper_bound", unit=UNIT, **extra):
    at = {"model": "m", "seed": seed, **extra.pop("at", {})}
    return row(name, at, kind=kind, unit=unit, value=value, standard_error=0.01, n=300,
               point="m", **extra)  # fmt: skip


@pytest.fixture
def family(tmp_path):
    return families.Family("Flow++", "dequantize", None, str(tmp_path), True)


def write(family, record):
    os.makedirs(family.folder, exist_ok=True)
    with open(os.path.join(family.folder, results.FILE), "w") as file:
        json.dump(record, file)


def test_one_seed_has_its_errors_over_images_and_several_over_seeds(family):
    one = [
        of_seed("ELBO", 0, 2.0, at={"k": 1, "noise": "flow"}, seconds_per_image=0.5),
        of_seed("ELBO gap", 0, 0.1, "estimate", at={"k": 1, "noise": "flow"}),
        of_seed("exact", 0, 1.9, "exact", at={"noise": "flow"}),
        of_seed("joint bound", 0, 9.0), of_seed("KL of a step", 0, 0.3, "estimate", "nats"),
        # None of these bounds log P(x) of images.
        of_seed("log p(x, y)", 0, 8.0, "exact"), of_seed("prior", 0, 0.3, "estimate"),
        of_seed("bound on log p(x) gap", 0, 0.1, "exact"), of_seed("ELBO", 0, -90.0, "lower_bound",
                                                                   "nats"),
        of_seed("parameters", 0, 7, "exact", "count"), of_seed("training time", 0, 60.0, "estimate",
                                                               "s"),
    ]  # fmt: skip
    write(family, study(*one))
    elbo, exact = collect.rows(family)
    assert (elbo["name"], elbo["over"], elbo["n"]) == ("ELBO", "images", 300)
    assert (elbo["above_exact"], elbo["above_exact_error"]) == (0.1, 0.01)
    assert (elbo["parameters"], elbo["training_seconds"], elbo["seconds_per_image"]) == (7, 60, 0.5)
    assert (exact["kind"], exact["above_exact"], exact["at"]["model"]) == ("exact", None, "m")
    summary = row("ELBO", {"model": "m"}, kind="upper_bound", unit=UNIT, value=2.1,
                  standard_error=0.05, n=2)  # fmt: skip
    write(family, study(of_seed("ELBO", 0, 2.0), of_seed("ELBO", 1, 2.2), summary))
    (both,) = collect.rows(family)
    assert (both["value"], both["standard_error"], both["over"]) == (2.1, 0.05, "seeds")


def test_rows_of_a_vae_change_sides_with_the_unit(tmp_path):
    config = ConfigDict({"objective": "iwae", "num_samples": 20, "dataset": "digits",
                         "data_dir": ""})  # fmt: skip
    folder = str(tmp_path)
    family = families.Family("VAE", "train", config, folder, True, config, folder)
    nats = 64 * math.log(2)

    def measured(name, value, kind, at, data="test"):
        return row(name, at, kind=kind, unit="nats", value=value * nats, standard_error=nats / 10,
                   n=50, data=data, seconds=5.0)  # fmt: skip

    write(family, {"rows": [
        measured("ELBO", -2.5, "lower_bound", {"K": 1}),
        measured("IWAE", -2.2, "lower_bound", {"K": 64}),
        measured("IWAE", -2.4, "lower_bound", {"K": 1}),  # the ELBO again, of other draws
        measured("VR-IWAE", -2.3, "lower_bound", {"K": 64, "alpha": 0.5}),
        measured("-KL", -0.1, "estimate", {"K": 64}),
        measured("AIS", -2.1, "lower_bound", {"T": 9, "chains": 2, "data": "simulated"},
                 "simulated"),
        measured("reverse AIS (BDMC)", -2.0, "upper_bound", {"T": 9, "data": "simulated"},
                 "simulated"),
        measured("AIS gap", 0.1, "estimate", {"T": 9, "data": "simulated"}, "simulated"),
        row("parameters", {}, kind="exact", unit="count", value=12),
    ]})  # fmt: skip
    found = collect.rows(family)
    assert [(r["name"], r["kind"], round(r["value"], 6)) for r in found] == [
        ("ELBO", "upper_bound", 2.5), ("IWAE-64", "upper_bound", 2.2),
        ("VR-IWAE-64, alpha = 0.5", "upper_bound", 2.3),
        ("AIS, 9 temperatures, of simulated data", "upper_bound", 2.1),
        ("reverse AIS (BDMC), 9 temperatures, of simulated data", "lower_bound", 2.0),
    ]  # fmt: skip
    assert {r["unit"] for r in found} == {UNIT}
    np.testing.assert_allclose([r["standard_error"] for r in found], 0.1)
    assert {(r["parameters"], r["at"]["model"]) for r in found} == {(12, "iwae-20")}
    assert found[0]["seconds_per_image"] == 0.1
    assert (found[-1]["ais_above"], found[-1]["ais_above_error"]) == pytest.approx((0.1, 0.1))


def bits(name, kind, value, error=0.01, model="m", **extra):
    return row(name, {"family": "F", "model": model}, kind=kind, unit=UNIT, value=value,
               standard_error=error, n=9, **extra)  # fmt: skip


def test_a_bound_on_the_wrong_side_of_an_exact_value_is_an_error():
    exact = bits("exact", "exact", 2.0)
    good = bits("ELBO", "upper_bound", 1.97)  # below by chance: 2.1 standard errors
    collect.complain([exact, good])
    bad = bits("ELBO", "upper_bound", 1.95)
    with pytest.raises(UserError, match=r"F m: exact .* 3\.5 standard errors off"):
        collect.complain([exact, bad])
    collect.complain([exact, bits("ELBO", "upper_bound", 1.0, model="another")])
    collect.complain([exact, bits("ELBO", "upper_bound", 1.0, data="simulated")])
    # Image by image the difference is known better than either mean.
    paired = bits("ELBO", "upper_bound", 1.97, above_exact=-0.03, above_exact_error=0.001)
    assert [score for *_, score in collect.contradictions([exact, paired])] == [pytest.approx(30)]
    with pytest.raises(UserError, match="reverse"):
        collect.complain([bits("reverse AIS", "lower_bound", 2.1), bits("AIS", "upper_bound", 2.0)])
    assert report.checked([exact, bad]) != report.checked([exact, good])
    # On the same images the sandwich is known better than its two means.
    reverse = bits("reverse AIS", "lower_bound", 2.02, ais_above=-0.02, ais_above_error=0.001)
    with pytest.raises(UserError, match=r"20\.0 standard errors"):
        collect.complain([reverse, bits("AIS", "upper_bound", 2.0)])
    # Neither rounding nor a single image contradicts anything.
    collapsed = bits("ELBO", "upper_bound", 2.0, above_exact=-1e-8, above_exact_error=2e-9)
    collect.complain([exact, collapsed])
    collect.complain([exact, bits("ELBO", "upper_bound", 1.0, error=None)])


@pytest.mark.parametrize(("kind", "side"), [("upper_bound", "<"), ("lower_bound", ">")])
def test_figure_points_to_where_the_truth_is(kind, side):
    figure = report.figure([bits("ELBO", kind, 2.0)], compare_digits.get_config())
    points: Any = figure.axes[0].containers[0]
    assert points.lines[0].get_marker() == side
    assert ("left" if side == "<" else "right") in points.get_label()
    report.plots.plt.close(figure)


@pytest.mark.parametrize("count", [1, 3, 25])
def test_figure_hides_no_text_behind_another(count):
    """Names of exact values that lie close together, and legends, whatever the rows are."""
    rows = []
    for i in range(count):
        at = {"family": "Exact", "model": f"model {i}"}
        rows.append(bits("exact", "exact", 2.0 + 1e-4 * i) | {"at": at})
        rows += [bits("IW", "upper_bound", 2.1 + 0.01 * k) | {"at": {**at, "k": k}} for k in (1, 2)]
    figure = report.figure(rows, compare_digits.get_config())
    figure.canvas.draw()
    for axes in figure.axes:
        legend: Any = axes.get_legend()
        texts = list(legend.get_texts())
        texts += [axes.xaxis.label, *axes.texts, *axes.get_xticklabels()]
        boxes = [t.get_window_extent() for t in texts if t.get_text()]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])
        # Under the axes: neither points nor curves lie behind it.
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())
        assert legend.get_window_extent().y0 >= 0
    named = [v for v in figure.axes[1].lines if str(v.get_label()).endswith(", exact")]
    looks = {(v.get_color(), v.get_linestyle()) for v in named}
    assert len(named) == count
    assert len(looks) == min(count, 21)  # told apart, up to seven colours of three kinds
    report.plots.plt.close(figure)


def changed(tmp_path, **entry):
    config: Any = compare_digits.get_config()
    config.order = ("VAE",)
    for field, value in entry.items():
        config.families.VAE[field] = value
    return families.check(config, str(tmp_path))


MISTAKES = {
    "program": ({"program": "snr"}, "program must be one of train, dequantize"),
    "file": ({"config": "configs/nothing.py"}, "config file configs/nothing.py is not there"),
    "variant": ({"config": "configs/train_mnist.py:long"}, "the variant must be one of short"),
    "field": ({"changes": {"latent": (3,)}}, "has no field 'latent'"),
    "type": ({"changes": {"num_steps": "many"}}, "num_steps of configs/train_digits.py must be"),
    "pixels": ({"changes": {"likelihood": "bernoulli"}}, "models binarised pixels"),
    "data": ({"changes": {"dataset": "digits"}}, "is of 'digits', this comparison of"),
    "model": (
        {"changes": {"latents": (0,), "likelihood": "categorical"}},
        "config.families.VAE: config.latents",
    ),
    "scoring": ({"evaluation_changes": {"curve_samples": (3,)}}, "VAE: config.curve_samples must"),
    "split": ({"evaluation_changes": {"split": "validation"}}, "a comparison is of test images"),
    "other program": (
        {"config": "configs/diffusion_digits.py", "changes": {}},
        "not one of experiments.train",
    ),
    "no file": ({"config": ""}, "a config file must be named"),
    "run": ({"run": "nowhere"}, r"VAE.run must be the --workdir of a run of experiments.train"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_before_anything_is_trained(name, tmp_path):
    flags.FLAGS.mark_as_parsed()
    entry, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        changed(tmp_path, **entry)
    assert not os.listdir(tmp_path)


def test_names_of_families_are_checked(tmp_path):
    flags.FLAGS.mark_as_parsed()
    config: Any = compare_digits.get_config()
    config.order = ("VAE", "GAN")
    with pytest.raises(UserError, match="names 'GAN', which is none of"):
        families.check(config, str(tmp_path))
    config.order = ()
    with pytest.raises(UserError, match=r"config.order must not be empty"):
        families.check(config, str(tmp_path))
    config.families["Flow++"] = config.families.Flow
    config.order = ("Flow++",)
    with pytest.raises(UserError, match="use letters, digits and _ only, and `title` for"):
        families.check(config, str(tmp_path))
    config.order = ("Flow",)
    assert families.check(config, str(tmp_path))[0].name == "Flow++"
    config.order = ("VAE",)
    config.families.VAE["colour"] = "red"
    with pytest.raises(UserError, match="has colour; it takes title, program"):
        families.check(config, str(tmp_path))


OF_DVAE = {
    "enlarged": ({"enlarge": 2}, "models enlarged images"),
    "density": ({"likelihood": "logit_laplace"}, "models real numbers"),
    "models": ({"models": 5}, "models of configs/dalle_digits.py must be a dict, got 5"),
    "field": (
        {"models": {"beta1": {"betta": 1.0}}, "compare": ()},
        "dVAE: config.models.beta1 sets betta",
    ),
}


@pytest.mark.parametrize("name", OF_DVAE)
def test_models_of_something_else_are_refused(name, tmp_path):
    flags.FLAGS.mark_as_parsed()
    changes, message = OF_DVAE[name]
    config: Any = compare_digits.get_config()
    config.order, config.families.dVAE.changes = ("dVAE",), changes
    with pytest.raises(UserError, match=message):
        families.check(config, str(tmp_path))


@pytest.mark.parametrize("variant", compare_images.VARIANTS)
def test_configs_of_images_fit_their_programs(variant, tmp_path, monkeypatch):
    flags.FLAGS.mark_as_parsed()
    monkeypatch.setattr(families.needs, "check_settings", lambda *_: None)  # without the data
    chosen = families.check(compare_images.get_config(variant), str(tmp_path))
    assert {f.config.dataset for f in chosen} == {variant}
    assert len(chosen) == (4 if variant == "cifar10" else 5)


def small(**changes):
    """Two families whose programs compile fast, for a few steps."""
    config: Any = compare_digits.get_config()
    config.order = ("VAE", "Exact")
    vae, exact = config.families.VAE, config.families.Exact
    steps = {"num_steps": 4, "log_every": 2, "save_every": 4}
    vae.changes = {**vae.changes.to_dict(), **steps, "latents": (2,), "hidden": ((8,),),
                   "objective": "elbo", "num_samples": 1, "test_samples": 16,
                   "validation_samples": 2}  # fmt: skip
    vae.evaluation_changes = {
        "ais_test_images": 6, "simulated_images": 6, "num_images": 6, "num_samples": 32,
        "curve_samples": (1, 8), "ais_temperatures": 5, "ais_chains": 2, "ais_leapfrog": 1,
        "few_samples": 4,
    }  # fmt: skip
    exact.changes = {
        **exact.changes.to_dict(), **steps, "evaluation_images": 6, "evaluation_samples": (1, 4),
        "refit_steps": 2, "models": {"subset_flow": {
            "density": "subset_flow", "width": 8, "refit_noise": "logistic", "noise_width": 8,
            "noise": "logistic", "num_components": 2, "noise_layers": 1, "num_layers": 1}},
    }  # fmt: skip
    for name, value in changes.items():
        config[name] = value
    return config


def test_a_small_comparison_and_again_from_what_it_left(tmp_path, capsys, monkeypatch):
    flags.FLAGS.mark_as_parsed()
    workdir = str(tmp_path / "compare")
    compare.main(small(), workdir)
    printed = capsys.readouterr().out
    assert "contradict each other" in printed
    with open(os.path.join(workdir, results.FILE)) as file:
        record = json.load(file)
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
    compare.main(small(), workdir)
    with open(os.path.join(workdir, results.FILE)) as file:
        again = json.load(file)
    assert {r["name"]: r for r in again["rows"]} == before
    monkeypatch.setattr(collect, "contradictions", lambda rows: [(rows[0], rows[1], 9.0)])
    with pytest.raises(UserError, match=r"9\.0 standard errors off"):
        compare.main(small(order=("Exact",)), workdir)
    monkeypatch.undo()
    taken = small(order=("Exact",))
    taken.families.Exact.run = os.path.join(workdir, "Exact")
    other = str(tmp_path / "other")
    compare.main(taken, other)
    with open(os.path.join(other, results.FILE)) as file:
        elsewhere = json.load(file)
    values = [r["value"] for r in again["rows"] if r["at"]["family"] == "Exact"]
    assert [r["value"] for r in elsewhere["rows"]] == values
    assert not os.path.exists(os.path.join(other, "Exact"))


def test_a_folder_that_is_no_finished_run_of_the_family_is_refused(tmp_path):
    flags.FLAGS.mark_as_parsed()
    folder = tmp_path / "diffusion"
    folder.mkdir()
    record = {"experiment": "diffusion", "config": {"dataset": "digits_shuffled"}}
    record["rows"] = [of_seed("ELBO", 0, 2.0)]  # of a point; the summary is not there yet
    (folder / results.FILE).write_text(json.dumps(record))
    config: Any = compare_digits.get_config()
    config.order, config.families.Exact.run = ("Exact",), str(folder)
    with pytest.raises(UserError, match=r"run is of experiments.diffusion, not dequantize"):
        families.check(config, str(tmp_path))
    config.families.Exact.program = "diffusion"
    with pytest.raises(UserError, match=r"has not come to its end; run experiments.diffusion"):
        families.check(config, str(tmp_path))
    record["rows"].append(row("KL", {"model": "m"}, kind="estimate", unit="nats", value=1.0))
    (folder / results.FILE).write_text(json.dumps(record))
    (chosen,) = families.check(config, str(tmp_path))
    record["rows"] = record["rows"][1:]
    (folder / results.FILE).write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"has no bound on log P\(x\) of images"):
        collect.rows(chosen)
    del record["rows"]
    (folder / results.FILE).write_text(json.dumps(record))
    with pytest.raises(UserError, match="has no readable results"):
        families.check(config, str(tmp_path))
