r"""Signal-to-noise ratio of gradients of IWAE: sqrt(K) for theta, 1/sqrt(K) for phi.

    python -m experiments.snr --config=configs/snr_gaussian.py:near --workdir=runs/snr

Writes results.json after every point, and at the end figure.png and figure.svg; the same command
continues a run that was stopped. Configs: snr_gaussian.py (near, far), snr_vae.py, snr_phase.py.
"""

from absl import flags, logging

from experiments.runtime import cli
from experiments.runtime.settings import Section
from experiments.snr.settings import Gaussian, OfVAE, Phase, parse

flags.adopt_module_key_flags(cli)


def main(settings: Section, workdir: str) -> None:
    """Measures what is missing, then fits, prints and draws everything."""
    # Imported here so that --help and a mistaken flag do not wait for JAX.
    import jax

    from experiments.runtime import plots, results
    from experiments.runtime.progress import track
    from experiments.snr import gaussian, phase, vae

    problems = {Gaussian: gaussian.problem, OfVAE: vae.problem, Phase: phase.problem}
    problem = problems[type(settings)](settings)
    record = results.open_record(workdir, "snr", settings)
    finished = {r["point"] for r in record["rows"] if "point" in r}
    todo = [p for p in problem.points if p.label not in finished]
    if len(todo) < len(problem.points):
        logging.info("%d of %d points are there already.", len(finished), len(problem.points))
    for point in track(todo, label=lambda p: p.label, unit="point"):
        with jax.default_matmul_precision("highest"):
            rows = [{**r, "point": point.label} for r in point.run()]
        record["rows"] += rows
        results.save_record(workdir, record)

    rows = [r for r in record["rows"] if "point" in r]
    summary = problem.summarize(rows)
    record["rows"] = rows + summary
    results.save_record(workdir, record)
    paths = plots.save(workdir, "figure", problem.draw(rows, summary))

    print(results.table([r for r in rows if r["unit"] in ("ratio", "nats")], problem.columns))
    if summary:
        columns = {"": "name", "value": "value", "low": "low", "high": "high", "theory": "theory"}
        print("\n" + results.table(summary, columns))
    print()
    for note in problem.notes(rows, summary):
        print(note)
    print()
    results.print_written(workdir, paths)


if __name__ == "__main__":
    cli.run(main, parse)
