"""The joint bound of DALL-E: captions, images and tokens; values by summing over all tokens."""

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
