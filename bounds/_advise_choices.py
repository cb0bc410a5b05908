"""Which estimator buys most per cost: rows of what was measured, compared with each other."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bounds._advise_catalogue import BOUNDS
from bounds._advise_measured import (
    Blocks,
    Interval,
    Numbers,
    interval,
    mean_of,
    median,
    root,
    squared_length,
)

COSTS = ("seconds", "flops")
_SHOWN = 3  # of those between which there is no choice
_PLAIN = ("pathwise", "reinforce")
UNKNOWN = Interval(math.nan, 0.0, math.inf)
_SAME = 1.001  # ratios nearer to 1 are rounding, where estimators share a gradient


class Measured(NamedTuple):
    """An estimator at K, and one part of its gradient.

    Attributes:
      of: "theta" or "phi".
      bound: whose gradient it is meant to be: "elbo", "iwae" or "thermodynamic".
      estimator: its name.
      num_samples: K.
      snr: the norm of the expected gradient over the root of its summed variance.
      length: the norm of the expected gradient of the bound.
      bias: the norm of the difference of its expectation from that, by an unbiased estimator on
        the same draws; 0 for that estimator itself.
      biased: whether it is known to be.
      flops: of the gradient of the batch, as the compiler counts them.
      seconds: of the same, the median of several calls.
      per_second: the squared SNR over the seconds.
      per_flop: the squared SNR over the FLOPs.
    """

    of: str
    bound: str
    estimator: str
    num_samples: int
    snr: Interval
    length: Interval
    bias: Interval
    biased: bool
    flops: float
    seconds: Interval
    per_second: Interval
    per_flop: Interval


class Choice(NamedTuple):
    """What to take for one part of the gradient, or that it cannot be told.

    Attributes:
      of: "theta" or "phi".
      bound: within which it is chosen.
      num_samples: K of all that were compared; None: they differ in K.
      best: (estimator, K); one, or those between which there is no choice, the first of the
        largest estimate.
      ratio: how many times the squared SNR per cost of the next best the first of them has.
      reason: the sentence.
    """

    of: str
    bound: str
    num_samples: int | None
    best: tuple[tuple[str, int], ...]
    ratio: Interval
    reason: str


class Entry(NamedTuple):
    """A row, its squared SNR of all blocks and without each, and its costs round by round."""

    row: Measured
    squared: Numbers
    cost: Numbers


def measured(
    of: str, bound: str, name: str, count: int, biased: bool, own: Blocks, reference: Blocks,
    flops: float, level: float,
) -> tuple[Measured, Numbers]:  # fmt: skip
    """A row that lacks its seconds, and its squared SNR of all blocks and without each.

    The expectation of an unbiased estimator is that of the reference, of less noise mostly.
    """
    biased = biased and of == "phi"  # in theta all of them follow the bound
    length = squared_length((own if biased else reference).mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = length / mean_of(own.variance)
    # Products of differences of the same draws: what both have in common is gone.
    bias = squared_length(own.mean - reference.mean)
    row = Measured(
        of, bound, name, count,
        snr=root(interval(squared, level)),
        length=root(interval(squared_length(reference.mean), level)),
        bias=root(interval(bias, level)),
        biased=biased, flops=flops, seconds=UNKNOWN, per_second=UNKNOWN, per_flop=UNKNOWN,
    )  # fmt: skip
    return row, squared


def timed(row: Measured, squared: Numbers, spent: Numbers, cost: str, level: float) -> Entry:
    time, own = median(spent, level), interval(squared, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = [np.float64(v) / t for v in own[1:] for t in time[1:]]
    row = row._replace(
        seconds=time,
        per_second=Interval(own.value / time.value, float(min(rates)), float(max(rates))),
        per_flop=Interval(*(v / row.flops for v in own)),
    )
    return Entry(row, squared, spent if cost == "seconds" else np.full(1, row.flops))


def choices(entries: Sequence[Entry], cost: str, level: float) -> Iterable[Choice]:
    for of, bound in itertools.product(("phi", "theta"), BOUNDS):
        own = [e for e in entries if (e.row.of, e.row.bound) == (of, bound)]
        counts = sorted({e.row.num_samples for e in own})
        for count in counts:
            yield _choice([e for e in own if e.row.num_samples == count], count, cost, level)
        if len(counts) > 1:
            yield _choice(own, None, cost, level)


def _choice(entries: Sequence[Entry], count: int | None, cost: str, level: float) -> Choice:
    """Of estimators of one bound, at one K or at all."""
    rates = [e.squared[0] / np.median(e.cost) for e in entries]
    # Relative to one whose ratio is not drowned in noise, if there is one.
    known = entries[int(np.argmax(np.nan_to_num(rates, nan=-np.inf)))]
    worth = [
        math.inf if rate == math.inf else ratio_of(e, known, level).value
        for e, rate in zip(entries, rates, strict=True)
    ]
    order = sorted(range(len(entries)), key=lambda i: -np.nan_to_num(worth[i], nan=-np.inf))
    best, *rivals = (entries[i] for i in order)
    # Each comparison may be wrong with its share, so that the choice is wrong with all of it.
    own_level = 1 - (1 - level) / max(len(rivals), 1)
    ratios = [ratio_of(best, rival, own_level) for rival in rivals]
    tied = [rival for rival, ratio in zip(rivals, ratios, strict=True) if not ratio.low > _SAME]
    names = [(e.row.estimator, e.row.num_samples) for e in (best, *tied)]
    row, unit = best.row, "second" if cost == "seconds" else "FLOP"

    def called(e: Entry) -> str:
        return e.row.estimator + (f" at K = {e.row.num_samples}" if count is None else "")

    caution = ""
    if count is None and row.bound != "elbo":
        caution = " Each K is another bound: this does not say which is tighter."
    where = f"{row.of}, {row.bound}{'' if count is None else f' at K = {count}'}"
    if not rivals:
        reason = f"{where}: {called(best)} is the only one."
        return Choice(row.of, row.bound, count, tuple(names), UNKNOWN, reason)
    if tied:
        shown = [called(e) for e in (best, *tied)][:_SHOWN]
        others = len(names) - len(shown)
        shown += [f"{others} others"] if others else []
        listed = " and ".join([", ".join(shown[:-1]), shown[-1]])
        ratio = next(r for r in ratios if not r.low > _SAME)
        reason = (
            f"{where}: no choice between {listed}: {called(best)} gives {_times(ratio)} the "
            f"squared SNR per {unit} of {called(tied[0])}."
        )
        return Choice(row.of, row.bound, count, tuple(names), ratio, reason + caution)
    reason = (
        f"{where}: {called(best)} gives {_times(ratios[0])} the squared SNR per {unit} of "
        f"{called(rivals[0])}, the next best"
    )
    plain = [i for i, rival in enumerate(rivals) if rival.row.estimator in _PLAIN]
    if plain and plain[0] > 0 and row.estimator not in _PLAIN:
        reason += f", and {_times(ratios[plain[0]])} that of {called(rivals[plain[0]])}"
    reason += "."
    if row.biased:
        share = row.bias.value / row.length.value if row.length.value else math.inf
        reason += f" It is biased, by {share:.0%} of the length of the gradient."
    return Choice(row.of, row.bound, count, tuple(names), ratios[0], reason + caution)


def ratio_of(above: Entry, below: Entry, level: float) -> Interval:
    """Squared SNR per cost of one over that of another: ratios of blocks times ratios of rounds."""
    gain = _gain(above, below, level)
    prices = below.cost / above.cost
    # FLOPs are one number, and exact.
    price = median(prices, level) if len(prices) > 1 else Interval(*[float(prices[0])] * 3)
    return Interval(gain.value * price.value, gain.low * price.low, gain.high * price.high)


def _gain(above: Entry, below: Entry, level: float) -> Interval:
    """Squared SNR over squared SNR, by the jackknife of its logarithm.

    Within one bound and K the lengths of the expectations cancel, whatever their own errors.
    """
    one = above.row.num_samples == below.row.num_samples
    one = one and not (above.row.biased or below.row.biased)
    a, b = interval(above.squared, level), interval(below.squared, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = above.squared / below.squared
    if np.all(np.isfinite(quotient) & (quotient > 0)) and (one or (a.low > 0 and b.low > 0)):
        return Interval(*(math.exp(v) for v in interval(np.log(quotient), level)))
    # A ratio that may be 0, or has no noise: what the two intervals alone say.
    low = a.low / b.high if a.low > 0 and b.high > 0 else 0.0
    if b.value > 0:
        return Interval(max(a.value, 0.0) / b.value, low, math.inf)
    return Interval(math.inf if a.value > 0 else math.nan, low, math.inf)


def _times(ratio: Interval) -> str:
    if not math.isfinite(ratio.value):
        return f"at least {ratio.low:.2g}x" if ratio.low > 0 else "an unknown multiple of"
    return f"{ratio.value:.2g}x [{ratio.low:.2g}, {ratio.high:.2g}]"
