"""The Gaussian toy of Rainforth et al. 2018, near the optimum or far from it.

Command: python -m experiments.snr --config=configs/snr_gaussian.py:near --workdir=runs/near
Machine and time: 2 cores of a Xeon at 2.10 GHz, under 2 minutes each case.
Expected near, 95% intervals: exponent of the SNR of theta +0.498 [.496, .500], of phi under IWAE
-0.500 [-.502, -.498], of phi under DReG (K >= 100) +0.491 [.486, .496].
Expected far: no exponent; SNR of theta 4.3 at K = 1 and 4.5 at K = 1000.
Published: exponents +1/2 for theta and -1/2 for phi (Rainforth et al. 2018, arXiv 1802.04537).
"""

from ml_collections import ConfigDict


def get_config(case: str = "near") -> ConfigDict:
    """Case `near` (perturbation 0.01) or `far` (0.5)."""
    # A variant that others are derived from is no field: set alone it would name another case.
    perturbations = {"near": 0.01, "far": 0.5}
    if case not in perturbations:
        raise ValueError(f"the case must be near or far, got {case!r}; e.g. snr_gaussian.py:near")
    config = ConfigDict()
    config.problem = "gaussian"
    config.seed = 0
    # The problem of the paper; variance is the covariance of q, 2/3 in every direction.
    config.num_dims = 20
    config.num_data = 1024
    config.datum = 0  # gradients are taken at this one datum
    config.variance = 2 / 3
    config.perturbation = perturbations[case]
    # What is measured: K for IWAE, the same numbers as M for the ELBO.
    config.num_samples = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
    config.estimators = ("pathwise", "dreg", "stl")
    config.elbo = True
    config.num_replicates = 10_000
    config.num_blocks = 40  # for the jackknife; divides num_replicates
    # Slopes; the far case is not asymptotic anywhere, so nothing is fitted there.
    config.fit = case == "near"
    config.fit_from = 10
    config.fit_dreg_from = 100
    config.chunk_elements = 320_000  # samples x dimensions in memory at once
    return config
