"""The Gaussian toy of Rainforth et al. 2018: SNR over K for IWAE, over M for the ELBO."""

import functools
from typing import Any

import jax
import numpy as np
from scipy import stats

import bounds
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.results import Row, row
from experiments.snr import measure
from experiments.snr.gaussian_figure import draw
from experiments.snr.problem import ESTIMATORS, Point, Problem, chunk_size
from experiments.snr.settings import NEED_TWO, Fit, Gaussian, Toy
from models.exact import linear_gaussian, linear_gaussian_theory

LOW_NOISE = "dreg mean / pathwise sd"
COLUMNS = {
    "estimate": "name", "K": "at.K", "M": "at.M", "value": "value", "low": "low", "high": "high",
    "floor": "floor", "theory": "theory", "ESS/K": "ess_per_sample", "R": "n", "s": "seconds",
}  # fmt: skip


def problem(settings: Gaussian) -> Problem:
    """Builds the toy."""
    toy, counts = settings.toy, settings.num_samples
    setting = Setting(settings.seed, toy, toy.num_dims)
    points = [Point(f"K={k}", functools.partial(_iwae_point, settings, setting, k)) for k in counts]
    points += [
        Point(f"M={k}", functools.partial(_elbo_point, settings, setting, k))
        for k in counts
        if settings.elbo
    ]
    return Problem(
        points,
        summarize=functools.partial(_summarize, settings.fit),
        draw=functools.partial(draw, settings),
        columns=COLUMNS,
        notes=functools.partial(_notes, settings),
    )


class Setting:
    """Model, parameters and the one datum the gradients are taken at."""

    def __init__(self, seed: int, toy: Toy, num_dims: int):
        self.key = key_for(seed, Purpose.SNR_GRADIENTS)
        data_key = key_for(seed, Purpose.SNR_DATA)
        data = linear_gaussian.generate(data_key, toy.num_data, num_dims)
        optimum = linear_gaussian.optimum(data)
        self.model = linear_gaussian.make_model(toy.variance)
        noise_key = key_for(seed, Purpose.SNR_PERTURBATION)
        self.params = linear_gaussian.perturb(optimum, noise_key, toy.perturbation)
        self.x = data[toy.datum]
        self.delta = linear_gaussian.discrepancy(self.params, self.x)


def _measure(
    settings: Gaussian, setting: Setting, estimator: str, num_samples: int
) -> measure.Measurement:
    objective = ESTIMATORS[estimator](setting.model, num_samples=num_samples)
    # Independent draws for every K and every estimator.
    number = list(ESTIMATORS).index(estimator)
    key = jax.random.fold_in(jax.random.fold_in(setting.key, number), num_samples)
    return measure.measure(
        objective,
        setting.params,
        key,
        setting.x,
        **sizes(settings, num_samples),
    )


def sizes(settings: Gaussian, num_samples: int) -> dict[str, Any]:
    """How many gradients `measure` draws, and how many of them at once."""
    return {
        "num_replicates": settings.replicates.number,
        "num_blocks": settings.replicates.num_blocks,
        "chunk_size": chunk_size(
            settings.memory.chunk_elements, num_samples * settings.toy.num_dims
        ),
    }


def _iwae_point(settings: Gaussian, setting: Setting, num_samples: int) -> list[Row]:
    at = {"K": num_samples}
    number, variance = settings.replicates.number, settings.toy.variance
    floor = bounds.snr_floor(number)
    log_chi = linear_gaussian_theory.log1p_chi_square(setting.delta, variance)
    common = {
        "floor": floor,
        "n": number,
        "ess_per_sample": float(np.exp(-np.float64(log_chi))),  # exact, as K grows
    }
    # Far from the optimum the expansions in 1/K say nothing at any K in reach.
    theory = _theory(setting, variance, num_samples) if settings.fit.slopes else {}
    names = [
        e for e in settings.estimators if e != "rloo" and (num_samples > 1 or e not in NEED_TWO)
    ]
    measured = {e: _measure(settings, setting, e, num_samples) for e in names}
    rows = []
    for name, result in measured.items():
        for group in ("theta", "phi"):
            if group == "theta" and name not in ("pathwise", "left sum"):
                continue  # the same gradient in theta for every estimator of a bound
            squared = measure.snr_squared(result, group)
            rows.append(
                measure.ratio_row(
                    f"{group} {name}",
                    at,
                    squared,
                    theory=theory.get(f"{group} {name}"),
                    seconds=result.seconds,
                    compile_seconds=result.compile_seconds,
                    **common,
                )
            )
    if {"pathwise", "dreg"} <= set(measured):
        dreg, pathwise = measured["dreg"], measured["pathwise"]
        squared = measure.snr_squared_of(dreg, pathwise, "phi")
        rows.append(
            measure.ratio_row(
                f"phi {LOW_NOISE}",
                at,
                squared,
                theory=theory.get("phi pathwise"),
                method="mean from DReG, standard deviation from pathwise",
                **common,
            )
        )
        if theory:
            rows += _moment_rows(at, dreg, pathwise, theory, number)
    return rows


def _elbo_point(settings: Gaussian, setting: Setting, num_samples: int) -> list[Row]:
    floor = bounds.snr_floor(settings.replicates.number)
    rows = []
    for name, groups in (("elbo", ("theta", "phi")), ("rloo", ("phi",))):
        if name == "rloo" and (num_samples == 1 or name not in settings.estimators):
            continue
        result = _measure(settings, setting, name, num_samples)
        rows += [
            measure.ratio_row(
                f"{group} {name}",
                {"M": num_samples},
                measure.snr_squared(result, group),
                theory=None,
                floor=floor,
                n=settings.replicates.number,
                seconds=result.seconds,
                compile_seconds=result.compile_seconds,
            )
            for group in groups
        ]
    return rows


def _theory(setting: Setting, variance: float, num_samples: int) -> dict[str, float]:
    """Closed forms to leading order in K, pooled like the measurements."""
    args = (setting.delta, float(num_samples), variance)
    theory = linear_gaussian_theory
    x_minus_mu = setting.x - setting.params.theta
    logs = {
        "theta pathwise": theory.log_snr_theta(setting.delta, x_minus_mu, *args[1:]),
        "phi pathwise": theory.log_snr_phi(*args),
        "phi dreg": theory.log_snr_phi_dreg(*args),
    }
    # Root mean square over coordinates; every row of A shares the ratio of its entry of b.
    return {k: rms_of_exp(v) for k, v in logs.items()} | {
        "mean": theory.expected_phi_gradient(*args),
        "log sd": theory.log_sd_phi_pathwise(*args),
    }


def rms_of_exp(logs: jax.Array) -> float:
    """Root mean square of exp(logs)."""
    return float(np.sqrt(np.mean(np.exp(2 * np.asarray(logs, np.float64)))))


def _moment_rows(
    at: dict[str, Any],
    dreg: measure.Measurement,
    pathwise: measure.Measurement,
    theory: dict[str, Any],
    n: int,
) -> list[Row]:
    """Numerator and noise of the phi ratio apart, and two checks of the numerator."""
    sign, log_magnitude = theory["mean"]
    expected = np.asarray(sign, np.float64) * np.exp(np.asarray(log_magnitude, np.float64))

    def bias(measured, field):  # the last leaf of phi: one entry for each distinct coordinate
        return getattr(measured, field)["phi"][:, -expected.size :]

    squares = {
        "phi numerator": measure.mean_squared(dreg, "phi"),
        "phi standard deviation": measure.variance(pathwise, "phi"),
    }
    rows = [
        row(
            name,
            at,
            kind="estimate",
            unit="gradient",
            n=n,
            squared=squared.value,
            squared_standard_error=squared.standard_error,
            **measure.root(squared)._asdict(),
        )
        for name, squared in squares.items()
    ]
    difference = bias(dreg, "mean")[0] - bias(pathwise, "mean")[0]
    errors = (bias(dreg, "variance")[0] + bias(pathwise, "variance")[0]) / n
    chi_square = float(np.sum(difference**2 / errors))
    rows.append(
        row(
            "dreg mean = pathwise mean",
            at,
            kind="estimate",
            unit="p-value",
            n=n,
            value=float(stats.chi2.sf(chi_square, expected.size)),
            chi_square=chi_square,
            degrees_of_freedom=expected.size,
        )
    )
    along = measure.projection(bias(dreg, "mean"), expected)
    rows.append(
        row("dreg mean / closed form", at, kind="estimate", unit="ratio", n=n, **along._asdict())
    )
    return rows


def _summarize(fit: Fit, rows: list[Row]) -> list[Row]:
    """Slopes in K and M; none where the settings turn them off."""
    if not fit.slopes:
        return []
    fits = [
        ("theta pathwise", "K", fit.first, 0.5),
        (f"phi {LOW_NOISE}", "K", fit.first, -0.5),
        ("phi pathwise", "K", fit.first, -0.5),
        ("phi dreg", "K", fit.first_dreg, 0.5),
        ("phi numerator", "K", fit.first, -1.0),
        ("phi standard deviation", "K", fit.first, -0.5),
        ("theta elbo", "M", 1, 0.5),
        ("phi elbo", "M", 1, 0.5),
    ]
    out = []
    for name, axis, start, theory in fits:
        used = [r for r in rows if r["name"] == name and r["at"].get(axis, 0) >= start]
        used = measure.with_errors(used)
        if len(used) < 2:
            continue
        at = {"axis": axis, "from": start}
        out.append(measure.slope_row(name, at, used, axis, theory=theory))
    return out


def _notes(settings: Gaussian, rows: list[Row], summary: list[Row]) -> list[str]:
    notes = [
        "SNR: root mean square over coordinates, bias removed, "
        f"{settings.replicates.number} gradients at one datum; 95% intervals by jackknife over "
        f"{settings.replicates.num_blocks} blocks of replicates.",
        f"'{LOW_NOISE}': the pathwise SNR of phi with its mean taken from DReG, whose expectation "
        "is the same; the plain 'phi pathwise' drowns in its floor at large K.",
    ]
    if summary:
        notes.append("Slopes: weighted least squares on squared ratios; intervals speak of noise.")
        notes += _checks(rows)
    else:
        notes.append(
            "Nothing is fitted: so far from the optimum no K in this range is asymptotic, "
            "one sample carries nearly all the weight."
        )
    return notes


def _checks(rows: list[Row]) -> list[str]:
    """Sentences on how well the measured means agree with each other and with closed forms."""
    p_values = [r["value"] for r in rows if r["name"] == "dreg mean = pathwise mean"]
    notes = []
    if p_values:
        notes.append(
            f"DReG mean = pathwise mean: smallest chi-square p-value {min(p_values):.3f} of "
            f"{len(p_values)} K."
        )
    names = ("theta pathwise", f"phi {LOW_NOISE}", "phi dreg")
    large = [r for r in rows if r["name"] in names and r["at"].get("K", 0) >= 100]
    if large:
        ratios = [(abs(r["value"] / r["theory"] - 1), r) for r in large]
        worst, where = max(ratios, key=lambda pair: pair[0])
        notes.append(
            f"Measured over closed form at K >= 100: at most {worst:.1%} off "
            f"({where['name']}, K={where['at']['K']})."
        )
    return notes
