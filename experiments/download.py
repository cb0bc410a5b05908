r"""Downloads the official files of one data set and checks them.

    python -m experiments.download --dataset=mnist --data_dir=data

Each file goes to the data set's folder in data_dir; one that is there and right, unpacked or
packed again included, is left alone. A download that was cut short starts again.
"""

import os
import sys
from typing import NoReturn

from absl import app, flags

from experiments.runtime import paths
from experiments.runtime.errors import UserError
from experiments.runtime.exits import fail, finish, parse, steady_streams

DATASET = flags.DEFINE_string("dataset", None, "Which data set, e.g. mnist.")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder for the files; made if it is not there.")


def download(dataset: str, data_dir: str) -> str:
    """Fetches what is not there yet, loads the data set, and says in one line what it holds.

    Raises:
      UserError: unknown data set, no download of it, no connection, or no room for it.
    """
    from experiments.data import captions, files, sets

    for source in (*files.SOURCES.get(dataset, ()), *captions.SOURCES.get(dataset, ())):
        try:
            files.read_source(dataset, source, data_dir)
        except UserError:
            if not source.checksum:
                raise UserError(
                    f"{source.file} of {dataset} cannot be downloaded: {files.where_from(source)}"
                ) from None
            folder = os.path.join(data_dir, files.FOLDERS[dataset])
            _fetch(source.url, source.checksum, os.path.join(folder, source.published_name))
    loaded = sets.load(dataset, data_dir)
    train, validation, test = (f"{len(i):,}" for i in loaded[1:4])
    size = "x".join(map(str, loaded.train.shape[1:]))
    return (
        f"{loaded.name}: {train} training, {validation} validation and {test} test images, "
        f"{size}, {loaded.levels} levels"
    )


def _fetch(url: str, checksum: str, path: str) -> None:
    """Puts the file at `url` at `path`, whole and right or not at all."""
    try:
        import pooch
    except ImportError:
        raise UserError(
            "downloading needs pooch, which is not installed; run: pip install -e '.[data]'"
        ) from None
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
        pooch.retrieve(url, known_hash=checksum, fname=name, path=folder, progressbar=True)
        os.chmod(path, 0o644)  # pooch's files are the owner's alone
    except (OSError, ValueError) as error:  # exceptions of requests are OSErrors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot download {url} to {path}: {reason}") from None


def _main(argv: list[str]) -> None:
    del argv
    if not DATASET.value or not DATA_DIR.value:
        fail("--dataset and --data_dir are needed, e.g. --dataset=mnist --data_dir=data")
    try:
        data_dir = os.path.abspath(paths.local("--data_dir", DATA_DIR.value))
        print(download(DATASET.value, data_dir))
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("Stopped; the same command fetches what is missing.", file=sys.stderr)
        raise SystemExit(130) from None
    finish()


def run() -> NoReturn:
    """Parses the flags, downloads and exits: 0 when all is there, 2 when the user can mend it."""
    steady_streams()
    app.run(_main, flags_parser=parse)
    raise SystemExit(0)


if __name__ == "__main__":
    run()
