"""Lower bounds on log-likelihood in JAX: values, gradient estimators, diagnostics.

The names below are the public interface and follow semantic versioning; everything in a
module whose name starts with an underscore may change.
"""

from bounds._annealing import ais as ais
from bounds._annealing import annealing_schedule as annealing_schedule
from bounds._annealing import reverse_ais as reverse_ais
from bounds._annealing import tune_step_sizes as tune_step_sizes
from bounds._bits import bits_per_dim as bits_per_dim
from bounds._densities import bernoulli_log_prob as bernoulli_log_prob
from bounds._densities import categorical_log_prob as categorical_log_prob
from bounds._densities import gaussian_log_prob as gaussian_log_prob
from bounds._dequantization import Dequantizer as Dequantizer
from bounds._dequantization import autoregressive_dequantizer as autoregressive_dequantizer
from bounds._dequantization import dequantized as dequantized
from bounds._dequantization import flow_dequantizer as flow_dequantizer
from bounds._dequantization import logistic_dequantizer as logistic_dequantizer
from bounds._dequantization import normal_dequantizer as normal_dequantizer
from bounds._dequantization import uniform_dequantizer as uniform_dequantizer
from bounds._diffusion import Diffusion as Diffusion
from bounds._diffusion import DiffusionTerms as DiffusionTerms
from bounds._diffusion import denoiser as denoiser
from bounds._diffusion import diffusion_bound as diffusion_bound
from bounds._diffusion import diffusion_terms as diffusion_terms
from bounds._diffusion import reverse_step as reverse_step
from bounds._diffusion import trajectory as trajectory
from bounds._diffusion_estimates import BoundEstimate as BoundEstimate
from bounds._diffusion_estimates import continuous_estimate as continuous_estimate
from bounds._diffusion_estimates import diffusion_estimate as diffusion_estimate
from bounds._diffusion_estimates import noise_error as noise_error
from bounds._discretized import discretized_gaussian_log_prob as discretized_gaussian_log_prob
from bounds._discretized import discretized_logistic_log_prob as discretized_logistic_log_prob
from bounds._discretized import (
    discretized_logit_laplace_log_prob as discretized_logit_laplace_log_prob,
)
from bounds._discretized import level_softmax_log_prob as level_softmax_log_prob
from bounds._discretized import logit_laplace_log_prob as logit_laplace_log_prob
from bounds._discretized import scale_levels as scale_levels
from bounds._discretized import unscale_levels as unscale_levels
from bounds._divergences import gaussian_entropy as gaussian_entropy
from bounds._divergences import gaussian_kl as gaussian_kl
from bounds._elbo import elbo_analytic_entropy as elbo_analytic_entropy
from bounds._elbo import elbo_analytic_kl as elbo_analytic_kl
from bounds._elbo import elbo_log_ratio as elbo_log_ratio
from bounds._estimators import dreg as dreg
from bounds._estimators import pathwise as pathwise
from bounds._estimators import stl as stl
from bounds._iwae_posterior import iwae_posterior_log_prob as iwae_posterior_log_prob
from bounds._joint import JointModel as JointModel
from bounds._joint import JointTerms as JointTerms
from bounds._joint import joint_bound as joint_bound
from bounds._joint import joint_latent as joint_latent
from bounds._joint import joint_terms as joint_terms
from bounds._joint import relaxed_joint as relaxed_joint
from bounds._joint_values import JointValues as JointValues
from bounds._joint_values import enumerated_joint as enumerated_joint
from bounds._joint_values import joint_values as joint_values
from bounds._joint_values import posterior_kl as posterior_kl
from bounds._level_logit import level_logit as level_logit
from bounds._likelihood import Diagnostics as Diagnostics
from bounds._likelihood import log_likelihood as log_likelihood
from bounds._minibatch import information_sandwich as information_sandwich
from bounds._minibatch import minibatch_mean_log_prob as minibatch_mean_log_prob
from bounds._minibatch import minibatch_stratified_log_prob as minibatch_stratified_log_prob
from bounds._minibatch import minibatch_weighted_log_prob as minibatch_weighted_log_prob
from bounds._moments import Moments as Moments
from bounds._moments import gradient_moments as gradient_moments
from bounds._moments import merge_moments as merge_moments
from bounds._multi_sample import miwae as miwae
from bounds._multi_sample import piwae as piwae
from bounds._sampling import log_weights as log_weights
from bounds._schedules import betas_schedule as betas_schedule
from bounds._schedules import cosine_schedule as cosine_schedule
from bounds._schedules import discretize as discretize
from bounds._schedules import init_monotone_gamma as init_monotone_gamma
from bounds._schedules import linear_gamma as linear_gamma
from bounds._schedules import linear_schedule as linear_schedule
from bounds._schedules import monotone_gamma as monotone_gamma
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
from bounds._surgery import Aggregated as Aggregated
from bounds._surgery import GaussianPosteriors as GaussianPosteriors
from bounds._surgery import SurgeryTerms as SurgeryTerms
from bounds._surgery import active_units as active_units
from bounds._surgery import aggregated_log_prob as aggregated_log_prob
from bounds._surgery import fast_aggregated_log_prob as fast_aggregated_log_prob
from bounds._surgery import surgery_terms as surgery_terms
from bounds._times import discrete_times as discrete_times
from bounds._times import importance_probabilities as importance_probabilities
from bounds._times import low_discrepancy_times as low_discrepancy_times
from bounds._times import uniform_times as uniform_times
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
    "Aggregated",
    "Aux",
    "BoundEstimate",
    "Dequantizer",
    "Diagnostics",
    "Diffusion",
    "DiffusionTerms",
    "Estimate",
    "GaussianPosteriors",
    "JointModel",
    "JointTerms",
    "JointValues",
    "LatentModel",
    "Moments",
    "Objective",
    "Params",
    "SurgeryTerms",
    "active_units",
    "aggregated_log_prob",
    "ais",
    "annealing_schedule",
    "autoregressive_dequantizer",
    "bernoulli_log_prob",
    "betas_schedule",
    "bits_per_dim",
    "categorical_log_prob",
    "ciwae",
    "continuous_estimate",
    "cosine_schedule",
    "denoiser",
    "dequantized",
    "diffusion_bound",
    "diffusion_estimate",
    "diffusion_terms",
    "discrete_times",
    "discretize",
    "discretized_gaussian_log_prob",
    "discretized_logistic_log_prob",
    "discretized_logit_laplace_log_prob",
    "dreg",
    "dsnr",
    "effective_sample_size",
    "elbo",
    "elbo_analytic_entropy",
    "elbo_analytic_kl",
    "elbo_log_ratio",
    "enumerated_joint",
    "fast_aggregated_log_prob",
    "flow_dequantizer",
    "gaussian_entropy",
    "gaussian_kl",
    "gaussian_log_prob",
    "gradient_moments",
    "importance_probabilities",
    "information_sandwich",
    "init_monotone_gamma",
    "iwae",
    "iwae_posterior_log_prob",
    "joint_bound",
    "joint_latent",
    "joint_terms",
    "joint_values",
    "k_hat_threshold",
    "level_logit",
    "level_softmax_log_prob",
    "linear_gamma",
    "linear_schedule",
    "log_likelihood",
    "log_weights",
    "logistic_dequantizer",
    "logit_laplace_log_prob",
    "low_discrepancy_times",
    "merge_moments",
    "minibatch_mean_log_prob",
    "minibatch_stratified_log_prob",
    "minibatch_weighted_log_prob",
    "miwae",
    "monotone_gamma",
    "noise_error",
    "normal_dequantizer",
    "normalized_weights",
    "pareto_k_hat",
    "pathwise",
    "piwae",
    "posterior_kl",
    "power_law",
    "reinforce",
    "relaxed_joint",
    "renyi",
    "reverse_ais",
    "reverse_step",
    "rws",
    "scale_levels",
    "snr",
    "snr_floor",
    "snr_interval",
    "snr_squared",
    "stl",
    "surgery_terms",
    "trajectory",
    "tune_step_sizes",
    "uniform_dequantizer",
    "uniform_times",
    "unscale_levels",
    "vimco",
]
