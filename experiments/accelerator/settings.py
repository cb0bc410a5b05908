"""Settings of `experiments.accelerator`: parts of a visit, their sizes and times."""

from typing import Annotated, Any, Literal

from pydantic import Field

from experiments.compile.settings import Entry
from experiments.runtime.settings import Count, Distinct, NotEmpty, Positive, Section, Seed
from experiments.studies.settings import Memory
from experiments.vae.settings import HeldOut

PartName = Literal[
    "numerics", "snr", "iwae50", "flowpp", "unet_float32", "unet_bfloat16", "log_p", "burda"
]


class Seconds(Section):
    """How long things may take.

    Attributes:
      visit: all parts together; no part starts after it.
      part: one part, which is ended then; what it has measured by then stays.
      loop: what a part repeats to time it.
      training: Burda's protocol, beside its evaluation.
    """

    visit: Positive
    part: Positive
    loop: Positive
    training: Positive


class Numerics(Section):
    """What is compared with float64 on the CPU.

    Attributes:
      size: rows and columns of the matrices.
      draws: of each kind of random number.
      num_samples: K of the gradients, of a VAE with `num_pixels`.
    """

    size: Count
    draws: Count
    num_samples: Count
    num_pixels: Count


class Figure(Section):
    """A config of experiments.snr, and section -> field -> value: changes to it."""

    config: str
    changes: dict[str, Any] = Field(default_factory=dict)


class Rate(Section):
    """A training, timed on pictures that are made up.

    Attributes:
      program: what is trained.
      steps: in one call.
    """

    program: Entry
    steps: Count


class Bound(Section):
    """The diffusion bound of the first made-up pictures, by `num_times` times of each."""

    num_images: Count
    num_times: Count
    images_per_pass: Count


class LogP(Section):
    """log p(x) of images drawn from the model that a training starts with.

    Attributes:
      images_per_block: after each block it may end.
      num_blocks: the most there are.
    """

    program: Entry
    images_per_block: Count
    num_blocks: Count
    few_samples: Count
    num_samples: Count
    memory: Memory


class Protocol(Section):
    """Burda's protocol as far as it comes, all K and seeds as one training.

    Attributes:
      num_samples: K of the models.
      seeds: of each K.
    """

    program: Entry
    data_dir: str
    num_samples: Annotated[tuple[Count, ...], NotEmpty, Distinct]
    seeds: Annotated[tuple[Seed, ...], NotEmpty, Distinct]
    evaluation: HeldOut
    memory: Memory


class Visit(Section):
    """The config of `experiments.accelerator`.

    Attributes:
      order: of the parts, the most important first; some will do.
    """

    order: Annotated[tuple[PartName, ...], NotEmpty, Distinct]
    seconds: Seconds
    numerics: Numerics
    snr: Figure
    iwae50: Rate
    flowpp: Rate
    unet_float32: Rate
    unet_bfloat16: Rate
    bound: Bound
    log_p: LogP
    burda: Protocol
