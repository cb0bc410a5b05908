"""Settings of `experiments.estimators`."""

import itertools
from typing import Annotated

from pydantic import Field, model_validator

from experiments.runtime.settings import Distinct, NotEmpty, Section


class Estimators(Section):
    """The config of `experiments.estimators`.

    Attributes:
      num_samples: K.
      most_outcomes: of all draws of an estimator together, up to their order; as many nodes are in
        the Gauss-Hermite rules as this allows, up to 64, and what takes fewer than 8 is left out.
      betas: of the thermodynamic bound, from 0 to 1.
    """

    num_samples: Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], NotEmpty, Distinct]
    most_outcomes: Annotated[int, Field(ge=10, le=10**7)]
    betas: Annotated[tuple[float, ...], Field(min_length=2, max_length=100)]

    @model_validator(mode="after")
    def _betas(self):
        b = self.betas
        if b[0] != 0 or b[-1] != 1 or any(low >= high for low, high in itertools.pairwise(b)):
            raise ValueError(f"betas must start at 0, increase and end at 1, got {b}")
        return self
