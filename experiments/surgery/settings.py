"""Settings of `experiments.surgery`."""

from typing import Annotated, Any, Literal

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
from experiments.studies import settings as shared
from experiments.studies.settings import ModelName

TWO_DIMENSIONS = "two_dimensions"  # folder of the model whose posteriors are drawn
AtLeast2 = Annotated[int, Field(ge=2, le=2**31 - 1)]


class Data(Section):
    """The images, which are binarised once for all models."""

    binarization_seed: Seed


class Decomposition(Section):
    """The average KL taken apart.

    Attributes:
      num_images: the first training images; 0: all.
      num_draws: of z for each image.
      curve_draws: of z for each image, at each checkpoint.
      batch_size: of the estimates of I by minibatches.
      num_batches: of them.
    """

    num_images: CountFrom0
    num_draws: AtLeast2
    curve_draws: AtLeast2
    batch_size: AtLeast2
    num_batches: AtLeast2

    @model_validator(mode="after")
    def _images(self):
        if self.num_images == 1:
            raise ValueError("num_images must be 0 (all) or at least 2, got 1")
        return self


class OptimalPrior(Section):
    """The aggregated posterior as the prior.

    Attributes:
      num_images: the first test images; 0: all.
    """

    num_images: CountFrom0


class Gap(Section):
    """A Gaussian fitted to each image by itself, which starts at that of the encoder.

    Attributes:
      splits: "test" or "train" or both, each with rows of its own: on images that the encoder has
        not seen, the amortisation gap holds what its overfitting costs as well.
      num_images: the first of each; 0: all.
      num_steps: of Adam, its rate falling to 0.
      learning_rate: at the first of them.
      step_samples: draws of z a step.
      num_draws: of z, for each ELBO.
      num_samples: K of log p(x).
    """

    splits: Annotated[tuple[Literal["train", "test"], ...], NotEmpty, Distinct]
    num_images: CountFrom0
    num_steps: Count
    learning_rate: Positive
    step_samples: Count
    num_draws: AtLeast2
    num_samples: AtLeast2


class Picture(Section):
    """What IWAE's weights make of the posterior of a VAE with two dimensions.

    Attributes:
      model: section -> field -> value: its changes to the training; empty: none is drawn.
      num_samples: K.
      num_sets: of K - 1 draws, eight times.
      num_nodes: of the grid, on each side.
      num_draws: resampled.
    """

    model: dict[str, dict[str, Any]]
    num_samples: Annotated[tuple[AtLeast2, ...], NotEmpty, Distinct]
    num_sets: Count
    num_nodes: Annotated[int, Field(ge=8, le=10_000)]
    num_draws: Count


class Memory(shared.Memory):
    """How much is in memory at once, on each device.

    Attributes:
      posteriors_per_pass: of the mixture that is the aggregated posterior.
    """

    posteriors_per_pass: Count


class Surgery(Section):
    """The config of `experiments.surgery`.

    Attributes:
      training: config file of `experiments.train`, which models change.
      models: name -> section -> field -> value: changes to that config.
      runs: name -> --workdir of a finished run of `experiments.train`.
      checkpoint: best on validation, latest, or a step.
      member: which seed, of runs that trained several together; -1 for the only one.
      data_dir: where the files of the data lie; empty: where training finds them.
      seed: of all draws here.
    """

    training: str
    models: dict[ModelName, dict[str, Any]]
    runs: dict[str, str]
    checkpoint: Annotated[str, matching(r"best|latest|[0-9]+", "best, latest or a step")]
    member: Annotated[int, Field(ge=-1, lt=2**32)]
    data_dir: str
    seed: Seed
    data: Data
    decomposition: Decomposition
    prior: OptimalPrior
    gap: Gap
    picture: Picture
    memory: Memory

    @model_validator(mode="after")
    def _names(self):
        twice = sorted(self.models.keys() & self.runs.keys())
        if twice:
            raise ValueError(f"models and runs both have the name {twice[0]!r}")
        if not self.models and not self.runs:
            raise ValueError("models and runs are empty; name at least one model")
        if TWO_DIMENSIONS in {**self.models, **self.runs}:
            raise ValueError(f"{TWO_DIMENSIONS!r} is the name kept for picture.model")
        return self
