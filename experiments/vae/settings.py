"""Settings of the programs of VAEs: train, evaluate and reference."""

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from experiments.runtime import settings
from experiments.runtime.settings import (
    BelowOne,
    Count,
    CountFrom0,
    Distinct,
    NotEmpty,
    Section,
    Seed,
    Width,
    matching,
)
from experiments.studies import settings as shared
from experiments.studies.settings import Memory, Objective, ObjectiveName, Records, rising_divisors

GROUPED = ("miwae", "piwae")  # objectives of M groups of K samples


class Data(shared.Data):
    """Images, binarised once and for all where they validate or test.

    Attributes:
      binarization_seed: of validation and test images, and of their evaluation.
    """

    binarization_seed: Seed


class Model(Section):
    """A VAE of Burda et al. 2015.

    Attributes:
      likelihood: of bits, or of integers.
      latents: dimensions of each stochastic layer, from the data upwards.
      hidden: for each of them the widths of its two perceptrons.
      encoder_hidden: those of the encoder's alone; None: as `hidden`.
    """

    likelihood: Literal["bernoulli", "categorical", "discretized_logistic"]
    latents: Annotated[tuple[Width, ...], NotEmpty]
    hidden: tuple[tuple[Width, ...], ...]
    encoder_hidden: tuple[tuple[Width, ...], ...] | None = None

    @model_validator(mode="after")
    def _layers(self):
        for name in ("hidden", "encoder_hidden"):
            found = getattr(self, name)
            if found is not None and len(found) != len(self.latents):
                raise ValueError(
                    f"{name} must have one entry for each of latents, got {found} for "
                    f"{self.latents}"
                )
        return self


class Trained(shared.Trained):
    """What identifies a trained VAE, beside its seed."""

    data: Data
    model: Model
    objective: Objective


class TrainedRun(Trained):
    """A run of experiments.train, as its config.json keeps it.

    Attributes:
      seed: that of the one model, or those of models that were trained together.
      data_dir: where the files of the data lie.
    """

    seed: Seed | Annotated[tuple[Seed, ...], NotEmpty, Distinct]
    data_dir: str

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all models that were trained together; one seed alone is a tuple of one."""
        return (self.seed,) if isinstance(self.seed, int) else self.seed


class HeldOut(Section):
    """How the test images are scored after training.

    Attributes:
      few_samples: K of the small bounds.
      num_samples: K of the large one.
      num_images: the first of the test images; 0: all.
    """

    few_samples: Count
    num_samples: Count
    num_images: CountFrom0


class Train(TrainedRun):
    """The config of `experiments.train`."""

    seed: Seed
    records: Records
    evaluation: HeldOut


class Drawn(Section):
    """Which images an evaluation is of.

    Attributes:
      split: of the data set.
      binarization_seed: of these images.
    """

    split: Literal["test", "validation"]
    binarization_seed: Seed


class Scores(HeldOut):
    """Bounds of an evaluation.

    Attributes:
      curve_samples: K of the curves, all from as many draws as the last.
      curve_alphas: orders of VR-IWAE; 0 is IWAE. Empty: no curves.
    """

    curve_samples: Annotated[tuple[Count, ...], NotEmpty]
    curve_alphas: Annotated[tuple[BelowOne, ...], Distinct]

    @model_validator(mode="after")
    def _curves(self):
        rising_divisors("curve_samples", self.curve_samples)
        return self


class Annealing(Section):
    """Annealed importance sampling, of test images and of data simulated from the model.

    Attributes:
      test_images: the first of them; 0: none.
      simulated_images: how many are drawn.
      temperatures: of a chain, both ends included.
      chains: for each image.
      leapfrog: steps of each transition.
      start: where the path to the joint begins; the prior is that of one stochastic layer.
    """

    test_images: CountFrom0
    simulated_images: Count
    temperatures: Annotated[int, Field(ge=2, le=100_000)]
    chains: Count
    leapfrog: Count
    start: Literal["encoder", "prior"] = "encoder"


class EvaluationMemory(Memory):
    """How much is in memory at once, annealed chains included."""

    ais_images_per_pass: Count


class Evaluate(Section):
    """The config of `experiments.evaluate`.

    Attributes:
      run: the --workdir of the training.
      checkpoint: best on validation, latest, or a step.
      member: which seed, of a run that trained several together; -1 for the only one.
      data_dir: where the files of the data lie; empty: where training found them.
      seed: of all draws.
    """

    run: str
    checkpoint: Annotated[str, matching(r"best|latest|[0-9]+", "best, latest or a step")]
    member: Annotated[int, Field(ge=-1, lt=2**32)]
    data_dir: str
    seed: Seed
    data: Drawn
    evaluation: Scores
    annealing: Annealing
    memory: EvaluationMemory


class Reference(Trained):
    """The config of `experiments.reference`: a grid of objectives and K, and seeds.

    Attributes:
      grid: entries OBJECTIVE:K, or OBJECTIVE:M:K for miwae and piwae.
    """

    grid: Annotated[tuple[str, ...], NotEmpty]
    seeds: Annotated[tuple[Seed, ...], NotEmpty, Distinct]
    together: bool
    data_dir: str
    records: Records
    evaluation: HeldOut
    memory: Memory

    def complete(self, where: str) -> None:
        """Parses what is trained at each entry of the grid."""
        entries = dict(zip(self.grid, self.entries(), strict=True))
        grid = f"{where}.grid"
        settings.each(self.grid, lambda e: self.at(*entries[e], f"{grid}.{e}"), grid)

    def at(self, objective: str, groups: int, samples: int, where: str = "--config") -> Trained:
        """What is trained at an entry of the grid, (objective, M, K)."""
        changes = {"name": objective, "num_groups": groups, "num_samples": samples}
        fields = settings.merged(settings.dump(self, Trained), {"objective": changes})
        return settings.parse(Trained, fields, where)

    def entries(self) -> list[tuple[str, int, int]]:
        """(objective, M, K) of each entry of the grid."""
        parts = [entry.split(":") for entry in self.grid]
        return [(name, int(groups[0]) if groups else 1, int(k)) for name, *groups, k in parts]

    @model_validator(mode="after")
    def _grid(self):
        for entry in self.grid:
            objective, _, counts = entry.partition(":")
            pattern = "[1-9][0-9]{0,5}" + (":[1-9][0-9]{0,5}" if objective in GROUPED else "")
            if objective not in get_args(ObjectiveName) or not re.fullmatch(pattern, counts):
                raise ValueError(
                    "grid has entries OBJECTIVE:K like 'iwae:5', or OBJECTIVE:M:K like 'piwae:8:8' "
                    f"for {' and '.join(GROUPED)}, with one of "
                    f"{', '.join(get_args(ObjectiveName))}, got {entry!r}"
                )
        if len(set(self.grid)) < len(self.grid):
            raise ValueError(f"grid must not name anything twice, got {self.grid}")
        return self
