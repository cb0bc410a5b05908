"""Settings of `experiments.advise`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from experiments.runtime.settings import (
    Count,
    CountFrom0,
    Distinct,
    NotEmpty,
    Positive,
    Section,
    Seed,
    matching,
)
from experiments.studies.settings import Betas, Data

ModelName = Literal[
    "Gaussian, near", "Gaussian, far", "VAE", "two-layer VAE", "dVAE", "NumPyro",
]  # fmt: skip
BLOCKS = 20


class Asked(Section):
    """What is asked of `bounds.advise`, see there.

    Attributes:
      num_data: of the batch.
      num_samples: each K; none: no advice.
      num_replicates: a multiple of 20.
      betas: of the thermodynamic bound, from 0 to 1.
    """

    num_data: Count
    num_samples: Annotated[tuple[Count, ...], Distinct]
    cost: Literal["seconds", "flops"]
    num_replicates: Annotated[int, Field(ge=2 * BLOCKS, le=2**31 - 1, multiple_of=BLOCKS)]
    num_calls: Count
    betas: Betas


class Training(Section):
    """Adam, for the models of images: before they are asked about, and in the check."""

    num_steps: Count
    batch_size: Count
    learning_rate: Positive


class Check(Section):
    """Trainings by the plain estimator and by the one that is advised, both of IWAE-K.

    Attributes:
      seeds: of the trainings; none: no check.
      num_samples: K, one of those asked about.
      seconds: of processor time for each training.
      test_samples: of the bound on the test images.
    """

    seeds: Annotated[tuple[Seed, ...], Distinct]
    num_samples: Annotated[int, Field(ge=2, le=2**31 - 1)]
    seconds: Positive
    test_samples: Count


class Chains(Section):
    """Values of the VAE at equal numbers of decoder gradients.

    Attributes:
      gradients: for each image, multiples of `num_bridges`; none: no table.
      num_bridges: of UHA and of AIS.
      num_steps: in which the path of UHA is trained.
      num_images: the first of the test images; 0: all.
    """

    gradients: Annotated[tuple[Count, ...], Distinct]
    num_bridges: Annotated[int, Field(ge=1, le=1000)]
    num_steps: Count
    num_images: CountFrom0

    @model_validator(mode="after")
    def _whole(self):
        if any(count % self.num_bridges for count in self.gradients):
            raise ValueError(
                f"gradients must be multiples of num_bridges ({self.num_bridges}), got "
                f"{self.gradients}"
            )
        return self


class Advise(Section):
    """The config of `experiments.advise`.

    Attributes:
      models: those of the program that are asked about.
      run: the --workdir of a run of experiments.train, whose VAE is asked about in their place;
        empty: none.
      checkpoint: best on validation, latest, or a step.
      member: which seed, of a run that trained several together; -1 for the only one.
      data_dir: where the files of the data lie; empty: where training found them.
      seed: of everything that is drawn here.
    """

    models: Annotated[tuple[ModelName, ...], NotEmpty, Distinct]
    run: str
    checkpoint: Annotated[str, matching(r"best|latest|[0-9]+", "best, latest or a step")]
    member: Annotated[int, Field(ge=-1, lt=2**32)]
    data: Data
    data_dir: str
    seed: Seed
    training: Training
    advice: Asked
    check: Check
    chains: Chains

    @model_validator(mode="after")
    def _checked(self):
        if self.check.seeds and self.check.num_samples not in self.advice.num_samples:
            raise ValueError(
                "check must have a num_samples that is asked about, one of "
                f"{self.advice.num_samples}, got {self.check.num_samples}"
            )
        return self
