"""Settings of `experiments.estimators`."""

from typing import Annotated

from pydantic import Field

from experiments.runtime.settings import Distinct, NotEmpty, Section
from experiments.studies.settings import Betas


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
    betas: Betas
