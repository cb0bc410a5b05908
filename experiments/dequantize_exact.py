r"""Dequantization of one and two pixels, exactly: bounds, gaps, and two points for a lecture.

    python -m experiments.dequantize_exact --config=configs/dequantize_exact.py \
        --workdir=runs/dequantize_exact

P(x), the ELBO and the divergence of the noise from its posterior are integrals over each cell.
Writes results.json and figure.png: what becomes of a density that is fitted to integers without
noise, and of the same density with uniform and with fitted noise.
"""

from absl import flags

from experiments.dequantize.settings import DequantizeExact
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)


def main(settings: DequantizeExact, workdir: str) -> None:
    """Integrates, fits, prints and draws."""
    import jax

    from experiments.dequantize import exact
    from experiments.runtime import plots, results
    from experiments.runtime.keys import Purpose, key_for

    record = results.open_record(workdir, "dequantize_exact", settings)
    if not record["rows"]:
        keys = jax.random.split(key_for(settings.seed, Purpose.CONTROLS), 2)
        for control, key in zip(
            (exact.one_pixel(), exact.two_pixels(settings.levels, settings.seed)), keys, strict=True
        ):
            record["rows"] += exact.rows(
                control,
                num_steps=settings.noise.num_steps,
                learning_rate=settings.noise.learning_rate,
                counts=settings.noise.num_samples,
                key=key,
            )
        results.save_record(workdir, record)
    print(
        results.table(
            record["rows"],
            {
                "": "name",
                "pixels": "at.pixels",
                "noise": "at.noise",
                "kind": "kind",
                "unit": "unit",
                "value": "value",
                "standard error": "standard_error",
            },
        )
    )
    print("\nAverages over x by its probability; standard errors are over draws of noise.")
    fits = exact.degenerate_and_dequantized(
        num_components=settings.lecture.num_components,
        num_steps=settings.lecture.num_steps,
        learning_rate=settings.lecture.learning_rate,
        key=key_for(settings.seed, Purpose.CONTROLS),
    )
    entropy = next(r["value"] for r in record["rows"] if r["name"] == "exact")
    paths = plots.save(workdir, "figure", exact.lecture_figure(fits, entropy))
    results.print_written(workdir, paths)


if __name__ == "__main__":
    cli.run(main, DequantizeExact)
