"""Log-probabilities and divergences that models are made of.

Densities of zeros and ones, of categories, of real numbers and of pixels with a number of levels,
and the KL divergence and the entropy of Gaussians. Each docstring says whether the value is of each
element or a sum, and shapes that would broadcast to something else are refused.
"""

from bounds._densities import bernoulli_log_prob as bernoulli_log_prob
from bounds._densities import categorical_log_prob as categorical_log_prob
from bounds._densities import gaussian_log_prob as gaussian_log_prob
from bounds._discretized import discretized_gaussian_log_prob as discretized_gaussian_log_prob
from bounds._discretized import discretized_logistic_log_prob as discretized_logistic_log_prob
from bounds._discretized import (
    discretized_logit_laplace_log_prob as discretized_logit_laplace_log_prob,
)
from bounds._discretized import level_softmax_log_prob as level_softmax_log_prob
from bounds._discretized import logit_laplace_log_prob as logit_laplace_log_prob
from bounds._divergences import gaussian_entropy as gaussian_entropy
from bounds._divergences import gaussian_kl as gaussian_kl
from bounds._levels import scale_levels as scale_levels
from bounds._levels import unscale_levels as unscale_levels

__all__ = [
    "bernoulli_log_prob",
    "categorical_log_prob",
    "discretized_gaussian_log_prob",
    "discretized_logistic_log_prob",
    "discretized_logit_laplace_log_prob",
    "gaussian_entropy",
    "gaussian_kl",
    "gaussian_log_prob",
    "level_softmax_log_prob",
    "logit_laplace_log_prob",
    "scale_levels",
    "unscale_levels",
]
