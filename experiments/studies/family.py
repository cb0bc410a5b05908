"""The contract of a family of bounds: what its folder exports for its program and for `compare`.

A family is a folder with `family.py`, whose FAMILY says how its config is parsed, what is refused
before anything trains, how it runs, and which of its rows stand in the table of all families. It
joins the comparison by its entry in `experiments.compare.families.FAMILIES`; a study of models and
seeds makes its FAMILY by `program.family`. CONTRIBUTING.md says step by step how one is added, and
tests/experiments/compare/test_new_family.py adds a small one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.runtime.results import Row
from experiments.runtime.settings import Section


class Job(NamedTuple):
    """One family in a comparison: settings, and where it runs or ran.

    Attributes:
      name: in the table.
      settings: of the program; of a finished run, those it had.
      folder: its --workdir.
      finished: whether it is taken as it is.
      scoring: settings of the program that scores it; None where it scores itself.
      scoring_folder: the --workdir of that one.
    """

    name: str
    settings: Any
    folder: str
    finished: bool
    scoring: Any = None
    scoring_folder: str = ""


class Family(NamedTuple):
    """What a family gives.

    Attributes:
      program: `experiments.PROGRAM`, and what its record calls it.
      settings: what its config is parsed into, with `data` (a `settings.Data`) and `data_dir`.
      scoring: likewise of the program that scores it; None where it scores itself.
      check: refuses, as a UserError, all that the program would refuse, and a model whose
        log-probabilities are not of the integers of the images.
      run: trains and scores what is missing in the job's folders.
      rows: those of the table, each made by `comparable.bound`, from the records in the
        job's folders.
    """

    program: str
    settings: type[Section]
    scoring: type[Section] | None
    check: Callable[[Job], None]
    run: Callable[[Job], None]
    rows: Callable[[Job], list[Row]]
