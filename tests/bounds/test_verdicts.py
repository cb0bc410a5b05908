"""The tests that verdicts of an audit rest on: their rate of false alarms, and their power."""

import math

import numpy as np
import pytest

from bounds import _audit_claim, _verdicts

REPEATS = 400


def _alarms(test, draw, rate, repeats=REPEATS):
    generator = np.random.default_rng(1)
    return np.mean([test(draw(generator))(rate).verdict == "violated" for _ in range(repeats)])


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0, 4.0])
def test_false_alarms_of_a_mean_of_one_stay_below_their_rate_under_any_tail(sigma):
    def draw(generator):
        return sigma * generator.standard_normal(200) - sigma**2 / 2

    rate = 0.02
    found = _alarms(lambda v: _verdicts.mean_one("", v), draw, rate)
    assert found <= rate + 4 * math.sqrt(rate / REPEATS)


def test_false_alarms_of_other_means_stay_below_their_rate():
    rate = 0.02
    limit = rate + 4 * math.sqrt(rate / REPEATS)
    draws = {
        "normal": lambda g: g.standard_normal(200),
        "skewed": lambda g: g.exponential(size=200) - 1,
        "three degrees of freedom": lambda g: g.standard_t(3, 200),
        "Cauchy": lambda g: g.standard_cauchy(200),
    }
    for draw in draws.values():
        assert _alarms(lambda v: _verdicts.mean_zero("", v), draw, rate) <= limit

    def bounded(generator):
        return generator.choice([-0.1, 0.9], p=[0.9, 0.1], size=200)

    found = _alarms(lambda v: _verdicts.bounded_zero("", v, overlap=1.0), bounded, rate)
    assert found <= limit


def test_means_that_are_off_are_found():
    generator = np.random.default_rng(2)
    noise = generator.standard_normal(500)
    assert _verdicts.mean_one("", np.log(1.4) + 0.5 * noise - 0.125)(1e-4).verdict == "violated"
    # Below 1 it may be the tail that was not met; the bounded form of the equality decides.
    assert _verdicts.mean_one("", np.log(0.7) + 0.5 * noise - 0.125)(1e-4).verdict == "undecided"
    below = _verdicts.mean_one("", np.log(0.7) + 0.5 * noise - 0.125, at_most=True)
    assert below(1e-4).verdict == "holds"
    assert _verdicts.mean_zero("", 0.3 + noise)(1e-4).verdict == "violated"
    assert _verdicts.mean_zero("", 0.3 + noise, side=1)(1e-4).verdict == "holds"
    assert _verdicts.mean_zero("", 0.3 + noise, side=-1)(1e-4).verdict == "violated"
    values = np.clip(0.1 + 0.3 * noise, -1, 1)
    assert _verdicts.bounded_zero("", values, overlap=1.0)(1e-4).verdict == "violated"
    assert _verdicts.bounded_zero("", 1e-9 * noise, overlap=0.0)(1e-4).verdict == "undecided"


def test_a_mean_that_no_bet_has_proved_off_is_not_said_to_hold():
    """Bets stop at .9, so a small deviation of a large precision is seen and not proved."""
    noise = np.random.default_rng(6).standard_normal(200)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    for errors, verdict in ((4.9, "undecided"), (2.0, "holds")):
        off = 0.01 * (errors / math.sqrt(200) + noise)
        one_sided = np.log1p(off)
        for test in (
            _verdicts.bounded_zero("", off, overlap=1.0),
            _verdicts.bounded_zero("", -off, overlap=1.0),
            _verdicts.mean_one("", one_sided),
            _verdicts.mean_one("", one_sided, at_most=True),
        ):
            assert (test(1e-4).verdict, "raise num_data" in test(1e-4).why) == (
                verdict, verdict == "undecided"
            )  # fmt: skip
    # What rounding explains holds, and so does what lies below a limit.
    rounded = _verdicts.bounded_zero("", 1e-9 + 1e-10 * noise, overlap=1.0, tolerance=1e-8)
    below = _verdicts.mean_one("", np.log1p(-0.01 + 0.01 * noise), at_most=True)
    assert [test(1e-4).verdict for test in (rounded, below)] == ["holds"] * 2


def test_what_one_term_decides_is_undecided_but_for_a_mistake_that_all_terms_share():
    values = np.full(200, 0.01)
    values[0] = -1.0
    check = _verdicts.mean_zero("", values)(1e-4)
    assert (check.verdict, "1 of its 200 terms" in check.why) == ("undecided", True)
    shared = np.full(200, 2.0)
    shared[0] += 1e-9  # rounding
    assert _verdicts.mean_zero("", shared, tolerance=1e-6)(1e-4).verdict == "violated"


def test_levels_sides_and_skewness_are_those_of_the_formulas():
    levels = []

    def test(level):
        levels.append(level)
        return _verdicts.Check("", 0.0, 0.0, 0.0, "holds", "")

    _verdicts.report([test] * 4, {"": ""}, 0.02)
    assert levels == [0.005] * 4
    values = np.random.default_rng(3).exponential(size=300) - 0.9
    t = values.mean() / (values.std(ddof=1) / math.sqrt(300))
    skew = np.mean((values - values.mean()) ** 3) / values.std(ddof=1) ** 3
    expected = t + skew * (1 / 6 + t**2 / 3) / math.sqrt(300)
    assert _verdicts._deviation(values) == pytest.approx(expected, rel=1e-9)
    # Between the quantiles of one side and of two.
    values = np.random.default_rng(4).standard_normal(300)
    values = values - values.mean()
    between = (_verdicts._quantile(1e-3, 300) + _verdicts._quantile(5e-4, 300)) / 2
    values = values + between * values.std(ddof=1) / math.sqrt(300)
    assert _verdicts.mean_zero("", values)(1e-3).verdict == "holds"
    assert _verdicts.mean_zero("", values, side=-1)(1e-3).verdict == "violated"
    below = np.clip(values - 1.0, -1, 1)
    for signed in (below, -below):
        assert _verdicts.bounded_zero("", signed, overlap=1.0)(1e-3).verdict == "violated"
    # Two bets, each at half the level: capital of just less than 2 / level proves nothing.
    few = np.full(20, 0.4)
    level = 2 * math.exp(-_verdicts._log_capital(few))
    for share, verdict in ((0.99, "undecided"), (1.01, "violated")):
        assert _verdicts.bounded_zero("", few, overlap=1.0)(share * level).verdict == verdict


def test_noise_of_claims_is_taken_off_before_the_sum():
    drawn = 1.8 * np.random.default_rng(5).standard_normal((1000, 4))
    (kraft, _) = _audit_claim._against(drawn, np.zeros(1000))
    assert kraft(1e-3).verdict != "violated"
    # So much noise that what is taken off does not make up for it: four claims, a variance of 9.
    (kraft, _) = _audit_claim._against(drawn * 6 / 1.8, np.zeros(1000))
    assert (kraft(1e-3).verdict, "raise num_draws" in kraft(1e-3).why) == ("undecided", True)
    # The mean of exp of what is left as it is exceeds 1 in truth.
    assert _verdicts.mean_one("", drawn.mean(1), at_most=True)(1e-3).verdict == "violated"


def test_terms_that_are_no_numbers_decide_nothing_but_a_density_of_zero_does():
    values = np.full(200, 0.1)
    values[3] = np.nan
    tests = (
        _verdicts.mean_one("", values), _verdicts.mean_zero("", values),
        _verdicts.bounded_zero("", values, overlap=1.0),
    )  # fmt: skip
    assert [test(1e-4).verdict for test in tests] == ["undecided"] * 3
    assert {test(1e-4).why for test in tests} == {"1 of its 200 terms are NaN"}
    values[3] = np.inf
    assert _verdicts.mean_one("", values)(1e-4).verdict == "violated"
    assert _verdicts.mean_zero("", values)(1e-4).verdict == "undecided"
