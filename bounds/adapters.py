"""Models written elsewhere, made latent-variable models of one datum.

`from_numpyro` takes a NumPyro model with its guide, `from_distributions` distribution objects of
NumPyro, distrax, TFP's JAX substrate or flowjax. Another library is imported by the function that
needs it, when it is called.
"""

from bounds._from_distributions import FromDistributions as FromDistributions
from bounds._from_distributions import from_distributions as from_distributions
from bounds._from_numpyro import FromNumPyro as FromNumPyro
from bounds._from_numpyro import from_numpyro as from_numpyro

__all__ = ["FromDistributions", "FromNumPyro", "from_distributions", "from_numpyro"]
