"""The variational bound of diffusion models.

A `Diffusion` is a model; `terms` and `bound` are every part of its bound and their sum,
`trajectory` the same bound as a `LatentModel`. Training takes the estimates by one drawn time;
`ode_log_prob` is the density of another model, that of the probability-flow ODE; the rest are
schedules of the signal-to-noise ratio and ways to draw times.
"""

from bounds._diffusion import Diffusion as Diffusion
from bounds._diffusion import Terms as Terms
from bounds._diffusion import bound as bound
from bounds._diffusion import terms as terms
from bounds._diffusion import trajectory as trajectory
from bounds._diffusion_estimates import BoundEstimate as BoundEstimate
from bounds._diffusion_estimates import continuous_estimate as continuous_estimate
from bounds._diffusion_estimates import discrete_estimate as discrete_estimate
from bounds._diffusion_estimates import noise_error as noise_error
from bounds._diffusion_estimates import velocity_error as velocity_error
from bounds._diffusion_step import denoiser as denoiser
from bounds._diffusion_step import reverse_step as reverse_step
from bounds._ode import OdeEstimate as OdeEstimate
from bounds._ode import OdeLogProb as OdeLogProb
from bounds._ode import ode_log_density as ode_log_density
from bounds._ode import ode_log_prob as ode_log_prob
from bounds._ode import ode_transport as ode_transport
from bounds._schedules import betas_schedule as betas_schedule
from bounds._schedules import cosine_schedule as cosine_schedule
from bounds._schedules import discretize as discretize
from bounds._schedules import init_monotone_gamma as init_monotone_gamma
from bounds._schedules import linear_gamma as linear_gamma
from bounds._schedules import linear_schedule as linear_schedule
from bounds._schedules import monotone_gamma as monotone_gamma
from bounds._schedules import straight_gamma as straight_gamma
from bounds._times import discrete_times as discrete_times
from bounds._times import importance_probabilities as importance_probabilities
from bounds._times import low_discrepancy_times as low_discrepancy_times
from bounds._times import uniform_times as uniform_times

__all__ = [
    "BoundEstimate",
    "Diffusion",
    "OdeEstimate",
    "OdeLogProb",
    "Terms",
    "betas_schedule",
    "bound",
    "continuous_estimate",
    "cosine_schedule",
    "denoiser",
    "discrete_estimate",
    "discrete_times",
    "discretize",
    "importance_probabilities",
    "init_monotone_gamma",
    "linear_gamma",
    "linear_schedule",
    "low_discrepancy_times",
    "monotone_gamma",
    "noise_error",
    "ode_log_density",
    "ode_log_prob",
    "ode_transport",
    "reverse_step",
    "straight_gamma",
    "terms",
    "trajectory",
    "uniform_times",
    "velocity_error",
]
