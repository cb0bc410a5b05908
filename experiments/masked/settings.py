"""Settings of `experiments.masked`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from experiments.runtime.settings import (
    BelowOne,
    Count,
    CountFrom0,
    Depth,
    Distinct,
    NotEmpty,
    Section,
    Seed,
    Width,
)
from experiments.studies import settings as shared
from experiments.studies.settings import Memory

MOST_OF_CROP = 12  # tokens, of which all visible sets are gone through


class Network(Section):
    """A bidirectional transformer over the pixels of an image, each one a token."""

    num_layers: Depth
    width: Width
    num_heads: Width
    dropout: BelowOne

    @model_validator(mode="after")
    def _heads(self):
        if self.width % self.num_heads:
            raise ValueError(f"num_heads must divide width ({self.width}), got {self.num_heads}")
        return self


class Objective(Section):
    """What is minimised.

    Attributes:
      name: count and time are the ELBO by one count or one time of each image; sum and mean the
        loss of its masked pixels without the weight 1/t, which bounds nothing.
      draws: of the counts and times of a batch.
    """

    name: Literal["count", "time", "sum", "mean"]
    draws: Literal["uniform", "low_discrepancy"]


class Trained(shared.Trained):
    """What identifies a trained model."""

    network: Network
    objective: Objective


class Evaluation(Section):
    """How the test images are scored.

    Attributes:
      num_images: the first of them; 0: all.
      num_counts: masks of each image, for the ELBO.
      steps: of the chains that are bounded as well.
      num_orders: K of IWAE over orders.
      varied_images: the first of the test images, each estimate of which is repeated for how much
        it varies; 0: none.
      crop: rows and columns in the middle of an image, of which all orders are summed over.
      seed: of the draws.
      sample_grid: images drawn; 0: none.
    """

    num_images: CountFrom0
    num_counts: Count
    steps: Annotated[tuple[Annotated[int, Field(ge=1, le=10**4)], ...], NotEmpty, Distinct]
    num_orders: Count
    varied_images: CountFrom0
    crop: Annotated[tuple[Annotated[int, Field(ge=1, le=MOST_OF_CROP)], ...], NotEmpty]
    seed: Seed
    sample_grid: CountFrom0

    @model_validator(mode="after")
    def _crop(self):
        if len(self.crop) != 2 or self.crop[0] * self.crop[1] > MOST_OF_CROP:
            raise ValueError(
                f"crop must be rows and columns of at most {MOST_OF_CROP} pixels, whose subsets "
                f"are all gone through; got {self.crop}"
            )
        return self


class Masked(Trained, shared.Study):
    """The config of `experiments.masked`."""

    OF_MODEL: ClassVar[type[shared.Trained]] = Trained
    evaluation: Evaluation
    memory: Memory
