"""Moments of every gradient estimator on four small models, summed and not sampled.

Command: python -m experiments.estimators --config=configs/estimators.py --workdir=runs/estimators
Machine and time: one core of a shared 2-core AMD EPYC, 2 min 55 s of processor time.
Expected, exactly: "Gaussian, near" at K = 5 has an SNR in phi of .0447 (pathwise, IWAE), .941
(dreg), .787 (rloo, IWAE) and .0485 (vimco).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """All estimators at one to five samples."""
    return ConfigDict({
        "num_samples": (1, 2, 3, 5),
        "most_outcomes": 50_000,  # 64 nodes up to three samples, 20 for five
        "betas": (0.0, 0.1, 0.3, 1.0),  # of the thermodynamic bound
    })  # fmt: skip
