"""experiments.compare: what it collects, how it is checked, and the figure."""

import math
from typing import Any

import numpy as np
import pytest

from experiments.compare import consistency, report
from experiments.runtime import results, settings, subprograms
from experiments.runtime.errors import UserError
from experiments.runtime.results import row
from experiments.studies import comparable
from experiments.studies.family import Job
from experiments.studies.study import UNIT
from experiments.vae import family as vae
from experiments.vae.settings import Train


def of_seed(name, seed, value, kind="upper_bound", unit=UNIT, **extra):
    at = {"model": "m", "seed": seed, **extra.pop("at", {})}
    return row(
        name, at, kind=kind, unit=unit, value=value, standard_error=0.01, n=300, point="m", **extra
    )


def test_one_seed_has_its_errors_over_images_and_several_over_seeds():
    one = [
        of_seed("ELBO", 0, 2.0, at={"k": 1, "noise": "flow"}, seconds_per_image=0.5),
        of_seed("ELBO gap", 0, 0.1, "estimate", at={"k": 1, "noise": "flow"}, gap_of="ELBO"),
        of_seed("exact", 0, 1.9, "exact", at={"noise": "flow"}),
        of_seed("joint bound", 0, 9.0),
        of_seed("KL of a step", 0, 0.3, "estimate", "nats"),
        # None of these bounds log P(x) of images.
        of_seed("log p(x, y)", 0, 8.0, "exact"),
        of_seed("prior", 0, 0.3, "estimate"),
        of_seed("bound on log p(x) gap", 0, 0.1, "exact", gap_of="bound on log p(x)"),
        of_seed("ELBO", 0, -90.0, "lower_bound", "nats"),
        of_seed("parameters", 0, 7, "exact", "count"),
        of_seed("training time", 0, 60.0, "estimate", "s"),
    ]
    elbo, exact = comparable.rows(one)
    assert (elbo["name"], elbo["over"], elbo["n"]) == ("ELBO", "images", 300)
    assert (elbo["above_exact"], elbo["above_exact_error"]) == (0.1, 0.01)
    assert (elbo["parameters"], elbo["training_seconds"], elbo["seconds_per_image"]) == (7, 60, 0.5)
    assert (exact["kind"], exact["above_exact"], exact["at"]["model"]) == ("exact", None, "m")
    summary = row(
        "ELBO", {"model": "m"}, kind="upper_bound", unit=UNIT, value=2.1, standard_error=0.05, n=2
    )
    (both,) = comparable.rows([of_seed("ELBO", 0, 2.0), of_seed("ELBO", 1, 2.2), summary])
    assert (both["value"], both["standard_error"], both["over"]) == (2.1, 0.05, "seeds")


def test_rows_of_a_vae_change_sides_with_the_unit(tmp_path):
    changes = {"model": {"likelihood": "categorical"}}
    trained = settings.parse(Train, subprograms.load_config("configs/train_digits.py", changes))
    folder = str(tmp_path)
    job = Job("VAE", trained, folder, True, None, folder)
    nats = 64 * math.log(2)

    def measured(name, value, kind, at, data="test"):
        return row(
            name,
            at,
            kind=kind,
            unit="nats",
            value=value * nats,
            standard_error=nats / 10,
            n=50,
            data=data,
            seconds=5.0,
        )

    results.save_record(
        folder,
        {
            "rows": [
                measured("ELBO", -2.5, "lower_bound", {"K": 1}),
                measured("IWAE", -2.2, "lower_bound", {"K": 64}),
                measured("IWAE", -2.4, "lower_bound", {"K": 1}),  # the ELBO again, of other draws
                measured("VR-IWAE", -2.3, "lower_bound", {"K": 64, "alpha": 0.5}),
                measured("-KL", -0.1, "estimate", {"K": 64}),
                measured(
                    "AIS",
                    -2.1,
                    "lower_bound",
                    {"T": 9, "chains": 2, "data": "simulated"},
                    "simulated",
                ),
                measured(
                    "reverse AIS (BDMC)",
                    -2.0,
                    "upper_bound",
                    {"T": 9, "data": "simulated"},
                    "simulated",
                ),
                measured("AIS gap", 0.1, "estimate", {"T": 9, "data": "simulated"}, "simulated"),
                row("parameters", {}, kind="exact", unit="count", value=12),
            ]
        },
    )
    found = vae.rows(job)
    assert [(r["name"], r["kind"], round(r["value"], 6)) for r in found] == [
        ("ELBO", "upper_bound", 2.5),
        ("IWAE-64", "upper_bound", 2.2),
        ("VR-IWAE-64, alpha = 0.5", "upper_bound", 2.3),
        ("AIS, 9 temperatures, of simulated data", "upper_bound", 2.1),
        ("reverse AIS (BDMC), 9 temperatures, of simulated data", "lower_bound", 2.0),
    ]
    assert {r["unit"] for r in found} == {UNIT}
    np.testing.assert_allclose([r["standard_error"] for r in found], 0.1)
    assert {(r["parameters"], r["at"]["model"]) for r in found} == {(12, "iwae-20")}
    assert found[0]["seconds_per_image"] == 0.1
    assert (found[-1]["ais_above"], found[-1]["ais_above_error"]) == pytest.approx((0.1, 0.1))


def bits(name, kind, value, error=0.01, model="m", **extra):
    return row(
        name,
        {"family": "F", "model": model},
        kind=kind,
        unit=UNIT,
        value=value,
        standard_error=error,
        n=9,
        **extra,
    )


def test_a_bound_on_the_wrong_side_of_an_exact_value_is_an_error():
    exact = bits("exact", "exact", 2.0)
    good = bits("ELBO", "upper_bound", 1.97)  # below by chance: 2.1 standard errors
    consistency.complain([exact, good])
    bad = bits("ELBO", "upper_bound", 1.95)
    with pytest.raises(UserError, match=r"F m: exact .* 3\.5 standard errors off"):
        consistency.complain([exact, bad])
    consistency.complain([exact, bits("ELBO", "upper_bound", 1.0, model="another")])
    consistency.complain([exact, bits("ELBO", "upper_bound", 1.0, data="simulated")])
    # Image by image the difference is known better than either mean.
    paired = bits("ELBO", "upper_bound", 1.97, above_exact=-0.03, above_exact_error=0.001)
    assert [score for *_, score in consistency.contradictions([exact, paired])] == [
        pytest.approx(30)
    ]
    with pytest.raises(UserError, match="reverse"):
        consistency.complain(
            [bits("reverse AIS", "lower_bound", 2.1), bits("AIS", "upper_bound", 2.0)]
        )
    assert report.checked([exact, bad]) != report.checked([exact, good])
    # On the same images the sandwich is known better than its two means.
    reverse = bits("reverse AIS", "lower_bound", 2.02, ais_above=-0.02, ais_above_error=0.001)
    with pytest.raises(UserError, match=r"20\.0 standard errors"):
        consistency.complain([reverse, bits("AIS", "upper_bound", 2.0)])
    # Neither rounding nor a single image contradicts anything.
    collapsed = bits("ELBO", "upper_bound", 2.0, above_exact=-1e-8, above_exact_error=2e-9)
    consistency.complain([exact, collapsed])
    consistency.complain([exact, bits("ELBO", "upper_bound", 1.0, error=None)])


@pytest.mark.parametrize(("kind", "side"), [("upper_bound", "<"), ("lower_bound", ">")])
def test_figure_points_to_where_the_truth_is(kind, side):
    figure = report.figure([bits("ELBO", kind, 2.0)], "digits_shuffled")
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
    figure = report.figure(rows, "digits_shuffled")
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
