"""Lower bounds on log-likelihood in JAX: values, gradient estimators, diagnostics.

Here are models and objectives, values, estimators, likelihoods, annealing, signal-to-noise ratios
and advice on them. Public modules have the rest:

* `bounds.adapters`: models of NumPyro, and of distribution objects, as models of this library.
* `bounds.audit`: whether a model, its gradients or anybody's number is what a bound has to be.
* `bounds.densities`: log-probabilities and divergences that models are made of.
* `bounds.dequantization`: noise that makes densities models of integers; bits per dimension.
* `bounds.diffusion`: the bound of diffusion models, its estimates, schedules and times.
* `bounds.evidence`: values about log p(x) that are no lower bounds, each with its kind.
* `bounds.joint`: the joint bound of images, captions and tokens, and sums over all tokens.
* `bounds.masked`: masked diffusion and any-order models of tokens.
* `bounds.surgery`: the average KL of a data set taken apart, and the aggregated posterior.

The names in `__all__`, here and in each of them, are the public interface and follow semantic
versioning; everything in a module whose name starts with an underscore may change.
"""

from bounds import adapters as adapters
from bounds import audit as audit
from bounds import densities as densities
from bounds import dequantization as dequantization
from bounds import diffusion as diffusion
from bounds import evidence as evidence
from bounds import joint as joint
from bounds import masked as masked
from bounds import surgery as surgery
from bounds._advise import Advice as Advice
from bounds._advise import advise as advise
from bounds._advise_choices import Choice as Choice
from bounds._advise_choices import Measured as Measured
from bounds._advise_measured import Interval as Interval
from bounds._annealed import Annealing as Annealing
from bounds._annealed import annealed as annealed
from bounds._annealing import ais as ais
from bounds._annealing import annealing_schedule as annealing_schedule
from bounds._annealing import reverse_ais as reverse_ais
from bounds._annealing import tune_step_sizes as tune_step_sizes
from bounds._disarm import disarm as disarm
from bounds._elbo import elbo_analytic_entropy as elbo_analytic_entropy
from bounds._elbo import elbo_analytic_kl as elbo_analytic_kl
from bounds._elbo import elbo_log_ratio as elbo_log_ratio
from bounds._estimators import dreg as dreg
from bounds._estimators import pathwise as pathwise
from bounds._estimators import stl as stl
from bounds._leave_one_out import ovis as ovis
from bounds._leave_one_out import rloo as rloo
from bounds._likelihood import Diagnostics as Diagnostics
from bounds._likelihood import log_likelihood as log_likelihood
from bounds._moments import Moments as Moments
from bounds._moments import gradient_moments as gradient_moments
from bounds._moments import merge_moments as merge_moments
from bounds._multi_sample import miwae as miwae
from bounds._multi_sample import piwae as piwae
from bounds._sampling import log_weights as log_weights
from bounds._score_function import reinforce as reinforce
from bounds._score_function import rws as rws
from bounds._score_function import vimco as vimco
from bounds._snr import Estimate as Estimate
from bounds._snr import dsnr as dsnr
from bounds._snr import power_law as power_law
from bounds._snr import snr as snr
from bounds._snr import snr_floor as snr_floor
from bounds._snr import snr_interval as snr_interval
from bounds._snr import snr_squared as snr_squared
from bounds._thermodynamic import thermodynamic as thermodynamic
from bounds._thermodynamic import tvo as tvo
from bounds._types import Aux as Aux
from bounds._types import LatentModel as LatentModel
from bounds._types import Objective as Objective
from bounds._types import Params as Params
from bounds._values import ciwae as ciwae
from bounds._values import elbo as elbo
from bounds._values import iwae as iwae
from bounds._values import renyi as renyi
from bounds._weights import effective_sample_size as effective_sample_size
from bounds._weights import k_hat_threshold as k_hat_threshold
from bounds._weights import normalized_weights as normalized_weights
from bounds._weights import pareto_k_hat as pareto_k_hat

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "Annealing",
    "Aux",
    "Choice",
    "Diagnostics",
    "Estimate",
    "Interval",
    "LatentModel",
    "Measured",
    "Moments",
    "Objective",
    "Params",
    "adapters",
    "advise",
    "ais",
    "annealed",
    "annealing_schedule",
    "audit",
    "ciwae",
    "densities",
    "dequantization",
    "diffusion",
    "disarm",
    "dreg",
    "dsnr",
    "effective_sample_size",
    "elbo",
    "elbo_analytic_entropy",
    "elbo_analytic_kl",
    "elbo_log_ratio",
    "evidence",
    "gradient_moments",
    "iwae",
    "joint",
    "k_hat_threshold",
    "log_likelihood",
    "log_weights",
    "masked",
    "merge_moments",
    "miwae",
    "normalized_weights",
    "ovis",
    "pareto_k_hat",
    "pathwise",
    "piwae",
    "power_law",
    "reinforce",
    "renyi",
    "reverse_ais",
    "rloo",
    "rws",
    "snr",
    "snr_floor",
    "snr_interval",
    "snr_squared",
    "stl",
    "surgery",
    "thermodynamic",
    "tune_step_sizes",
    "tvo",
    "vimco",
]
