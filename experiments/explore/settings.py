"""Settings of `experiments.explore`."""

from typing import Annotated

from experiments.runtime.settings import NotEmpty, Section


class Explore(Section):
    """The config of `experiments.explore`.

    Attributes:
      runs: name -> the --workdir of a finished run of experiments.snr on the Gaussian toy; the page
        begins with the one nearest to the optimum.
    """

    runs: Annotated[dict[str, str], NotEmpty]
