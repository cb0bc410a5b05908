"""Phase diagram of VR-IWAE: how the SNR of phi scales over order alpha, K and dimension D."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps

import bounds
from experiments.runtime.compiling import precise
from experiments.runtime.plots import new_figure
from experiments.runtime.results import Row, row
from experiments.snr import measure
from experiments.snr.figure import finish, plot_points, theory_line
from experiments.snr.gaussian import Setting, rms_of_exp
from experiments.snr.problem import Point, Problem, chunk_size
from experiments.snr.settings import Phase
from models.exact import linear_gaussian, linear_gaussian_theory
from models.exact.linear_gaussian_finite import finite

NAMES = {"pathwise": "phi pathwise", "dreg": "phi dreg"}
# Of the gap from what it is in either limit.
DIFFERENCES = ("gap minus that of 1/K", "gap minus that of weight collapse")
COLUMNS = {
    "estimate": "name", "alpha": "at.alpha", "D": "at.D", "K": "at.K", "value": "value",
    "standard error": "standard_error", "low": "low", "high": "high", "floor": "floor",
    "theory": "theory", "ESS/K": "ess_per_sample", "R": "n", "s": "seconds",
}  # fmt: skip


def problem(settings: Phase) -> Problem:
    """Builds the diagram."""
    # One setting for each dimension, made on its first use.
    setting = functools.cache(functools.partial(Setting, settings.seed, settings.toy))
    points = [
        Point(f"D={d} alpha={a} K={k}", lambda d=d, a=a, k=k: _point(settings, setting(d), a, k))
        for d in settings.num_dims
        for a in settings.alphas
        for k in settings.num_samples
    ]
    return Problem(
        points,
        summarize=functools.partial(_summarize, settings),
        draw=functools.partial(_draw, settings),
        columns=COLUMNS,
        notes=functools.partial(_notes, settings),
    )


def _point(settings: Phase, setting: Setting, alpha: float, num_samples: int) -> list[Row]:
    num_dims = len(setting.x)
    at = {"alpha": alpha, "D": num_dims, "K": num_samples}
    common = {
        "floor": bounds.snr_floor(settings.replicates.number),
        "n": settings.replicates.number,
    }
    model, delta = setting.model, setting.delta
    objectives = {
        "pathwise": bounds.pathwise(
            model, num_samples=num_samples, bound=functools.partial(bounds.renyi, alpha=alpha)
        ),
        "dreg": bounds.dreg(model, num_samples=num_samples, alpha=alpha),
    }
    # Every point and estimator has draws of its own.
    key = jax.random.fold_in(setting.key, num_samples)
    key = jax.random.fold_in(key, round(alpha * 10**6))
    measured = {
        name: measure.measure(
            objective,
            setting.params,
            jax.random.fold_in(key, number),
            setting.x,
            num_replicates=settings.replicates.number,
            num_blocks=settings.replicates.num_blocks,
            chunk_size=chunk_size(settings.memory.chunk_elements, num_samples * num_dims),
        )
        for number, (name, objective) in enumerate(objectives.items())
    }
    squares = {
        # The mean from DReG, whose expectation is the same: see the gaussian problem.
        "pathwise": measure.snr_squared_of(measured["dreg"], measured["pathwise"], "phi"),
        "dreg": measure.snr_squared(measured["dreg"], "phi"),
    }
    args = (delta, float(num_samples), settings.toy.variance, alpha)
    closed = {
        "pathwise": linear_gaussian_theory.log_snr_phi(*args),
        "dreg": linear_gaussian_theory.log_snr_phi_dreg(*args),
    }
    ess = jnp.exp(-linear_gaussian_theory.log1p_chi_square(delta, settings.toy.variance))
    return [
        measure.ratio_row(
            NAMES[name],
            at,
            squared,
            theory=rms_of_exp(closed[name]),
            ess_per_sample=ess,
            seconds=measured[name].seconds,
            compile_seconds=measured[name].compile_seconds,
            **common,
        )
        for name, squared in squares.items()
    ] + _gaps(settings, setting, alpha, num_samples, at)


def _gaps(
    settings: Phase, setting: Setting, alpha: float, num_samples: int, at: dict[str, Any]
) -> list[Row]:
    """log p(x) - VR-IWAE, and that minus its two expansions."""
    count, variance = settings.gaps, settings.toy.variance
    if count is None:
        return []
    # Point and purpose: estimators fold 0 and 1 behind the same two.
    key = jax.random.fold_in(setting.key, num_samples)
    key = jax.random.fold_in(jax.random.fold_in(key, round(alpha * 10**6)), len(NAMES))

    @jax.jit
    @precise
    def bound(params, x, key):
        def one(number):
            own = jax.random.fold_in(key, number)
            log_w = bounds.log_weights(setting.model, params, own, x, num_samples=num_samples)
            return bounds.renyi(log_w, alpha)

        size = chunk_size(settings.memory.chunk_elements, num_samples * len(x))
        return jax.lax.map(one, jnp.arange(count), batch_size=min(size, count))

    exact = float(linear_gaussian.log_likelihood(setting.params.theta, setting.x))
    gaps = exact - np.asarray(bound(setting.params, setting.x, key), np.float64)
    theory = finite(np.asarray(setting.delta), num_samples, variance, alpha).gap
    forms = linear_gaussian_theory.renyi_gap(setting.delta, num_samples, variance, alpha)
    mean, error = float(gaps.mean()), gaps.std(ddof=1) / math.sqrt(len(gaps))
    return [
        row(
            name, at, kind="estimate", unit="nats", value=mean - form, theory=theory - form,
            standard_error=error, n=len(gaps), error="draws",
        )
        for name, form in zip(("gap", *DIFFERENCES), (0.0, *forms), strict=True)
    ]  # fmt: skip


def _cells(settings: Phase) -> list[tuple[str, int, float]]:
    return [(n, d, a) for n in NAMES.values() for d in settings.num_dims for a in settings.alphas]


def _own(rows: list[Row], name: str, num_dims: int, alpha: float) -> list[Row]:
    at = {"D": num_dims, "alpha": alpha}
    return [r for r in rows if r["name"] == name and at.items() <= r["at"].items()]


def _summarize(settings: Phase, rows: list[Row]) -> list[Row]:
    """Measured slope and that of the closed form over the same K, for each alpha and D."""
    out = []
    for name, num_dims, alpha in _cells(settings):
        own = [r for r in _own(rows, name, num_dims, alpha) if r["at"]["K"] >= settings.fit_from]
        own = [r for r in measure.with_errors(own) if r["theory"] is not None]
        if len(own) < 2:
            continue
        # The closed form is no exact power law either: fitted likewise, with the same weights.
        closed: list[Row] = [{**r, "squared": r["theory"] ** 2} for r in own]
        expected = measure.slope_of_rows(closed, "K")[0]
        at = {"D": num_dims, "alpha": alpha, "from": settings.fit_from}
        out.append(measure.slope_row(name, at, own, "K", theory=expected))
    return out


def _draw(settings: Phase, rows: list[Row], summary: list[Row]):
    columns = len(settings.num_dims) + 1
    figure, panels = new_figure(2, columns, (3.6 * columns, 8), squeeze=False)
    alphas, dims = list(settings.alphas), list(settings.num_dims)
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(alphas)))
    for line, (name, title) in enumerate(zip(NAMES.values(), ("pathwise", "DReG"), strict=True)):
        for column, num_dims in enumerate(dims):
            axes = panels[line][column]
            for alpha, shade in zip(alphas, shades, strict=True):
                own = _own(rows, name, num_dims, alpha)
                plot_points(axes, own, "K", shade, rf"$\alpha$ = {alpha:g}")
                theory_line(axes, own, "K", shade)
            finish(axes, rows, "samples K", theory=True)
            axes.get_legend().remove()  # one legend below serves all panels
            axes.set_title(rf"$\phi$, {title}, D = {num_dims}")
        panels[line][0].set_ylabel("SNR (RMS over entries)")
        _draw_slopes(panels[line][-1], name, title, dims, summary)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    figure.suptitle(
        f"VR-IWAE on the Gaussian toy, perturbation {settings.toy.perturbation:g}: "
        f"{settings.replicates.number:,} gradients a point, 95% intervals"
    )
    return figure


def _draw_slopes(axes, name: str, title: str, dims: list[int], summary: list[Row]) -> None:
    for marker, color, num_dims in zip("osd^v", ("C0", "C1", "C2", "C3", "C4"), dims, strict=False):
        own = [r for r in summary if r["name"] == f"slope of {name}" and r["at"]["D"] == num_dims]
        own = [r for r in own if r["low"] is not None and r["high"] is not None]
        x = [r["at"]["alpha"] for r in own]
        errors = [[r["value"] - r["low"] for r in own], [r["high"] - r["value"] for r in own]]
        axes.errorbar(
            x,
            [r["value"] for r in own],
            yerr=errors,
            marker=marker,
            ms=4,
            ls="none",
            color=color,
            capsize=2,
            label=f"D = {num_dims}",
        )
        axes.plot(x, [r["theory"] for r in own], color=color, lw=1, ls="--")
    for level in (-0.5, 0.5):
        axes.axhline(level, color="#7F7F7F", lw=1, ls=":")
    start = summary[0]["at"]["from"] if summary else ""
    axes.set(xlabel=r"order $\alpha$", title=f"slope of {title}, K ≥ {start}")
    axes.legend(fontsize=8)


def _notes(settings: Phase, rows: list[Row], summary: list[Row]) -> list[str]:
    return [
        f"SNR of phi: root mean square over entries, bias removed, {settings.replicates.number} "
        "gradients at one datum; the mean of pathwise is taken from DReG: one expectation.",
        "Theory: closed forms from tilted Gaussians, mean to order 1/K, deviation to leading "
        "order; the theory column of a slope is that of the closed form over the same K, and that "
        "of a gap is exact.",
    ]
