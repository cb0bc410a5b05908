"""Settings of `experiments.compare`."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from experiments.runtime.settings import Distinct, NotEmpty, Section
from experiments.studies.settings import Data


def _identifier(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(
            "it is that of a folder and of a flag as well, so use letters, digits and _ only, and "
            "`title` for another one in the table"
        )
    return name


class Entry(Section):
    """One family of bounds: a program with its config, or a finished run of it.

    Attributes:
      program: one of `families.FAMILIES`.
      title: in the table; empty: the entry's name.
      config: file of the program's config, or FILE:VARIANT.
      changes: section -> field -> value: changes to it.
      evaluation: file of the config by which it is scored, for programs that train alone.
      evaluation_changes: changes to that one.
      run: the --workdir of a finished run in the place of a config; empty: none.
    """

    program: str
    title: str = ""
    config: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)
    evaluation: str = ""
    evaluation_changes: dict[str, Any] = Field(default_factory=dict)
    run: str = ""


class Compare(Section):
    """The config of `experiments.compare`.

    Attributes:
      order: of the families in the table; a part will do.
    """

    data_dir: str
    data: Data
    order: Annotated[tuple[str, ...], NotEmpty, Distinct]
    families: dict[Annotated[str, AfterValidator(_identifier)], Entry]

    @model_validator(mode="after")
    def _names(self):
        for name in self.order:
            if name not in self.families:
                raise ValueError(
                    f"order names {name!r}, which is none of families: {', '.join(self.families)}"
                )
        return self
