"""One and two pixels by quadrature, and a figure of what noise is for.

Command: python -m experiments.dequantize_exact --config=configs/dequantize_exact.py \
    --workdir=runs/dequantize_exact
Machine and time: 2 cores of a Xeon at 2.10 GHz, 2 min 43 s while it was busy.
Expected, bits/dim, one pixel: exact 2.2789, uniform 2.4415, logit-normal 2.3038, logit-logistic
2.2842; two pixels: 1.8082, 2.1341, 1.8414, 1.8337, all by quadrature.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The example of one pixel on eight levels, and a drawn flow of two pixels."""
    return ConfigDict({
        "seed": 0,
        "levels": 4,  # of each of two pixels
        "noise": {"num_steps": 300, "learning_rate": 0.05, "num_samples": (1, 4, 16, 64)},
        "lecture": {"num_components": 20, "num_steps": 3000, "learning_rate": 0.02},
    })  # fmt: skip
