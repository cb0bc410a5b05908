"""Diffusion models of MNIST, Fashion-MNIST and CIFAR-10, 8 bits: DDPM and VDM, by the bound.

Command: python -m experiments.diffusion --config=configs/diffusion_images.py:mnist \
    --workdir=runs/diffusion_mnist --config.data_dir=data
For accelerators; not run so far, so nothing is expected. Published on CIFAR-10, bits/dim: DDPM 3.70
trained on L and 3.75 on L_simple (Ho et al. 2020), 2.94 (improved DDPM), 2.637 (VDM's released
checkpoint).
"""

from ml_collections import ConfigDict

VARIANTS = ("mnist", "fashion_mnist", "cifar10", "cifar10_first4000")
_DDPM = {
    "schedule": "linear", "timesteps": 1000, "evaluation_timesteps": 0, "prediction": "eps",
    "fourier": (),
}  # fmt: skip
MODELS = {
    "vdm": {},
    "ddpm": {**_DDPM, "variance": "fixed_small"},
    "ddpm_simple": {**_DDPM, "variance": "fixed_large", "objective": "simple", "times": "uniform"},
    "improved_ddpm": {
        **_DDPM, "schedule": "cosine", "variance": "learned", "times": "importance",
    },
}  # fmt: skip


def get_config(variant: str = "mnist") -> ConfigDict:
    """`variant` is a data set of 8-bit images."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
    colour = variant.startswith("cifar10")
    config = ConfigDict()
    config.models = ConfigDict(MODELS)
    config.compare = (("vdm", "ddpm"), ("ddpm", "ddpm_simple"))
    config.seeds = (0,)
    config.together = False
    config.dataset = variant
    config.data_dir = "data"
    # Chain.
    config.schedule = "vdm_linear"
    config.gamma_min = -13.3
    config.gamma_max = 5.0
    config.timesteps = 0
    config.evaluation_timesteps = 1000
    config.prediction = "v"
    config.variance = "fixed_small"
    config.decoder = "gaussian"
    # Network: DDPM's 35.7 M parameters for colour have four resolutions.
    config.network = "unet"
    config.width = 128 if colour else 64
    config.multipliers = (1, 2, 2, 2) if colour else (1, 2, 2)
    config.num_blocks = 2
    config.attention = (1,)
    config.fourier = (7, 8)  # half and whole periods of 8-bit levels
    config.dropout = 0.1
    # Objective.
    config.objective = "bound"
    config.times = "low_discrepancy"
    # Optimisation.
    config.optimizer = "adam_warmup"
    config.learning_rate = 2e-4
    config.warmup_steps = 5000 if colour else 1000
    config.batch_size = 128
    config.num_steps = 800_000 if colour else 100_000
    config.clip_norm = 1.0
    config.ema_decay = 0.9999
    # Records.
    config.log_every = 100
    config.save_every = 5000
    config.keep_checkpoints = 2
    config.validation_samples = 4
    config.evaluation_images = 1000
    config.evaluation_times = 64
    config.evaluation_seed = 0
    config.images_per_pass = 250
    config.sample_grid = 64
    return config
