"""ELBO surgery: the average KL of a VAE over a data set, taken apart.

`terms` gives the parts of the KL at one draw, and `aggregated_log_prob` the density of the
aggregated posterior. The minibatch estimates say in which direction they are biased, and
`information_sandwich` encloses the mutual information. `iwae_posterior_log_prob` is the density
that importance weights resample from.
"""

from bounds._iwae_posterior import iwae_posterior_log_prob as iwae_posterior_log_prob
from bounds._minibatch import information_sandwich as information_sandwich
from bounds._minibatch import minibatch_mean_log_prob as minibatch_mean_log_prob
from bounds._minibatch import minibatch_stratified_log_prob as minibatch_stratified_log_prob
from bounds._minibatch import minibatch_weighted_log_prob as minibatch_weighted_log_prob
from bounds._surgery import Aggregated as Aggregated
from bounds._surgery import GaussianPosteriors as GaussianPosteriors
from bounds._surgery import Terms as Terms
from bounds._surgery import active_units as active_units
from bounds._surgery import aggregated_log_prob as aggregated_log_prob
from bounds._surgery import fast_aggregated_log_prob as fast_aggregated_log_prob
from bounds._surgery import terms as terms

__all__ = [
    "Aggregated",
    "GaussianPosteriors",
    "Terms",
    "active_units",
    "aggregated_log_prob",
    "fast_aggregated_log_prob",
    "information_sandwich",
    "iwae_posterior_log_prob",
    "minibatch_mean_log_prob",
    "minibatch_stratified_log_prob",
    "minibatch_weighted_log_prob",
    "terms",
]
