"""Settings of `experiments.audit`."""

from typing import Annotated

from pydantic import Field, model_validator

from experiments.runtime.settings import Count, CountFrom0, Section, Seed, matching

RATIO = 8  # of K to the samples that K is compared with
Many = Annotated[int, Field(ge=100, le=2**31 - 1)]
"""As many as a statistic needs."""


class Checks(Section):
    """What is drawn.

    Attributes:
      num_data: simulated data.
      num_samples: K, a multiple of 8: claims by K samples are compared with those by K / 8.
      num_gradients: pairs of gradients.
      num_temperatures: of AIS on each datum; 0: none.
      num_draws: claims for each datum.
      false_alarm_rate: of each of the two reports.
    """

    num_data: Many
    num_samples: Count
    num_gradients: Many
    num_temperatures: CountFrom0
    num_draws: Annotated[int, Field(ge=4, le=2**31 - 1)]
    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _counts(self):
        if self.num_samples % RATIO:
            raise ValueError(f"num_samples must be a multiple of {RATIO}, got {self.num_samples}")
        if self.num_temperatures in (1, 2):
            raise ValueError(
                f"num_temperatures must be 0 (none) or at least 3, got {self.num_temperatures}"
            )
        return self


class Memory(Section):
    """How much is in memory at once: it changes results by rounding alone."""

    data_per_pass: Count


class Audit(Section):
    """The config of `experiments.audit`.

    Attributes:
      run: the --workdir of a run of experiments.train, dequantize, diffusion, masked or dalle.
      model: which of the models of a study; empty: the first.
      member: which seed; -1: the first.
      checkpoint: best on validation, latest, or a step.
      data_dir: where the files of the data lie; empty: where training found them.
      seed: of all draws.
    """

    run: str
    model: str
    member: Annotated[int, Field(ge=-1, lt=2**32)]
    checkpoint: Annotated[str, matching(r"best|latest|[0-9]+", "best, latest or a step")]
    data_dir: str
    seed: Seed
    checks: Checks
    memory: Memory
