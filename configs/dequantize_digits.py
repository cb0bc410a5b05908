"""Flows on digits through dequantization: noise and couplings compared at matched parameters.

Command: python -m experiments.dequantize --config=configs/dequantize_digits.py \
    --workdir=runs/dequantize_digits
Machine and time: 2 cores of a Xeon at 2.10 GHz, 27 min 54 s while it was busy.
Expected, test ELBO in bits/dim, standard error over 5 seeds: affine_uniform 2.0507 (.0008),
affine_flow 1.9804 (.0013), mixture_uniform 1.9223 (.0012), mixture_flow 1.8756 (.0014); exact:
autoregressive 1.9579 (.0017). Published: none for these images.
`:exact` instead is the comparison on densities whose exact log P(x) is known, 11 to 15 minutes.
Expected, exact test bits/dim: uniform 2.0086 (.0024), variational 1.9835 (.0017), IW 1.9755
(.0019), exact 1.9677 (.0012).
"""

from ml_collections import ConfigDict

VARIANTS = ("couplings", "exact")


def get_config(variant: str = "couplings") -> ConfigDict:
    """`variant` is couplings (flows) or exact (subset flows)."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
    config = ConfigDict()
    config.models = ConfigDict(MODELS[variant])
    config.compare = COMPARE[variant]
    config.seeds = (0, 1, 2, 3, 4)
    config.together = True  # all seeds of a model as one
    config.dataset = "digits_shuffled"
    config.data_dir = ""
    # Density.
    config.density = "flow"  # or subset_flow, discretized: autoregressive, exact
    config.coupling = "mixture"  # or affine
    config.num_components = 8
    config.layout = ("checkerboard:4", "squeeze", "channels:2")
    config.norm = "channel"  # or pixel, none
    config.pointwise = False  # invertible 1x1 maps between couplings
    config.network = "dense"  # or convolutional
    config.width = 128
    config.num_layers = 2
    config.attention = False
    config.dropout = 0.3
    # Noise: uniform, logistic, normal, flow or autoregressive.
    config.noise = "uniform"
    config.noise_width = 32
    config.noise_layers = 2
    config.noise_couplings = 4
    config.noise_coupling = "mixture"
    config.noise_components = 4
    config.noise_norm = False
    config.noise_pointwise = False
    config.noise_attention = False
    config.noise_features = 0  # filters of a network on the image; 0: the image itself
    config.noise_feature_blocks = 3
    config.refit_noise = ""  # noise fitted to a finished density, with which it is evaluated
    config.refit_steps = 1000
    # Objective: exact, or any of configs/train_digits.py.
    config.objective = "elbo"
    config.num_samples = 1  # K
    config.num_groups = 1  # M, of miwae and piwae
    config.alpha = 0.5  # of renyi
    config.beta = 0.5  # of ciwae
    config.sleep = False
    # Optimisation.
    config.optimizer = "adam_cosine"
    config.learning_rate = 3e-3
    config.warmup_steps = 0
    config.batch_size = 128
    config.num_steps = 2000
    config.clip_norm = 0.0
    config.ema_decay = 0.998
    # Records.
    config.log_every = 50
    config.save_every = 250
    config.keep_checkpoints = 1
    config.validation_samples = 16
    config.evaluation_images = 0  # 0: all test images
    config.evaluation_samples = (1, 4, 16, 64)  # k of the IWAE-k curve
    config.evaluation_seed = 0
    config.images_per_pass = 20
    config.samples_per_pass = 64
    config.sample_grid = 100
    return config


# Widths give every model 768,000 parameters, to 0.4%. An affine coupling wants the lower rate: of
# 1e-3 and 3e-3 each kind has the one that validated better.
_AFFINE = {"coupling": "affine", "learning_rate": 1e-3}
_EXACT = {
    "density": "subset_flow", "width": 256, "dropout": 0.3, "refit_noise": "logistic",
    "noise_width": 128, "learning_rate": 1e-3,
}  # fmt: skip
MODELS = {
    "couplings": {
        "affine_uniform": {**_AFFINE, "width": 312},
        "affine_flow": {**_AFFINE, "width": 294, "noise": "flow"},
        "mixture_uniform": {"width": 128},
        "mixture_flow": {"width": 117, "noise": "flow"},
        "autoregressive": {
            "density": "discretized", "objective": "exact", "width": 384, "learning_rate": 1e-3,
            "dropout": 0.5,
        },
    },
    "exact": {
        "uniform": {**_EXACT, "noise": "uniform"},
        "variational": {**_EXACT, "noise": "logistic"},
        "IW": {**_EXACT, "noise": "logistic", "objective": "iwae", "num_samples": 8},
        "exact": {**_EXACT, "objective": "exact"},
    },
}  # fmt: skip
COMPARE = {
    "couplings": (
        ("affine_uniform", "mixture_uniform"), ("affine_flow", "mixture_flow"),
        ("affine_uniform", "affine_flow"), ("mixture_uniform", "mixture_flow"),
    ),
    "exact": (
        ("uniform", "exact"), ("variational", "exact"), ("IW", "exact"), ("variational", "IW"),
    ),
}  # fmt: skip
