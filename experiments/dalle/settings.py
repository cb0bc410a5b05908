"""Settings of `experiments.dalle`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from experiments.runtime.settings import (
    AtLeast0,
    BelowOne,
    Count,
    CountFrom0,
    Depth,
    NotEmpty,
    Positive,
    Section,
    Seed,
    Width,
)
from experiments.studies import settings as shared
from experiments.studies.settings import Memory


class Data(shared.Data):
    """Images with captions.

    Attributes:
      enlarge: how often each pixel is repeated, in both directions.
      text_length: words of a caption, at most.
    """

    enlarge: Depth
    text_length: Width


class Model(Section):
    """A discrete VAE: tokens in a grid, residual blocks between.

    Attributes:
      grid: tokens in a row.
      width: filters at full resolution, doubled where it halves.
      num_blocks: for each resolution.
      embedding: width of a code.
    """

    likelihood: Literal[
        "bernoulli", "discretized_logistic", "discretized_logit_laplace", "logit_laplace"
    ]
    grid: Width
    num_codes: Annotated[int, Field(ge=2, le=2**16)]
    width: Width
    num_blocks: Depth
    embedding: Width


class Objective(Section):
    """The first stage: beta rises, and the temperature falls, along half a cosine.

    Attributes:
      num_samples: of vimco and reinforce.
      beta: weight of the divergence, reached in `beta_steps`.
      temperature_start: of relaxed tokens.
      temperature_end: reached in `temperature_steps`.
    """

    name: Literal["relaxed", "vimco", "reinforce", "enumerated"]
    num_samples: Count
    beta: AtLeast0
    beta_steps: CountFrom0
    temperature_start: Positive
    temperature_end: Positive
    temperature_steps: CountFrom0

    @model_validator(mode="after")
    def _fits(self):
        if self.name in ("vimco", "reinforce") and self.beta == 0:
            raise ValueError(
                f"{self.name} needs beta above 0, by which it divides; choose relaxed or enumerated"
            )
        if self.name == "vimco" and self.num_samples < 2:
            raise ValueError(f"vimco needs num_samples of at least 2, got {self.num_samples}")
        return self


class Prior(Section):
    """The second stage: a transformer over text and image tokens.

    Attributes:
      network: causal, or masked: it predicts masked tokens, in any order.
      dropout: while it is trained.
      tokens: those it is trained on.
      text_weight: of log p(y) in nats.
      image_weight: of log p(z | y) in nats.
      num_steps: of the second stage, in place of that of the first.
      learning_rate: of the second stage, in place of that of the first.
    """

    network: Literal["causal", "masked"] = "causal"
    num_layers: Depth
    width: Width
    num_heads: Width
    dropout: BelowOne
    tokens: Literal["sampled", "argmax"]
    text_weight: AtLeast0
    image_weight: AtLeast0
    num_steps: Count
    learning_rate: Positive

    @model_validator(mode="after")
    def _heads(self):
        if self.width % self.num_heads:
            raise ValueError(f"num_heads must divide width ({self.width}), got {self.num_heads}")
        return self

    @model_validator(mode="after")
    def _weights(self):
        if self.text_weight == self.image_weight == 0:
            raise ValueError("text_weight and image_weight are both 0; raise one")
        return self


class Trained(shared.Trained):
    """What identifies a trained model."""

    data: Data
    model: Model
    objective: Objective
    prior: Prior

    @model_validator(mode="after")
    def _prior_length(self):
        shared.warmup_within("prior", self.prior.num_steps, self.optimizer)
        return self


class Evaluation(Section):
    """How the test images are scored.

    Attributes:
      num_images: the first of them; 0: all.
      num_draws: of z, for relaxed against hard values.
      num_samples: of z, for IWAE where codes are too many to be summed over.
      temperatures: of relaxed values.
      seed: of the draws.
      sample_grid: images of each caption; 0: none.
      captions: to draw; empty: those of the classes.
    """

    num_images: CountFrom0
    num_draws: Count
    num_samples: Count
    temperatures: Annotated[tuple[Positive, ...], NotEmpty]
    seed: Seed
    sample_grid: CountFrom0
    captions: tuple[str, ...]


class Dalle(Trained, shared.Study):
    """The config of `experiments.dalle`."""

    OF_MODEL: ClassVar[type[shared.Trained]] = Trained
    evaluation: Evaluation
    memory: Memory
