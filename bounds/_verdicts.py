"""Verdicts on identities from independent draws: what holds, what is violated, what is undecided.

Numbers come as arrays of one entry for each datum and are judged on the host, in float64. Two kinds
of test are used. Where a term is bounded, or not negative with a mean of at most 1, the verdict
rests on a bet: capital that starts at 1 and is multiplied by 1 + b (mean - term) cannot grow in
expectation if the identity holds, whatever the tails, and so reaches 1/a with probability a at most
(Ville 1939; Waudby-Smith & Ramdas 2024, arXiv 2010.09686). Any other mean is judged by a t-test
corrected for skewness (Johnson 1978), and only where its terms are light enough for that.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bounds._weights import effective_sample_size, k_hat_threshold, pareto_k_hat

LEAST_DATA = 100
ROUNDING = 64.0  # units in the last place that a mean of log-densities may be off
HOLDS, VIOLATED, UNDECIDED = "holds", "violated", "undecided"
_BETS = (0.9, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01)
# Terms that must share the variance of a mean before its t-statistic is believed. Down to there
# the rate of false alarms, measured on log-normal terms, is up to four times the nominal one; so
# the statistic is held against a quarter of its share.
_LEAST_SHARING = 10
_NOMINAL = 4.0
_LEAST_OVERLAP = 0.02
_UNPROVED = "by more than its error explains, which no bet has proved yet; raise num_data"

Values = NDArray[np.float64]


class Check(NamedTuple):
    """One identity, as it was found.

    Attributes:
      name: of the identity.
      estimate: what was measured.
      reference: what it would be; a limit where `why` says so.
      standard_error: of the estimate; 0 where nothing was drawn, NaN where nothing was measured.
      verdict: "holds", "violated" or "undecided".
      why: what the verdict rests on.
      meaning: what it means if the identity is violated.
    """

    name: str
    estimate: float
    reference: float
    standard_error: float
    verdict: str
    why: str
    meaning: str = ""


class Report(NamedTuple):
    """The checks of an audit; `str` of it is a table.

    Attributes:
      checks: in the order in which they were made.
      false_alarm_rate: the probability that any of them says "violated" of what is right.
    """

    checks: tuple[Check, ...]
    false_alarm_rate: float

    @property
    def violated(self) -> tuple[str, ...]:
        """Names of the identities that are violated."""
        return tuple(check.name for check in self.checks if check.verdict == VIOLATED)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [f"{'check'.ljust(width)}   estimate  reference  std. error  verdict"]
        for c in self.checks:
            numbers = f"{c.estimate:>10.4g} {c.reference:>10.4g} {c.standard_error:>11.2g}"
            lines.append(f"{c.name.ljust(width)} {numbers}  {c.verdict}: {c.why}")
            if c.verdict == VIOLATED:
                lines.append(f"{' ' * width} {c.meaning}")
        rate = f"False alarms: at most {self.false_alarm_rate:g} for all checks together."
        return "\n".join([*lines, rate])


Test = Callable[[float], Check]
"""level, the rate of false alarms that is its share -> the check, but for its meaning."""


def report(tests: Sequence[Test], meanings: Mapping[str, str], false_alarm_rate: float) -> Report:
    """All checks, each at its share of the rate of false alarms."""
    checks = [test(false_alarm_rate / len(tests)) for test in tests]
    told = tuple(check._replace(meaning=meanings[check.name]) for check in checks)
    return Report(told, float(false_alarm_rate))


def check_rate(false_alarm_rate: float) -> float:
    """Refuses what is no rate of false alarms."""
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate must be between 0 and 1, got {false_alarm_rate}.")
    return false_alarm_rate


def undecided(name: str, why: str) -> Test:
    """What could not be measured."""
    return lambda level: Check(name, math.nan, math.nan, math.nan, UNDECIDED, why)


def certain(name: str, wrong: float | int, allowed: float | int, why: str) -> Test:
    """What no draw decides: `wrong` may be at most `allowed`; a NaN is too much."""
    verdict = HOLDS if wrong <= allowed else VIOLATED
    return lambda level: Check(name, float(wrong), float(allowed), 0.0, verdict, why)


def mean_one(
    name: str, log_terms: object, *, at_most: bool = False, tolerance: float = 0.0
) -> Test:
    """E[exp(term)] = 1, or <= 1 with `at_most`; a mean within `tolerance` of 1 is rounding.

    Above 1 is proved by a bet, which no tail can mislead. A mean below 1 proves nothing, as its
    tail may not have been met; and "holds" takes largest terms that allow trust in it.
    """
    terms = _known(log_terms)

    def test(level: float) -> Check:
        if np.isnan(terms).any():
            return _of_nan(name, 1.0, terms)
        if np.isposinf(terms).any():  # a density of zero at what was drawn from it
            return Check(
                name, math.inf, 1.0, math.nan, VIOLATED, "above 1: some terms are infinite"
            )
        shift = max(float(np.max(terms, initial=-np.inf)), 0.0)
        scaled = np.exp(terms - shift)
        with np.errstate(over="ignore"):
            mean, error = (np.exp(shift) * v for v in (scaled.mean(), _standard_error(scaled)))

        def found(verdict: str, why: str) -> Check:
            return Check(name, float(mean), 1.0, float(error), verdict, why)

        if _log_capital(terms, log=True) > -math.log(level):
            return found(VIOLATED, "above 1, by a bet that no tail can mislead")
        doubt = "" if np.ptp(terms) <= tolerance else _doubt_of_weights(terms)
        if doubt:
            return found(UNDECIDED, doubt)
        off = float(mean) - 1.0
        if _beyond(off, float(error), level, terms.size, tolerance):
            if off > 0:
                return found(UNDECIDED, f"above 1 {_UNPROVED}")
            if not at_most:
                # Met by weights of chains that are right: rare large terms make the mean 1.
                return found(UNDECIDED, "below 1, which a tail that was not met would explain")
        return found(HOLDS, "at most 1 within its error" if at_most else "1 within its error")

    return test


def mean_zero(name: str, values: object, *, side: int = 0, tolerance: float = 0.0) -> Test:
    """E[value] = 0; with side 1, E[value] >= 0 and with side -1, E[value] <= 0.

    What lies within `tolerance` is rounding.
    """
    known = _known(values)

    def test(level: float) -> Check:
        with np.errstate(invalid="ignore"):  # of infinite terms
            mean, error = float(known.mean()), _standard_error(known)

        def found(verdict: str, why: str) -> Check:
            return Check(name, mean, 0.0, error, verdict, why)

        if np.isnan(known).any():
            return _of_nan(name, 0.0, known)
        if np.isinf(known).any():
            return found(UNDECIDED, "some of its terms are infinite")
        if side * mean > 0 or abs(mean) <= tolerance:
            wrong = False
        elif error * math.sqrt(known.size) <= tolerance:
            wrong = True  # all of them are off by the same
        else:
            doubt = _doubt_of_mean(known)
            if doubt:
                return found(UNDECIDED, doubt)
            wrong = abs(_deviation(known)) > _quantile(level if side else level / 2, known.size)
        words = {0: "0 within its error", 1: "at least 0", -1: "at most 0"}[side]
        return found(VIOLATED if wrong else HOLDS, f"{'not ' if wrong else ''}{words}")

    return test


def bounded_zero(name: str, values: object, *, overlap: float, tolerance: float = 0.0) -> Test:
    """E[value] = 0 of values in [-1, 1], by bets on both signs: exact for any number of them.

    Where what is compared does not overlap, both sides are 0 whatever is wrong. What lies within
    `tolerance` is rounding.
    """
    known = _known(values)

    def test(level: float) -> Check:
        if np.isnan(known).any():
            return _of_nan(name, 0.0, known)
        mean, error = float(known.mean()), _standard_error(known)
        capital = max(_log_capital(known), _log_capital(-known))
        verdict, why = HOLDS, "0 within its error"
        if capital > -math.log(level / 2):
            verdict, why = VIOLATED, "not 0, by a bet that no tail can mislead"
        elif overlap < _LEAST_OVERLAP:
            verdict, why = UNDECIDED, f"what is compared overlaps by {overlap:.1g} alone"
        elif _beyond(mean, error, level / 2, known.size, tolerance):
            verdict, why = UNDECIDED, f"off 0 {_UNPROVED}"
        return Check(name, mean, 0.0, error, verdict, why)

    return test


def _beyond(off: float, error: float, level: float, size: int, tolerance: float) -> bool:
    """Whether a mean is off by more than rounding and than its standard error explains."""
    return abs(off) > tolerance and abs(off) > _quantile(level, size) * error


def _of_nan(name: str, reference: float, values: Values) -> Check:
    why = f"{np.isnan(values).sum()} of its {values.size} terms are NaN"
    return Check(name, math.nan, reference, math.nan, UNDECIDED, why)


def _log_capital(values: Values, *, log: bool = False) -> float:
    """log of the mean over bets b of prod (1 + b v), or of prod (1 + b (e^v - 1)) with `log`."""
    bets = np.asarray(_BETS)[:, None]
    won = np.logaddexp(np.log1p(-bets), np.log(bets) + values) if log else np.log1p(bets * values)
    return float(np.logaddexp.reduce(won.sum(-1)) - math.log(len(_BETS)))


def _deviation(values: Values) -> float:
    """Johnson's t: the mean over its standard error, with the skewness taken out."""
    mean, deviation = values.mean(), values - values.mean()
    variance, third = float(np.var(values, ddof=1)), float(np.mean(deviation**3))
    if variance == 0:
        return 0.0 if mean == 0 else math.copysign(math.inf, mean)
    corrected = mean + third / (6 * variance * values.size) + third * mean**2 / (3 * variance**2)
    return float(corrected * math.sqrt(values.size / variance))


def _quantile(level: float, size: int) -> float:
    """Of Student's t, to the first order in 1 / size, for `_deviation`."""
    z = -statistics.NormalDist().inv_cdf(level / _NOMINAL)
    return z + (z**3 + z) / (4 * (size - 1))


def _standard_error(values: Values) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(values.size))


def _doubt_of_weights(log_terms: Values) -> str:
    """Why the mean of exp(term) cannot be believed; empty where it can."""
    k_hat, limit = float(pareto_k_hat(jnp.asarray(log_terms))), k_hat_threshold(log_terms.size)
    if not k_hat < limit:
        return f"heavy tails: k-hat {k_hat:.2f} of its terms is not below {limit:.2f}"
    return _doubt_of_mean(np.exp(log_terms - log_terms.max()))


def _doubt_of_mean(values: Values) -> str:
    """Why a t-statistic cannot be believed; empty where it can."""
    deviation = np.abs(values - values.mean())
    if not deviation.any():
        return ""
    with np.errstate(divide="ignore"):
        sharing = float(effective_sample_size(jnp.asarray(2 * np.log(deviation))))
    if sharing < _LEAST_SHARING:
        return f"heavy tails: {sharing:.0f} of its {values.size} terms make its variance"
    return ""


def _known(values: object) -> Values:
    return np.asarray(values, np.float64).reshape(-1)
