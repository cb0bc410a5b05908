"""Settings of `experiments.compile`: what is compiled, each from the config of its program."""

from typing import Annotated, Any, Literal

from pydantic import Field

from experiments.runtime.settings import NotEmpty, Section

PARTS = Literal[
    "train", "evaluate", "dequantize", "diffusion", "dalle", "dalle_prior", "masked",
    "masked_evaluate", "snr",
]  # fmt: skip


class Entry(Section):
    """One program that runs on the devices.

    Attributes:
      part: a training step (of dalle the first stage, of dalle_prior the second), a pass of images
        of evaluate or of the ELBO of masked, or the gradients of snr at the last of its num_samples
        by the last of its estimators.
      config: file of the program's config, or FILE:VARIANT; of evaluate, that of the training.
      changes: section -> field -> value: changes to it.
      model: of a program that has several, which; empty: the only one, or none.
      evaluation: file of the config by which evaluate scores; empty for the others.
    """

    part: PARTS
    config: str
    changes: dict[str, Any] = Field(default_factory=dict)
    model: str = ""
    evaluation: str = ""


class Compile(Section):
    """The config of `experiments.compile`.

    Attributes:
      order: of the programs; a part will do.
      programs: by their names in the table.
    """

    order: Annotated[tuple[str, ...], NotEmpty]
    programs: Annotated[dict[str, Entry], NotEmpty]
