"""Settings of `experiments.reproduced`."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from experiments.runtime.settings import Distinct, NotEmpty, Section
from experiments.studies.settings import ModelName


class Part(Section):
    """A program of this project with the config in which a published number is measured again.

    Attributes:
      program: one of `programs.PROGRAMS`.
      config: file of its config, or FILE:VARIANT.
      changes: section -> field -> value: changes to it. `{parts}` in a text is the folder in which
        the other parts lie.
    """

    program: str
    config: str
    changes: dict[str, Any] = Field(default_factory=dict)


class Reproduced(Section):
    """The config of `experiments.reproduced`.

    Attributes:
      data_dir: where the files of the data lie, for all parts.
      order: of the parts that are run, a part of them will do; the table has all that are there.
    """

    data_dir: str
    order: Annotated[tuple[str, ...], NotEmpty, Distinct]
    parts: dict[ModelName, Part]

    @model_validator(mode="after")
    def _names(self):
        for name in self.order:
            if name not in self.parts:
                raise ValueError(
                    f"order names {name!r}, which is none of parts: {', '.join(self.parts)}"
                )
        return self
