"""Masked diffusion and any-order models of sequences of tokens.

A `Masked` is a network that predicts masked tokens. `by_time`, `by_count` and `by_order` are
estimates of one ELBO; `any_order`, `trajectory` and `terms` are the models that it is the ELBO of,
with the order or every step as the latent; `enumerated` sums over all orders of a few tokens.
`cross_entropy` is the training objective without the weight, which is no bound.
"""

from bounds._masked import Masked as Masked
from bounds._masked import by_count as by_count
from bounds._masked import by_order as by_order
from bounds._masked import by_time as by_time
from bounds._masked import cross_entropy as cross_entropy
from bounds._masked import token_log_probs as token_log_probs
from bounds._masked_orders import Enumerated as Enumerated
from bounds._masked_orders import any_order as any_order
from bounds._masked_orders import enumerated as enumerated
from bounds._masked_orders import terms as terms
from bounds._masked_orders import trajectory as trajectory

__all__ = [
    "Enumerated",
    "Masked",
    "any_order",
    "by_count",
    "by_order",
    "by_time",
    "cross_entropy",
    "enumerated",
    "terms",
    "token_log_probs",
    "trajectory",
]
