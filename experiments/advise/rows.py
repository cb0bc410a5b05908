"""What `bounds.advise` finds, as rows."""

import functools
import time
from collections.abc import Callable
from typing import Any

import bounds
from experiments.advise.settings import Advise
from experiments.advise.subjects import Subject
from experiments.runtime.compiling import precise
from experiments.runtime.errors import UserError
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.results import Row, row

SNR, BIAS, CHOICE, REFUSED, SPENT = "SNR", "bias", "choice", "not tried", "time"


def of(name: str, make: Callable[[], Subject], asked: Advise) -> list[Row]:
    """All rows of a model; one that says why where it cannot be made."""
    try:
        subject = make()
    except UserError as error:
        return [_row(REFUSED, {"model": name}, "", None, failure=str(error))]
    start, wanted = time.perf_counter(), asked.advice
    ask = functools.partial(
        bounds.advise,
        num_samples=wanted.num_samples,
        cost=wanted.cost,
        num_replicates=wanted.num_replicates,
        num_calls=wanted.num_calls,
        betas=wanted.betas,
        logits=None if subject.images is None else subject.images.logits,
    )
    key = key_for(asked.seed, Purpose.ADVICE_GRADIENTS)
    advice = precise(lambda: ask(subject.model, subject.params, key, subject.x))()
    spent = time.perf_counter() - start
    found = [r for measured in advice.rows for r in _measured(name, measured, asked)]
    found += [_choice(name, choice) for choice in advice.choices]
    found += [
        _row(REFUSED, {"model": name, "estimator": estimator}, "", None, failure=why)
        for estimator, why in advice.refused.items()
    ]
    return [*found, _row(SPENT, {"model": name}, "s", spent, seconds=spent)]


def _measured(name: str, found: bounds.Measured, asked: Advise) -> list[Row]:
    at = {
        "model": name, "bound": found.bound, "estimator": found.estimator, "K": found.num_samples,
        "of": found.of,
    }  # fmt: skip
    common: dict[str, Any] = {
        "n": asked.advice.num_replicates, "seconds": found.seconds.value, "flops": found.flops,
    }  # fmt: skip
    rows = [_row(SNR, at, "ratio", *found.snr, **common)]
    if found.biased:
        rows.append(_row(BIAS, at, "nats", *found.bias, reference=found.length.value, **common))
    return rows


def _choice(name: str, choice: bounds.Choice) -> Row:
    at = {
        "model": name, "bound": choice.bound, "K": choice.num_samples, "of": choice.of,
        "estimator": ", ".join(f"{estimator} at {k}" for estimator, k in choice.best),
        "tied": len(choice.best) > 1,
    }  # fmt: skip
    return _row(CHOICE, at, "ratio", *choice.ratio, why=choice.reason)


def _row(
    name: str, at: dict[str, Any], unit: str, value: Any, low: Any = None, high: Any = None,
    **extra: Any,
) -> Row:  # fmt: skip
    return row(
        name, at, kind="estimate", unit=unit, value=value, low=low, high=high, part="advice",
        **extra,
    )  # fmt: skip
