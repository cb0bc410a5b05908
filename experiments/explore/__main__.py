r"""The interactive page of the lecture hall: bounds and gradients of a model that is known exactly.

    python -m experiments.explore --config=configs/explore.py --workdir=docs

Reads the results of finished runs of experiments.snr on the Gaussian toy, --config.runs, and writes
explore.html to --workdir: one file that opens from disk without a network. Its curves are computed
in the page; the runs give the points on them.
"""

import os

from absl import flags

from experiments.explore.settings import Explore
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)
FILE = "explore.html"


def main(settings: Explore, workdir: str) -> None:
    """Reads the runs and writes the page."""
    # Imported here so that --help and a mistaken flag do not wait for JAX.
    from experiments.explore import measured, page
    from experiments.runtime import cluster, results
    from experiments.runtime.errors import UserError

    runs = [measured.load(name, folder) for name, folder in settings.runs.items()]
    text, path = page.page(runs), os.path.join(workdir, FILE)

    @cluster.by_first
    def write() -> None:
        try:
            os.makedirs(workdir, exist_ok=True)
            results.write_atomically(path, text.encode())
        except OSError as error:
            raise UserError(f"cannot write to --workdir={workdir}: {error.strerror}.") from None

    write()
    print("Written:", path)


if __name__ == "__main__":
    cli.run(main, Explore)
