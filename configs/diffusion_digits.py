"""A VDM on digits: the diffusion bound and its parts.

Command: python -m experiments.diffusion --config=configs/diffusion_digits.py \
    --workdir=runs/diffusion_digits
Machine and time: 2 cores of a Xeon at 2.10 GHz, 8 min 28 s with empty caches.
Expected, test bits/dim, standard error over 3 seeds: 1.9292 (.0021) in continuous time, 2.0224
(.0028) with 128 steps. Published: none for these images.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Three seeds of one model."""
    config = ConfigDict()
    config.models = ConfigDict({"vdm": {}})
    config.compare = ()  # pairs of names
    config.seeds = (0, 1, 2)
    config.together = False  # True: all seeds of a model as one
    config.dataset = "digits_shuffled"
    config.data_dir = ""
    # Chain: vdm_linear and vdm_learned from gamma_min to gamma_max; linear and cosine are DDPM's.
    config.schedule = "vdm_linear"
    config.gamma_min = -8.0
    config.gamma_max = 5.0
    config.timesteps = 0  # of training; 0: continuous time
    config.evaluation_timesteps = 128  # 0: those of training
    config.prediction = "v"  # or eps, x
    config.variance = "fixed_small"  # or fixed_large, learned
    config.decoder = "gaussian"  # or logistic; of linear and cosine
    # Network.
    config.network = "unet"  # or mlp
    config.width = 32
    config.multipliers = (1, 2)  # of the width, one per resolution; unet
    config.num_blocks = 1
    config.attention = (1,)  # resolutions that have it; unet
    config.fourier = (3, 4)  # sin and cos of 2^p pi x beside x
    config.dropout = 0.1
    # Objective: bound, or simple (DDPM's L_simple).
    config.objective = "bound"
    config.times = "low_discrepancy"  # or uniform, importance
    # Optimisation.
    config.optimizer = "adam_cosine"
    config.learning_rate = 3e-3
    config.warmup_steps = 200
    config.batch_size = 32
    config.num_steps = 1600
    config.clip_norm = 1.0
    config.ema_decay = 0.995
    # Records.
    config.log_every = 50
    config.save_every = 400
    config.keep_checkpoints = 1
    config.validation_samples = 16
    config.evaluation_images = 0  # 0: all test images
    config.evaluation_times = 64  # of each image, for the bound of continuous time
    config.evaluation_seed = 0
    config.images_per_pass = 100
    config.sample_grid = 64
    return config
