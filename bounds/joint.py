"""The joint bound of DALL-E, for images, captions and discrete tokens.

A `JointModel` is a model; `terms` and `bound` are the parts of its bound and their sum, `latent`
the same model as a `LatentModel`. `values`, `posterior_kl` and `enumerated` sum over all tokens;
`relaxed` is the training objective with relaxed tokens, which is no bound.
"""

from bounds._joint import JointModel as JointModel
from bounds._joint import Terms as Terms
from bounds._joint import bound as bound
from bounds._joint import latent as latent
from bounds._joint import relaxed as relaxed
from bounds._joint import terms as terms
from bounds._joint_values import Values as Values
from bounds._joint_values import enumerated as enumerated
from bounds._joint_values import posterior_kl as posterior_kl
from bounds._joint_values import values as values

__all__ = [
    "JointModel",
    "Terms",
    "Values",
    "bound",
    "enumerated",
    "latent",
    "posterior_kl",
    "relaxed",
    "terms",
    "values",
]
