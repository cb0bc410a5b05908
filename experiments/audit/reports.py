"""Reports on a subject: its model, and every number that is claimed to bound its log p(x)."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import bounds
from bounds.audit import Report
from experiments.audit.settings import RATIO, Audit
from experiments.audit.subject import Claimed, Subject
from experiments.runtime import results
from experiments.runtime.compiling import precise
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.results import Row, row


def of(subject: Subject, asked: Audit) -> dict[str, Callable[[], Report]]:
    """Name -> what makes the report."""
    checks, model, params = asked.checks, subject.model, subject.params
    shared: dict[str, Any] = {
        "num_data": checks.num_data,
        "chunk_size": asked.memory.data_per_pass,
        "false_alarm_rate": checks.false_alarm_rate,
    }
    made: dict[str, Callable[[], Report]] = {}
    claims = {name: (claimed, None) for name, claimed in subject.claims.items()}
    simulate = functools.partial(subject.simulate, params.theta)
    if model is not None:
        made["model"] = lambda: bounds.audit.model(
            model,
            params,
            key_for(asked.seed, Purpose.AUDIT_OF_MODEL),
            simulate=subject.simulate,
            num_samples=checks.num_samples,
            num_temperatures=checks.num_temperatures,
            num_gradients=checks.num_gradients,
            **shared,
        )
        simulate = bounds.audit.simulated(
            model,
            params,
            key_for(asked.seed, Purpose.AUDIT_PILOT),
            simulate=subject.simulate,
            num_temperatures=max(checks.num_temperatures, 2),
        )

        def iwae(num_samples: int) -> Claimed:
            return lambda key, x: bounds.iwae(
                bounds.log_weights(model, params, key, x, num_samples=num_samples)
            )

        own, fewer = iwae(checks.num_samples), iwae(checks.num_samples // RATIO)
        claims = {f"IWAE-{checks.num_samples}": (own, fewer), **claims}
    for name, (claimed, fewer) in claims.items():
        made[name] = functools.partial(
            bounds.audit.claim,
            claimed,
            key_for(asked.seed, Purpose.AUDIT_OF_CLAIMS),
            simulate=simulate,
            fewer=fewer,
            ratio=RATIO,
            batched=_batched(claimed),
            num_draws=checks.num_draws,
            traceable=True,
            **shared,
        )
    return {name: precise(make) for name, make in made.items()}


def rows(make: Callable[[], Report]) -> list[Row]:
    """The checks of a report, with its seconds."""
    start = time.perf_counter()
    found = make()
    seconds = time.perf_counter() - start
    return [
        row(
            check.name,
            {},
            kind="estimate",
            unit="",
            value=check.estimate,
            standard_error=check.standard_error,
            reference=check.reference,
            verdict=check.verdict,
            why=check.why,
            meaning=check.meaning,
            seconds=seconds,
        )
        for check in found.checks
    ]


def text(subject: Subject, found: list[Row], asked: Audit) -> str:
    """The tables, and what each violation means."""
    columns = {
        "check": "name", "estimate": "value", "reference": "reference", "SE": "standard_error",
        "verdict": "verdict", "why": "why",
    }  # fmt: skip
    lines = [
        f"{subject.name}, {subject.source['weights']} weights of step {subject.source['step']}"
    ]
    for part in dict.fromkeys(r["part"] for r in found):
        own = [r for r in found if r["part"] == part]
        lines += [f"\n{part}: {own[0]['seconds']:.0f} s", results.table(own, columns)]
        lines += [f"{r['name']}: {r['meaning']}" for r in own if r["verdict"] == "violated"]
    rate = f"{asked.checks.false_alarm_rate:g}"
    lines.append(f"\nFalse alarms: at most {rate} for all checks of a table together.")
    return "\n".join(lines)


def _batched(claimed: Claimed) -> Claimed:
    def batched(key, xs):
        count = len(jax.tree.leaves(xs)[0])
        return jnp.mean(jax.vmap(claimed)(jax.random.split(key, count), xs))

    return batched
