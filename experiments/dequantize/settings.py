"""Settings of `experiments.dequantize` and `experiments.dequantize_exact`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from experiments.runtime.settings import (
    BelowOne,
    Count,
    CountFrom0,
    Depth,
    DepthFrom0,
    Distinct,
    NotEmpty,
    Positive,
    Section,
    Seed,
    Width,
    matching,
)
from experiments.studies import settings as shared
from experiments.studies.settings import Memory, rising_divisors

_PART = "squeeze, checkerboard:N or channels:N with N from 1 to 99"
_PATTERN = r"squeeze|(checkerboard|channels):[1-9][0-9]?"
COUPLINGS = Literal["affine", "mixture"]
NOISES = Literal["uniform", "logistic", "normal", "flow", "autoregressive"]


class Model(Section):
    """The density of continuous data, or of integers.

    Attributes:
      density: flow; or subset_flow or discretized, which are autoregressive and exact.
      coupling: of flow.
      num_components: of mixtures.
      layout: of flow: "checkerboard:N" or "channels:N" for N couplings, and "squeeze".
      norm: of flow: what activation norms stand between couplings.
      pointwise: of flow: invertible 1x1 maps between couplings.
      network: of couplings.
      width: of perceptrons, or filters of convolutions.
      num_layers: of perceptrons, or blocks of convolutions.
      attention: of convolutions.
      dropout: of all networks, those of the noise included.
    """

    density: Literal["flow", "subset_flow", "discretized"]
    coupling: COUPLINGS
    num_components: Width
    layout: Annotated[
        tuple[Annotated[str, matching(_PATTERN, _PART)], ...],
        Field(min_length=1, max_length=20),
    ]
    norm: Literal["pixel", "channel", "none"]
    pointwise: bool
    network: Literal["dense", "convolutional"]
    width: Width
    num_layers: Depth
    attention: bool
    dropout: BelowOne


class Noise(Section):
    """The noise a density is trained with.

    Attributes:
      name: its family.
      width: of its networks, as of those of the density.
      num_layers: of its networks, as of those of the density.
      num_couplings: of flow.
      coupling: of flow.
      num_components: of mixtures.
      norm: of flow: whether activation norms stand between couplings.
      pointwise: of flow: invertible 1x1 maps.
      attention: of convolutions.
      num_features: filters of a network on the image; 0: the image itself.
      num_feature_blocks: of that network.
    """

    name: NOISES
    width: Width
    num_layers: Depth
    num_couplings: DepthFrom0
    coupling: COUPLINGS
    num_components: Width
    norm: bool
    pointwise: bool
    attention: bool
    num_features: Annotated[int, Field(ge=0, le=2**16)]
    num_feature_blocks: DepthFrom0


class Objective(shared.Objective):
    """Also `exact`: log P(x) itself, of densities that have it."""

    name: Literal[shared.ObjectiveName, "exact"]


class Refit(Section):
    """Noise fitted to a finished density, with which it is evaluated.

    Attributes:
      noise: its family; empty: none.
      num_steps: of its training.
    """

    noise: Literal[NOISES, ""]
    num_steps: Count


class Trained(shared.Trained):
    """What identifies a trained density."""

    model: Model
    noise: Noise
    objective: Objective

    @model_validator(mode="after")
    def _objective(self):
        density, exact = self.model.density, self.objective.name == "exact"
        if exact and density == "flow":
            raise ValueError("objective.name=exact: a flow has no exact objective; choose elbo")
        if not exact and density == "discretized":
            raise ValueError(
                f"objective.name={self.objective.name}: a discretized density is of integers; "
                "choose exact"
            )
        return self


class OfModel(Trained):
    """What a model of a study may change."""

    refit: Refit

    @model_validator(mode="after")
    def _refit_length(self):
        if self.refit.noise:
            shared.warmup_within("refit", self.refit.num_steps, self.optimizer)
        return self


class Evaluation(Section):
    """How the test images are scored.

    Attributes:
      num_images: the first of them; 0: all.
      num_samples: k of the IWAE-k curve.
      seed: of the noise.
      sample_grid: images drawn; 0: none.
    """

    num_images: CountFrom0
    num_samples: Annotated[tuple[Count, ...], NotEmpty]
    seed: Seed
    sample_grid: CountFrom0

    @model_validator(mode="after")
    def _curve(self):
        rising_divisors("num_samples", self.num_samples)
        return self


class Dequantize(OfModel, shared.Study):
    """The config of `experiments.dequantize`."""

    OF_MODEL: ClassVar[type[shared.Trained]] = OfModel
    evaluation: Evaluation
    memory: Memory


class ExactNoise(Section):
    """Noise fitted to densities of one and two pixels.

    Attributes:
      num_steps: of its training.
      learning_rate: of Adam.
      num_samples: k of IW-k, each a divisor of the largest.
    """

    num_steps: Count
    learning_rate: Positive
    num_samples: Annotated[tuple[Count, ...], NotEmpty, Distinct]

    @model_validator(mode="after")
    def _divisors(self):
        if any(max(self.num_samples) % k for k in self.num_samples):
            raise ValueError(f"num_samples must divide the largest of them, got {self.num_samples}")
        return self


class Lecture(Section):
    """Densities fitted with and without noise, for the figure."""

    num_components: Width
    num_steps: Count
    learning_rate: Positive


class DequantizeExact(Section):
    """The config of `experiments.dequantize_exact`.

    Attributes:
      levels: of each of two pixels.
    """

    seed: Seed
    levels: Annotated[int, Field(ge=2, le=256)]
    noise: ExactNoise
    lecture: Lecture
