"""Published numbers beside ours: what the table says of the parts that are there."""

import contextlib
import json
import math
import time

import numpy as np
import pytest

from experiments.reproduced import __main__ as program
from experiments.reproduced import programs, published, report, spent, table
from experiments.reproduced.settings import Reproduced
from experiments.runtime import results, settings, subprograms
from experiments.runtime.errors import UserError
from experiments.studies.held_out import mean_row

SMALL = {
    "toy": {"num_data": 16, "num_dims": 2}, "num_samples": (16, 64), "elbo": False,
    "estimators": ("pathwise", "dreg"),
    "replicates": {"number": 200, "num_blocks": 10}, "fit": {"first_dreg": 10},
}  # fmt: skip


_CODES = "codes used: beta = 6.6 above 1"


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
    # Of K = 50 there is one seed: images of that seed, of both.
    single = of(rows, "VAE, K = 50, above VAE, K = 5")
    assert (single["over"], single["verdict"]) == ("images", "undecided")
    assert single["value"] == pytest.approx(-87.2 + 87.0)
    of_images = 0.3 * math.sqrt(4 / 3) / 2
    assert single["standard_error"] == pytest.approx(math.sqrt(2) * of_images)
    assert of(rows, "IWAE, K = 50, above VAE, K = 50")["verdict"] == "confirmed, one seed"


def test_two_numbers_of_one_model_may_err_in_opposite_ways(tmp_path):
    """Of models that were not trained there is no other seed; an order of sizes is of both."""
    rows = [
        results.row(f"gap minus that of {form}", {"D": 200, "alpha": 0.0, "K": 1024},
                    kind="estimate", unit="nats", value=value, standard_error=0.3)
        for form, value in (("1/K", -9.0), ("weight collapse", 4.0))
    ]  # fmt: skip
    (tmp_path / "daudel_linear").mkdir()
    (tmp_path / "daudel_linear/results.json").write_text(
        json.dumps({"rows": rows, "environment": {}})
    )
    (found,) = (
        r for r in table.rows(str(tmp_path), ("daudel_linear",)) if "verdict" in r
    )  # fmt: skip
    assert (found["value"], found["verdict"]) == (5.0, "confirmed")
    assert found["standard_error"] == pytest.approx(0.6)


def test_a_model_that_diverged_stays_in_the_table_and_decides_nothing(tmp_path):
    write(tmp_path / "burda_k5", {("elbo", 5): (-87.0, -87.4), ("iwae", 5): (-80.0, math.nan)})
    rows = table.rows(str(tmp_path), ("burda_k5",))
    assert of(rows, "IWAE, K = 5")["value"] is None
    assert of(rows, "IWAE, K = 5, above VAE, K = 5")["verdict"] == "undecided"
    text = "\n".join(report.markdown(rows, {}))
    assert "| IWAE, K = 5 | -85.54 | not finite | nats |" in text


def test_a_number_without_an_error_has_no_difference_in_errors(tmp_path):
    row = results.row(
        "IWAE-64", {"objective": "iwae", "M": 1, "K": 64}, kind="lower_bound", unit="nats",
        value=-90.0,
    )  # fmt: skip
    (tmp_path / "rainforth_table").mkdir()
    (tmp_path / "rainforth_table/results.json").write_text(
        json.dumps({"rows": [row], "environment": {}})
    )
    (found,) = table.rows(str(tmp_path), ("rainforth_table",))
    assert (found["published_error"], found["z_score"]) == (0.05, None)


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
            for model, count in (("one", 17), ("paper", 60)) for seed in seeds
        ]  # fmt: skip
        (tmp_path / "dalle_beta").mkdir(exist_ok=True)
        found = json.dumps({"rows": rows, "environment": {}})
        (tmp_path / "dalle_beta/results.json").write_text(found)
        return of(table.rows(str(tmp_path), ("dalle_beta",)), _CODES)

    alone = record(0)
    assert (alone["value"], alone["verdict"], alone["standard_error"]) == (43, "undecided", None)
    assert record(0, 1)["verdict"] == "undecided"  # 43 twice


def test_a_count_of_one_seed_decides_nothing(tmp_path):
    """Its error over images is next to nothing, and another seed has two units more."""
    for k, count in ((5, 22), (50, 25)):
        at = {"objective": "iwae", "M": 1, "K": k, "seed": 0}
        found = results.row(
            "active units, layer 1", at, kind="estimate", unit="units", value=count,
            standard_error=0.2, n=10_000,
        )  # fmt: skip
        (tmp_path / f"burda_k{k}").mkdir()
        (tmp_path / f"burda_k{k}/results.json").write_text(
            json.dumps({"rows": [{**found, "point": f"iwae_K{k}_seed0"}], "environment": {}})
        )
    rows = table.rows(str(tmp_path), ("burda_k5", "burda_k50"))
    order = next(r for r in rows if r["unit"] == "units" and "verdict" in r)
    assert (order["value"], order["published"], order["verdict"]) == (3, 3, "undecided")
    assert (order["standard_error"], order["z_score"]) == (None, None)


def test_seeds_that_agree_by_chance_have_no_error(tmp_path):
    write(tmp_path / "burda_k1", {("elbo", 1): (-88.0, -88.0)})
    found = of(table.rows(str(tmp_path), ("burda_k1",)), "VAE, K = 1")
    assert (found["standard_error"], found["z_score"], found["over"]) == (None, None, "")
    text = "\n".join(report.markdown([found], {}))
    assert "| VAE, K = 1 | -86.76 | -88 | nats |  |  |  | burda_k1 |" in text


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
    # The paper has standard deviations of four runs.
    assert (gap, error) == (pytest.approx(-1.28 + 1.59), pytest.approx(math.hypot(0.09, 0.10) / 2))
    assert found["published_error"] == 0.05
    assert found["z_score"] == pytest.approx((-86.1 + 86.11) / math.hypot(0.1, 0.05))


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
    own = of(results.load(str(tmp_path / "toy"))["rows"], "slope of theta pathwise")
    assert slope["standard_error"] == pytest.approx((own["high"] - own["low"]) / 3.92)
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
    curves = {name: [(10, -2.0), (20, -1.0)] for name in names}
    curves["iwae_K50_seed0"] = [(3, -50.0), *curves["iwae_K50_seed0"]]  # stopped at step 3
    axes = report.draw(curves).axes[0]
    assert all(list(line.get_xdata()) == [10, 20] for line in axes.lines)
    looks = [(line.get_color(), line.get_linestyle()) for line in axes.lines]
    assert looks[1] == looks[2]
    assert len(set(looks)) == 4
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert told == ["dreg, K = 5", "iwae, K = 5", "iwae, K = 50", "elbo, K = 1"]


def test_the_time_of_a_part_adds_up_also_where_it_was_stopped(tmp_path):
    write(tmp_path / "burda_k1", {("elbo", 1): (-88.0, -88.2)})
    # What ran before anything was timed is not told as what ran since.
    with spent.timed(str(tmp_path / "burda_k1")):
        pass
    assert "minutes" not in table.measured_on(str(tmp_path), ("burda_k1",))["burda_k1"]
    (tmp_path / "burda_k1").rename(tmp_path / "other")
    with spent.timed(str(tmp_path / "burda_k1")):
        (tmp_path / "other").rename(tmp_path / "burda_k1")
    for stopped in (True, False):
        with contextlib.suppress(KeyboardInterrupt), spent.timed(str(tmp_path / "burda_k1")):
            time.sleep(0.1)
            if stopped:
                raise KeyboardInterrupt
    found = table.measured_on(str(tmp_path), ("burda_k1",))["burda_k1"]
    assert found["minutes"] >= 0.2 / 60
    assert found["cpu_minutes"] < 0.1 / 60  # asleep
    *_, parts = report.markdown([], {"burda_k1": found})
    assert f"| `burda_k1` | {found['minutes']:.3g} | {found['cpu_minutes']:.3g} |" in parts


def test_a_part_that_ends_with_an_error_leaves_the_others_and_the_table(
    tmp_path, capsys, monkeypatch
):
    write(tmp_path / "burda_k1", {("elbo", 1): (-88.0, -88.2)})
    started = []

    def main(asked, folder):
        started.append(folder)
        if len(started) == 1:
            raise UserError("the inverse of the flow did not converge")

    for name in ("dequantize", "snr"):
        kind = programs.PROGRAMS[name]
        monkeypatch.setitem(programs.PROGRAMS, name, (main, kind[1]))
    with pytest.raises(UserError, match=r"^flowpp_mnist: the inverse of the flow"):
        program.main(asked(order=("flowpp_mnist", "toy")), str(tmp_path))
    assert [folder.rsplit("/")[-1] for folder in started] == ["flowpp_mnist", "toy"]
    assert "| VAE, K = 1 | -86.76 |" in capsys.readouterr().out
    assert "| VAE, K = 1 | -86.76 |" in (tmp_path / report.TABLE).read_text()


@pytest.mark.parametrize("content", ['{"rows": [', "[]", "{}"])
def test_damaged_results_of_a_part_are_named(content, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/results.json").write_text(content)
    (tmp_path / "toy/taken.json").write_text(content)  # costs no more than itself
    with pytest.raises(UserError, match=r"toy/results\.json is damaged; move .*toy away"):
        table.rows(str(tmp_path), ("toy",))
    with spent.timed(str(tmp_path / "toy")):
        pass


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
