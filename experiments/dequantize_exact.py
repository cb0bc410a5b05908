r"""Dequantization of one and two pixels, exactly: bounds, gaps, and two points for a lecture.

    python -m experiments.dequantize_exact --config=configs/dequantize_exact.py \
        --workdir=runs/dequantize_exact

P(x), the ELBO and the divergence of the noise from its posterior are integrals over each cell.
Writes results.json and figure.png: what becomes of a density that is fitted to integers without
noise, and of the same density with uniform and with fitted noise.
"""

import os

from absl import flags

from experiments.runtime import cli, cluster

flags.adopt_module_key_flags(cli)


def main(config, workdir: str) -> None:
    """Integrates, fits, prints and draws."""
    import jax

    from experiments.dequantize import exact
    from experiments.runtime import plots, results

    cluster.refuse("experiments.dequantize_exact")
    exact.check_config(config)
    record = results.open_record(workdir, "dequantize_exact", config)
    if not record["rows"]:
        keys = jax.random.split(jax.random.key(config.seed), 2)
        for control, key in zip(
            (exact.one_pixel(), exact.two_pixels(config.levels, config.seed)), keys, strict=True
        ):
            record["rows"] += exact.rows(
                control, num_steps=config.noise_steps, learning_rate=config.noise_rate,
                counts=tuple(config.counts), key=key,
            )  # fmt: skip
        results.save_record(workdir, record)
    print(
        results.table(
            record["rows"],
            {
                "": "name", "pixels": "at.pixels", "noise": "at.noise", "kind": "kind",
                "unit": "unit", "value": "value", "standard error": "standard_error",
            },
        )
    )  # fmt: skip
    print("\nAverages over x by its probability; standard errors are over draws of noise.")
    fits = exact.degenerate_and_dequantized(
        num_components=config.lecture_components, num_steps=config.lecture_steps,
        learning_rate=config.lecture_rate, key=jax.random.key(config.seed),
    )  # fmt: skip
    entropy = next(r["value"] for r in record["rows"] if r["name"] == "exact")
    paths = plots.save(workdir, "figure", exact.lecture_figure(fits, entropy))
    print("Written:", ", ".join([os.path.join(workdir, results.FILE), *paths]))


if __name__ == "__main__":
    cli.run(main)
