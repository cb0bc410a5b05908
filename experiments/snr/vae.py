"""SNR of the gradients of a VAE on real data, at one fixed minibatch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

import bounds
from experiments.data import sets
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.mesh import DATA, device_mesh
from experiments.runtime.plots import COLORS, new_figure
from experiments.runtime.results import Row
from experiments.runtime.trainer import Stream, from_objective, init_state, train
from experiments.snr import measure
from experiments.snr.figure import finish, floor_line, plot_points, with_slope
from experiments.snr.problem import ESTIMATORS, Point, Problem, chunk_size
from experiments.snr.settings import OfVAE
from models.vae import make_vae

COLUMNS = {
    "estimate": "name", "K": "at.K", "value": "value", "low": "low", "high": "high",
    "floor": "floor", "ESS/K": "ess_per_sample", "k-hat": "k_hat", "R": "n", "s": "seconds",
}  # fmt: skip
RATIO = "theta / phi pathwise"


def problem(settings: OfVAE) -> Problem:
    """Builds the problem, with the data it names."""
    setting = Setting(settings, sets.load(settings.data.name, settings.data_dir))
    points = [
        Point(f"K={k}", functools.partial(_point, settings, setting, k))
        for k in settings.num_samples
    ]
    return Problem(
        points,
        summarize=functools.partial(_summarize, settings),
        draw=functools.partial(_draw, settings, setting.dataset.name),
        columns=COLUMNS,
        notes=functools.partial(_notes, settings),
    )


class Setting:
    """A VAE trained for a short while, and the minibatch the gradients are taken at."""

    def __init__(self, settings: OfVAE, dataset: sets.Dataset):
        self.settings = settings
        self.dataset = dataset
        self.key = key_for(settings.seed, Purpose.SNR_VAE_GRADIENTS)
        # Nothing is chosen on the validation images here: the VAE trains on them too.
        images = np.concatenate([dataset.train, dataset.validation])
        self.intensities = jnp.asarray(
            images.reshape(len(images), -1) / (dataset.levels - 1), jnp.float32
        )
        # The first training images, binarised once and for all.
        images = self.intensities[: settings.batch_size]
        batch_key = key_for(settings.seed, Purpose.SNR_VAE_MINIBATCH)
        self.batch = jax.random.bernoulli(batch_key, images).astype(jnp.float32)
        self.vae = make_vae(
            self.intensities.shape[1], latents=settings.model.latents, hidden=settings.model.hidden
        )

    @functools.cached_property
    def params(self) -> bounds.Params:
        """Trained on the first use: a run whose points are all there does not train."""
        training, images = self.settings.training, self.intensities
        init_key, key = jax.random.split(key_for(self.settings.seed, Purpose.SNR_VAE_TRAINING))

        def batch(images, key, step):
            index_key, pixel_key = jax.random.split(key)
            index = jax.random.randint(index_key, (training.batch_size,), 0, len(images))
            x = jax.random.bernoulli(pixel_key, images[index]).astype(jnp.float32)
            return {"x": x, "index": index}

        optimizer = optax.adam(training.learning_rate)
        mesh = device_mesh(DATA, devices=jax.local_devices()[:1])
        state = train(
            from_objective(bounds.pathwise(self.vae.model, num_samples=1), mesh),
            init_state(self.vae.init(init_key, images.mean(axis=0)), optimizer),
            Stream(lambda first, length: images, batch, steps_per_epoch=training.num_steps),
            optimizer,
            key,
            num_steps=training.num_steps,
            mesh=mesh,
            on_chunk=lambda state, metrics: logging.info(
                "training step %d: ELBO %.2f nats", state.step, metrics["bound"]
            ),
        )
        return state.params


def _point(settings: OfVAE, setting: Setting, num_samples: int) -> list[Row]:
    at = {"K": num_samples}
    common = {
        "n": settings.replicates.number,
        "floor": bounds.snr_floor(settings.replicates.number),
        **_weight_diagnostics(setting, num_samples),
    }
    measured = {
        name: _measure(settings, setting, name, num_samples) for name in settings.estimators
    }
    rows = []
    for name, result in measured.items():
        for group in ("theta", "phi"):
            if group == "phi" or name == "pathwise":
                rows.append(
                    measure.ratio_row(
                        f"{group} {name}",
                        at,
                        measure.snr_squared(result, group),
                        seconds=result.seconds,
                        compile_seconds=result.compile_seconds,
                        **common,
                    )
                )
    if "pathwise" in measured:
        plain = measured["pathwise"]
        rows.append(
            measure.ratio_row(
                RATIO, at, measure.snr_squared_ratio(plain, "theta", plain, "phi"), **common
            )
        )
        if "dreg" in measured:
            better = measure.snr_squared_ratio(measured["dreg"], "phi", plain, "phi")
            rows.append(measure.ratio_row("phi dreg / pathwise", at, better, **common))
    return rows


def _measure(
    settings: OfVAE, setting: Setting, estimator: str, num_samples: int
) -> measure.Measurement:
    objective = ESTIMATORS[estimator](setting.vae.model, num_samples=num_samples)

    def batch_objective(params, key, batch):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(batch)))
        return jnp.mean(jax.vmap(objective, (None, 0, 0))(params, keys, batch))

    number = list(ESTIMATORS).index(estimator)
    return measure.measure(
        batch_objective,
        setting.params,
        jax.random.fold_in(jax.random.fold_in(setting.key, number), num_samples),
        setting.batch,
        num_replicates=settings.replicates.number,
        num_blocks=settings.replicates.num_blocks,
        chunk_size=chunk_size(settings.memory.chunk_elements, num_samples * settings.batch_size),
    )


def _weight_diagnostics(setting: Setting, num_samples: int) -> dict[str, float | None]:
    """ESS/K and k-hat, means over the minibatch and over 20 draws of the weights."""

    @jax.jit
    def diagnose(params, key):
        keys = jax.random.split(key, (20, len(setting.batch)))

        def one(key, x):
            log_w = bounds.log_weights(setting.vae.model, params, key, x, num_samples=num_samples)
            return bounds.effective_sample_size(log_w) / num_samples, bounds.pareto_k_hat(log_w)

        return jax.vmap(jax.vmap(one), (0, None))(keys, setting.batch)

    # K samples fold 10^6 + K, where every estimator folds a small number and then K.
    ess, k_hat = diagnose(setting.params, jax.random.fold_in(setting.key, 10**6 + num_samples))
    return {"ess_per_sample": float(jnp.mean(ess)), "k_hat": float(jnp.mean(k_hat))}


def _summarize(settings: OfVAE, rows: list[Row]) -> list[Row]:
    """Slopes over K; the one that means something here is that of theta over phi."""
    found = {
        name: measure.with_errors([r for r in rows if r["name"] == name])
        for name in (RATIO, "theta pathwise", "phi pathwise", "phi dreg")
    }
    return [
        measure.slope_row(name, {"axis": "K"}, used, "K")
        for name, used in found.items()
        if len(used) > 1
    ]


def _draw(settings: OfVAE, name: str, rows: list[Row], summary: list[Row]):
    figure, panels = new_figure(1, 2, (11, 6))
    series = [
        ("theta pathwise", "blue", r"$\theta$, IWAE", "o", 0),
        ("phi pathwise", "red", r"$\phi$, IWAE pathwise", "o", 0),
        ("phi dreg", "green", r"$\phi$, DReG", "s", 0),
        ("phi stl", "orange", r"$\phi$, STL (biased for K > 1)", "^", 0),
        (RATIO, "blue", r"SNR of $\theta$ / SNR of $\phi$, IWAE pathwise", "o", 1),
        ("phi dreg / pathwise", "green", r"SNR of $\phi$, DReG / pathwise", "s", 1),
    ]
    slopes = {r["name"].removeprefix("slope of "): r for r in summary}
    for curve, color, label, marker, panel in series:
        own = [r for r in rows if r["name"] == curve]
        if own:
            label = with_slope(label, slopes.get(curve))
            plot_points(panels[panel], own, "K", COLORS[color], label, marker)
    floor_line(panels[0], rows)
    panels[1].axhline(1, color=COLORS["gray"], ls=":", lw=1)
    panels[0].set_ylabel("signal-to-noise ratio (RMS over entries)")
    panels[1].set_ylabel("ratio of two signal-to-noise ratios")
    for axes in panels:
        finish(axes, rows, "samples K")
    figure.suptitle(
        f"VAE on {name}: {settings.replicates.number:,} gradients at one minibatch of "
        f"{settings.batch_size} images, 95% intervals"
    )
    return figure


def _notes(settings: OfVAE, rows: list[Row], summary: list[Row]) -> list[str]:
    above = [r for r in rows if r["name"] == "phi dreg / pathwise" and r["at"]["K"] >= 4]
    above = [r for r in above if r["low"] is not None]
    notes = [
        f"SNR: root mean square over entries, bias removed, {settings.replicates.number} gradients "
        "at one minibatch; 95% intervals by jackknife over "
        f"{settings.replicates.num_blocks} blocks of replicates.",
        "ESS/K and k-hat: means over the minibatch. An exponent of theta or phi alone is of this "
        "range of K, in which a trained VAE is far from asymptotic.",
    ]
    if above:
        worst = min(above, key=lambda r: r["low"])
        notes.append(
            f"Smallest SNR of DReG over pathwise at K >= 4: {worst['value']:.3f} "
            f"[{worst['low']:.3f}, {worst['high']:.3f}] at K={worst['at']['K']}."
        )
    return notes
