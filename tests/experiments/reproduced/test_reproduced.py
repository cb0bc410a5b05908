"""Published numbers beside ours: what the table says of the parts that are there."""

import contextlib
import json
import math
import time

import numpy as np
import pytest

from experiments.reproduced import __main__ as program
from experiments.reproduced import programs, published, report, table
from experiments.reproduced.settings import Reproduced
from experiments.runtime import results, settings, subprograms
from experiments.runtime.errors import UserError
from experiments.studies.held_out import mean_row

SMALL = {
    "toy": {"num_data": 16, "num_dims": 2}, "num_samples": (16, 64), "elbo": False,
    "estimators": ("pathwise", "dreg"),
    "replicates": {"number": 200, "num_blocks": 10}, "fit": {"first_dreg": 10},
}  # fmt: skip


_CODES = "codes used: beta = 6.6/192 above 1/192"


def asked(**changes):
    return settings.parse(Reproduced, subprograms.load_config("configs/reproduced.py", changes))


def write(folder, values, n_images=4):
    """Results of `reference`: (objective, K) -> the value of each seed."""
    rows, summary = [], []
    for (objective, k), seeds in values.items():
        at = {"objective": objective, "M": 1, "K": k}
        for seed, value in enumerate(seeds):
            images = [value - 0.3, value + 0.3] * (n_images // 2)
            of_seed = mean_row("IWAE-5000", {**at, "seed": seed}, images, "lower_bound")
            rows.append({**of_seed, "point": f"{objective}{k}{seed}"})
        summary.append(mean_row("IWAE-5000", at, list(seeds), "lower_bound"))
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"rows": rows + summary, "environment": {}}))


@pytest.fixture
def rows(tmp_path):
    write(tmp_path / "burda_k1", {("elbo", 1): (-88.0, -88.2)})
    write(tmp_path / "burda_k5", {("elbo", 5): (-87.0, -87.4), ("iwae", 5): (-87.3, -87.7)})
    write(tmp_path / "burda_k50", {("elbo", 50): (-87.2,), ("iwae", 50): (-86.0,)})
    return table.rows(str(tmp_path), tuple(asked().parts))


def of(rows, name):
    return next(r for r in rows if r["name"] == name)


def test_a_number_stands_beside_ours_with_its_difference_in_standard_errors(rows):
    found = of(rows, "VAE, K = 1")
    assert (found["published"], found["over"], found["n"]) == (-86.76, "seeds", 2)
    assert found["value"] == pytest.approx(-88.1)
    assert found["standard_error"] == pytest.approx(0.1)
    assert found["z_score"] == pytest.approx((-88.1 + 86.76) / 0.1)
    # Of a single seed there is only what its images say.
    single = of(rows, "IWAE, K = 50")
    assert (single["over"], single["n"]) == ("images", 4)
    assert single["standard_error"] == pytest.approx(0.3 * math.sqrt(4 / 3) / 2)


def test_an_order_is_confirmed_or_refuted_or_undecided_by_pairs_of_seeds(rows):
    refuted = of(rows, "IWAE, K = 5, above VAE, K = 5")
    assert refuted["value"] == pytest.approx(-0.3)
    assert refuted["over"] == "seeds, paired"
    # Of the same difference in two seeds no error is known.
    assert (refuted["standard_error"], refuted["verdict"]) == (None, "undecided")
    confirmed = of(rows, "IWAE, K = 5, above VAE, K = 1")  # .7 and .5
    assert confirmed["standard_error"] == pytest.approx(0.1)
    assert confirmed["verdict"] == "undecided"  # six errors, of two seeds
    # The published gap of both, which is what the difference is counted from.
    assert confirmed["published"] == pytest.approx(-85.54 + 86.76)
    assert confirmed["z_score"] == pytest.approx((0.6 - 1.22) / 0.1)
    unpaired = of(rows, "VAE, K = 50, above VAE, K = 5")
    assert (unpaired["over"], unpaired["verdict"]) == ("images and seeds", "undecided")
    assert of(rows, "IWAE, K = 50, above VAE, K = 50")["verdict"] == "confirmed, one seed"


def test_seeds_of_a_part_that_goes_on_are_taken_together(tmp_path):
    write(tmp_path / "burda_k1", {("elbo", 1): (-88.0, -88.2)})
    path = tmp_path / "burda_k1/results.json"
    whole = json.loads(path.read_text())
    points = [r for r in whole["rows"] if "point" in r]
    path.write_text(json.dumps({**whole, "rows": points}))
    found = of(table.rows(str(tmp_path), ("burda_k1",)), "VAE, K = 1")
    assert (found["over"], found["n"]) == ("seeds", 2)
    assert found["value"] == pytest.approx(-88.1)
    assert found["standard_error"] == pytest.approx(0.1)


def test_an_order_by_few_seeds_is_decided_as_seldom_by_chance_as_one_by_many(tmp_path):
    """Two in a hundred each way; by two standard errors of two seeds it were fifteen."""
    draws = np.random.default_rng(0).normal(size=(400, 2, 2))
    verdicts = []
    for number, (above, below) in enumerate(draws):
        folder = tmp_path / str(number)
        write(folder / "burda_k5", {("elbo", 5): tuple(below), ("iwae", 5): tuple(above)})
        found = table.rows(str(folder), ("burda_k5",))
        verdicts.append(of(found, "IWAE, K = 5, above VAE, K = 5")["verdict"])
    decided = np.mean([v != "undecided" for v in verdicts])
    assert abs(decided - 0.0455) < 4 * math.sqrt(0.0455 * 0.9545 / 400)


def test_an_order_of_numbers_without_an_error_is_undecided(tmp_path):
    """Codes used, of one seed; or of two that differ by the same number."""

    def record(*seeds):
        rows = [
            results.row("codes used", {"model": model, "seed": seed}, kind="exact", unit="codes",
                        value=count + seed) | {"point": f"{model}{seed}"}
            for model, count in (("low", 17), ("paper", 60)) for seed in seeds
        ]  # fmt: skip
        (tmp_path / "dalle_beta").mkdir(exist_ok=True)
        found = json.dumps({"rows": rows, "environment": {}})
        (tmp_path / "dalle_beta/results.json").write_text(found)
        return of(table.rows(str(tmp_path), ("dalle_beta",)), _CODES)

    alone = record(0)
    assert (alone["value"], alone["verdict"], alone["standard_error"]) == (43, "undecided", None)
    assert record(0, 1)["verdict"] == "undecided"  # 43 twice


def test_a_count_of_one_seed_decides_nothing(tmp_path):
    """Its error over images is 0, and another seed has two units more."""
    for k, count in ((5, 22), (50, 25)):
        at = {"objective": "iwae", "M": 1, "K": k, "seed": 0}
        found = results.row(
            "active units, layer 1", at, kind="estimate", unit="units", value=count,
            standard_error=0.0, n=10_000,
        )  # fmt: skip
        (tmp_path / f"burda_k{k}").mkdir()
        (tmp_path / f"burda_k{k}/results.json").write_text(
            json.dumps({"rows": [{**found, "point": f"iwae_K{k}_seed0"}], "environment": {}})
        )
    rows = table.rows(str(tmp_path), ("burda_k5", "burda_k50"))
    order = next(r for r in rows if r["unit"] == "units" and "verdict" in r)
    assert (order["value"], order["published"], order["verdict"]) == (3, 3, "undecided")
    assert (order["standard_error"], order["z_score"]) == (None, None)


def test_an_error_that_was_published_counts(tmp_path):
    at = {"objective": "iwae", "M": 1, "K": 64}
    row = mean_row("IWAE-64", at, [-86.0, -86.2], "lower_bound")
    (tmp_path / "rainforth_table").mkdir()
    (tmp_path / "rainforth_table/results.json").write_text(
        json.dumps({"rows": [row], "environment": {}})
    )
    (found,) = table.rows(str(tmp_path), ("rainforth_table",))
    source = next(s for s in published.SOURCES if "Rainforth" in s.paper and "Table 1" in s.paper)
    order = next(o for o in source.orders if o.of == "-KL: PIWAE above IWAE")
    gap, error = table.published_difference(source, order)
    assert (gap, error) == (pytest.approx(-1.28 + 1.59), pytest.approx(math.hypot(0.09, 0.10)))
    assert found["published_error"] == 0.1
    assert found["z_score"] == pytest.approx((-86.1 + 86.11) / math.hypot(0.1, 0.1))


def test_every_place_is_in_a_part_that_runs():
    parts = asked().parts
    for source in published.SOURCES:
        places = [c.ours for c in source.claims]
        places += [p for o in source.orders for p in (o.above, o.below)]
        for place in places:
            part = parts[place.part]
            if part.program == "reference":
                entry = ":".join(
                    [place.at["objective"], *([str(place.at["M"])] * (place.at["M"] > 1)),
                     str(place.at["K"])]
                )  # fmt: skip
                job = programs.jobs(asked(order=(place.part,)), "")[place.part]
                assert entry in settings.dump(job.asked)["grid"]


def test_parts_run_and_are_there_when_others_do(tmp_path, capsys):
    parts = {"toy": {"changes": SMALL}}
    given = asked(parts=parts, order=("toy",))
    program.main(given, str(tmp_path))
    printed = capsys.readouterr().out
    first = results.load(str(tmp_path))["rows"]
    names = [r["name"] for r in first]
    assert "exponent of the SNR of theta in K, IWAE" in names
    # The interval of the program at 95%, as a standard error.
    slope = next(r for r in first if r["name"] == names[0])
    assert slope["over"] == "replicates"
    assert abs(slope["z_score"]) == pytest.approx(
        abs(slope["value"] - 0.5) / slope["standard_error"]
    )
    assert "| exponent of the SNR of theta in K, IWAE | 0.5 |" in printed
    assert (tmp_path / report.TABLE).read_text() in printed
    measured = (tmp_path / "toy/results.json").stat().st_mtime_ns
    write(tmp_path / "burda_k1", {("elbo", 1): (-88.0, -88.2)})
    program.main(given, str(tmp_path))
    assert (tmp_path / "toy/results.json").stat().st_mtime_ns >= measured
    again = results.load(str(tmp_path))["rows"]
    assert [r for r in again if r["part"] == "toy"] == first
    assert "VAE, K = 1" in [r["name"] for r in again]


def test_curves_of_a_model_are_drawn_alike_and_named_once():
    names = ("dreg_K5_seed0", "iwae_K5_seed0", "iwae_K5_seed1", "iwae_K50_seed0", "elbo_K1_seed0")
    axes = report.draw({name: [(10, -2.0), (20, -1.0)] for name in names}).axes[0]
    looks = [(line.get_color(), line.get_linestyle()) for line in axes.lines]
    assert looks[1] == looks[2]
    assert len(set(looks)) == 4
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert told == ["dreg, K = 5", "iwae, K = 5", "iwae, K = 50", "elbo, K = 1"]


def test_the_time_of_a_part_adds_up_also_where_it_was_stopped(tmp_path):
    write(tmp_path / "burda_k1", {("elbo", 1): (-88.0, -88.2)})
    assert "minutes" not in table.measured_on(str(tmp_path), ("burda_k1",))["burda_k1"]
    for stopped in (True, False):
        with contextlib.suppress(KeyboardInterrupt), table.timed(str(tmp_path / "burda_k1")):
            time.sleep(0.1)
            if stopped:
                raise KeyboardInterrupt
    found = table.measured_on(str(tmp_path), ("burda_k1",))["burda_k1"]
    assert found["minutes"] >= 0.2 / 60
    assert found["cpu_minutes"] < 0.1 / 60  # asleep
    *_, parts = report.markdown([], {"burda_k1": found})
    assert f"| `burda_k1` | {found['minutes']:.3g} | {found['cpu_minutes']:.3g} |" in parts


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parts": {"toy": {"program": "nope"}}}, r"parts\.toy\.program must be one of snr, "),
        ({"parts": {"toy": {"config": "nope.py"}}}, r"parts\.toy: config file nope\.py is not"),
        ({"parts": {"toy": {"changes": {"sed": 1}}}}, r"parts\.toy: .*sed"),
        ({"order": ("nope",)}, "order names 'nope', which is none of parts"),
    ],
)
def test_mistakes_are_told_before_anything_runs(changes, said, tmp_path):
    with pytest.raises(UserError, match=said) as error:
        program.main(asked(**{"order": ("toy",), **changes}), str(tmp_path / "new"))
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "new").exists()
