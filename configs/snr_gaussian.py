"""The Gaussian toy of Rainforth et al. 2018, near the optimum or far from it.

Command: python -m experiments.snr --config=configs/snr_gaussian.py:near --workdir=runs/near
Machine and time: 2 cores of a Xeon at 2.10 GHz, under 2 minutes each case.
Expected near, 95% intervals: exponent of the SNR of theta +0.498 [.496, .500], of phi under IWAE
-0.500 [-.502, -.498], of phi under DReG (K >= 100) +0.491 [.486, .496].
Expected far: no exponent; SNR of theta 4.3 at K = 1 and 4.5 at K = 1000.
Published: exponents +1/2 for theta and -1/2 for phi (Rainforth et al. 2018, arXiv 1802.04537).
"""

from ml_collections import ConfigDict

PERTURBATIONS = {"near": 0.01, "far": 0.5}


def get_config(case: str = "near") -> ConfigDict:
    """Case `near` (perturbation 0.01) or `far` (0.5)."""
    if case not in PERTURBATIONS:
        raise ValueError(f"the case must be near or far, got {case!r}; e.g. snr_gaussian.py:near")
    return ConfigDict({
        "problem": "gaussian",
        "seed": 0,
        # The problem of the paper; variance is the covariance of q, 2/3 in every direction.
        "toy": {
            "num_dims": 20,
            "num_data": 1024,
            "datum": 0,  # gradients are taken at this one datum
            "variance": 2 / 3,
            "perturbation": PERTURBATIONS[case],
        },
        # What is measured: K for IWAE, the same numbers as M for the ELBO.
        "num_samples": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000),
        "estimators": ("pathwise", "dreg", "rloo", "ovis", "left sum", "tvo", "stl"),
        "elbo": True,
        "replicates": {"number": 10_000, "num_blocks": 40},  # blocks of the jackknife
        # The far case is not asymptotic anywhere, so no slope is fitted there.
        "fit": {"slopes": case == "near", "first": 10, "first_dreg": 100},
        "memory": {"chunk_elements": 320_000},  # samples x dimensions at once
    })  # fmt: skip
