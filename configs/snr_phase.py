"""Phase diagram of VR-IWAE: slope of the SNR of phi over the order alpha, K and D.

Command: python -m experiments.snr --config=configs/snr_phase.py --workdir=runs/snr_phase
Machine and time: 2 cores of a Xeon at 2.10 GHz, under 8 minutes.
Expected at D = 20, 95% intervals of the exponent over K = 64 .. 1024: pathwise -0.50 +- 0.01 at
alpha = 0, +0.42 +- 0.01 at 0.1, +0.49 +- 0.01 at 0.5; DReG +0.49 +- 0.01 at alpha = 0.
Published: the regimes of Daudel & Roueff (arXiv 2410.12035), no numbers for this toy.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The near case of the Gaussian toy in three dimensions."""
    return ConfigDict({
        "problem": "phase",
        "seed": 0,
        "toy": {"num_data": 1024, "datum": 0, "variance": 2 / 3, "perturbation": 0.01},
        "num_dims": (5, 20, 60),
        "alphas": (0.0, 0.01, 0.03, 0.1, 0.25, 0.5),
        "num_samples": (64, 128, 256, 512, 1024),
        "fit_from": 64,
        "replicates": {"number": 2000, "num_blocks": 20},
        "memory": {"chunk_elements": 320_000},
    })  # fmt: skip
