"""The program on few outcomes: what it sums is exact, and no estimate is called a bound."""

import math

import jax
import numpy as np
import pytest
from programs import read

from experiments.estimators import __main__ as program
from experiments.estimators import exact, problems, report
from experiments.estimators.settings import Estimators
from experiments.runtime import settings, subprograms
from experiments.runtime.errors import UserError


def asked(**changes):
    return settings.parse(Estimators, subprograms.load_config("configs/estimators.py", changes))


def of(rows, quantity, block):
    return next(r["value"] for r in rows if r["name"] == quantity and r["at"]["of"] == block)


@pytest.fixture(scope="module")
def found():
    """Problems by name, and rows of some estimators at K = 2."""
    with jax.enable_x64(True):
        by_name = {p.name: p for p in problems.problems(asked())}

        def rows(model, name, num_samples=2):
            with jax.enable_x64(True):
                return exact.estimator_rows(by_name[model], name, num_samples, 3000, {})

        yield by_name, rows


def test_what_is_unbiased_has_no_bias_and_what_is_not_has_one(found):
    _, rows = found
    discrete = "categorical, 4 states"
    for name in ("rloo, ELBO", "ovis, gamma 0"):
        assert max(of(rows(discrete, name), "bias", b) for b in ("theta", "phi")) < 1e-12
    for name in ("ovis, gamma 1", "tvo", "rws"):
        assert of(rows(discrete, name), "bias", "theta") < 1e-12
        assert of(rows(discrete, name), "bias", "phi") > 1e-3
    assert of(rows("Gaussian, near", "stl, IWAE"), "bias", "phi") > 1e-2
    assert of(rows("Gaussian, near", "dreg"), "bias", "phi") < 1e-8


def test_the_closed_forms_of_one_sample(found):
    """Per entry of q's mean the variance is 4 v, and that of STL 4 v - 4 + 1/v: 16 times less."""
    _, rows = found
    v, x = problems.VARIANCE, 1.5
    own = rows("Gaussian, near", "pathwise, ELBO", 1)
    np.testing.assert_allclose(of(own, "variance", "phi"), 4 * v * (1 + x**2), rtol=1e-9)
    np.testing.assert_allclose(of(own, "variance", "theta"), v, rtol=1e-9)
    stl = of(rows("Gaussian, near", "stl, ELBO", 1), "variance", "phi")
    np.testing.assert_allclose(of(own, "variance", "phi") / stl, 16, rtol=1e-9)
    # The mean gradient of the ELBO in b is -2 delta.
    np.testing.assert_allclose(of(own, "mean", "phi"), 0.2 * math.sqrt(1 + x**2), rtol=1e-9)


def test_disarm_is_there_where_z_is_bernoulli(found):
    by_name, _ = found
    with jax.enable_x64(True):
        own = exact.pair_rows(by_name["Bernoulli, 2 bits"], 2)
        assert max(of(own, "bias", b) for b in ("theta", "phi")) < 1e-12
        assert exact.pair_rows(by_name["Bernoulli, 2 bits"], 3) == []
        assert exact.pair_rows(by_name["categorical, 4 states"], 2) == []


def test_values_keep_their_kinds_and_their_order(found):
    by_name, _ = found
    with jax.enable_x64(True):
        problem = by_name["categorical, 4 states"]
        rows = exact.exact_rows(problem) + exact.value_rows(problem, 3, (0.0, 0.3, 1.0), 3000)
    by = {r["name"]: r for r in rows}
    log_p = by["log p(x)"]["value"]
    for name, row in by.items():
        if row["kind"] == "lower_bound":
            assert row["value"] <= log_p, name
        if row["kind"] == "upper_bound":
            assert row["value"] >= log_p, name
    order = ["ELBO", "left sum", "IWAE", "right sum"]
    assert np.all(np.diff([by[name]["value"] for name in order]) > 0)
    for name in ("right sum", "jackknife", "CUBO, n = 2, of draws"):
        assert by[name]["kind"] == "estimate"
    lines = report.value_table(rows)
    assert ["right sum", "estimate"] in [line[:2] for line in lines]


def test_the_program_prints_saves_and_continues(tmp_path, capsys, monkeypatch):
    few = asked(num_samples=(1, 2), most_outcomes=40)
    with jax.enable_x64(True):
        names = {"rloo, ELBO", "rws"}
        some = [
            p._replace(estimators={n: e for n, e in p.estimators.items() if n in names})
            for p in problems.problems(few)[-2:]
        ]
    monkeypatch.setattr(problems, "problems", lambda _: some)
    program.main(few, str(tmp_path))
    shown = capsys.readouterr().out
    assert "disarm" in shown
    assert "Bernoulli, 2 bits" in shown
    rows = read(tmp_path)["rows"]
    assert {r["kind"] for r in rows} == {"exact", "lower_bound", "upper_bound", "estimate"}

    def never(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(exact, "exact_rows", never)
    program.main(few, str(tmp_path))
    assert capsys.readouterr().out == shown


def test_betas_out_of_order_are_refused():
    with pytest.raises(UserError, match=r"config\.betas must start at 0, increase and end at 1"):
        asked(betas=(0.0, 0.5, 0.2, 1.0))
