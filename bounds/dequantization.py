"""Dequantization: log P(x) of integers from a density of continuous data.

`dequantized` makes a `LatentModel` of a density and a `Dequantizer`, whose noise is the latent; the
other functions are kinds of noise. `bits_per_dim` converts nats, and `level_logit` is for densities
that take logits.
"""

from bounds._bits import bits_per_dim as bits_per_dim
from bounds._dequantization import dequantized as dequantized
from bounds._dequantizers import Dequantizer as Dequantizer
from bounds._dequantizers import autoregressive as autoregressive
from bounds._dequantizers import flow as flow
from bounds._dequantizers import logistic as logistic
from bounds._dequantizers import normal as normal
from bounds._dequantizers import truncated_normal as truncated_normal
from bounds._dequantizers import uniform as uniform
from bounds._level_logit import level_logit as level_logit

__all__ = [
    "Dequantizer",
    "autoregressive",
    "bits_per_dim",
    "dequantized",
    "flow",
    "level_logit",
    "logistic",
    "normal",
    "truncated_normal",
    "uniform",
]
