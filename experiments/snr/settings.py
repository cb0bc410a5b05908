"""Settings of `experiments.snr`: a config is of one of three problems."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from experiments.runtime import settings
from experiments.runtime.errors import UserError
from experiments.runtime.settings import (
    AtLeast0,
    Count,
    CountFrom0,
    Distinct,
    NotEmpty,
    Positive,
    Section,
    Seed,
    Share,
)
from experiments.studies.settings import Data
from experiments.vae.settings import Model as VAE

EstimatorName = Literal["pathwise", "dreg", "stl", "elbo", "rloo", "ovis", "left sum", "tvo"]
NEED_TWO = ("rloo", "ovis", "tvo")  # samples
Dims = Annotated[int, Field(ge=1, le=10_000)]  # of a matrix with as many rows and columns
Counts = Annotated[tuple[Count, ...], NotEmpty, Distinct]


class Replicates(Section):
    """How many gradients are drawn.

    Attributes:
      number: R, a multiple of `num_blocks`.
      num_blocks: consecutive replicates that the jackknife leaves out together.
    """

    number: Count
    num_blocks: Annotated[int, Field(ge=2, le=2**31 - 1)]

    @model_validator(mode="after")
    def _blocks(self):
        if self.number < 2 * self.num_blocks or self.number % self.num_blocks:
            raise ValueError(
                f"number must be a multiple of num_blocks ({self.num_blocks}) and at least "
                f"{2 * self.num_blocks}, got {self.number}"
            )
        return self


class Memory(Section):
    """How much is in memory at once.

    Attributes:
      chunk_elements: samples times dimensions, or times images.
    """

    chunk_elements: Count


class Toy(Section):
    """The Gaussian toy of Rainforth et al. 2018.

    Attributes:
      num_data: N.
      datum: gradients are taken at this one.
      variance: of q, in every direction: the covariance, not the deviation.
      perturbation: standard deviation of what is added to every optimal parameter.
    """

    num_data: Annotated[int, Field(ge=1, le=10**7)]  # drawn at once
    datum: CountFrom0
    variance: Positive
    perturbation: AtLeast0

    @model_validator(mode="after")
    def _datum(self):
        if self.datum >= self.num_data:
            raise ValueError(f"datum must be below num_data ({self.num_data}), got {self.datum}")
        return self


class GaussianToy(Toy):
    """The toy at one dimension D."""

    num_dims: Dims


class Fit(Section):
    """From which K slopes are fitted.

    Attributes:
      slopes: whether they are; far from the optimum nothing is asymptotic.
      first: the smallest K that slopes other than DReG's are fitted from.
      first_dreg: the smallest K that the slope of DReG is fitted from.
    """

    slopes: bool
    first: Count
    first_dreg: Count


class Gaussian(Section):
    """The Gaussian toy: SNR over K of IWAE, over M of the ELBO.

    Attributes:
      estimators: over K, where they take it; rloo is over M.
      elbo: whether anything is measured over M.
    """

    problem: Literal["gaussian"]
    seed: Seed
    toy: GaussianToy
    num_samples: Counts
    estimators: Annotated[tuple[EstimatorName, ...], NotEmpty, Distinct]
    elbo: bool
    replicates: Replicates
    fit: Fit
    memory: Memory

    @model_validator(mode="after")
    def _of_elbo(self):
        if "rloo" in self.estimators and not self.elbo:
            raise ValueError("elbo must be True for rloo, which is of the ELBO")
        return self


class Phase(Section):
    """The phase diagram of VR-IWAE over alpha, K and D on the toy.

    Attributes:
      gaps: draws of the bound itself at each point, for its distance to log p(x); None: none.
    """

    problem: Literal["phase"]
    seed: Seed
    toy: Toy
    num_dims: Annotated[tuple[Dims, ...], NotEmpty, Distinct]
    alphas: Annotated[tuple[Share, ...], NotEmpty, Distinct]
    num_samples: Counts
    fit_from: Count
    replicates: Replicates
    gaps: Annotated[int, Field(ge=2, le=2**31 - 1)] | None = None
    memory: Memory

    @model_validator(mode="after")
    def _orders(self):
        if self.gaps and 1.0 in self.alphas:
            raise ValueError("alphas must be below 1 where gaps are measured: there is the ELBO's")
        return self


class ShortTraining(Section):
    """A short training of the VAE by the ELBO and Adam."""

    num_steps: Count
    batch_size: Count
    learning_rate: Positive


class OfVAE(Section):
    """A VAE after a short training, at a fixed minibatch.

    Attributes:
      batch_size: images of that minibatch.
    """

    problem: Literal["vae"]
    seed: Seed
    data_dir: str
    data: Data
    model: VAE
    training: ShortTraining
    batch_size: Count
    num_samples: Counts
    estimators: Annotated[tuple[EstimatorName, ...], NotEmpty, Distinct]
    replicates: Replicates
    memory: Memory

    @model_validator(mode="after")
    def _more_than_one(self):
        needy = [name for name in self.estimators if name in NEED_TWO]
        if needy and 1 in self.num_samples:
            raise ValueError(f"num_samples must be at least 2 for {needy[0]}")
        return self


PROBLEMS: dict[str, type[Section]] = {"gaussian": Gaussian, "vae": OfVAE, "phase": Phase}


def parse(config: Mapping[str, Any]) -> Section:
    """The settings of the problem that a config names.

    Raises:
      UserError: it names none, or a field is wrong.
    """
    problem = config.get("problem")
    if not isinstance(problem, str) or problem not in PROBLEMS:
        raise UserError(
            f"--config.problem must be one of {', '.join(PROBLEMS)}, got {problem!r}; "
            "--config=configs/snr_gaussian.py:near is one of them."
        )
    return settings.parse(PROBLEMS[problem], config)
