"""The interactive page docs/explore.html, from the SNR measured near the optimum and far from it.

Command: python -m experiments.explore --config=configs/explore.py --workdir=docs
Machine and time: seconds on 2 cores of a Xeon, after make snr and make snr-far (2 and 1 minutes).
Expected: nothing is measured; every curve is exact, or a closed form. Published: none.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The two runs of the headline experiment."""
    return ConfigDict({"runs": {"near": "runs/snr_gaussian_near", "far": "runs/snr_gaussian_far"}})
