"""A VAE on scikit-learn's digits: IWAE with K = 20, in seconds on a laptop.

Command: python -m experiments.train --config=configs/train_digits.py --workdir=runs/train_digits
Machine and time: 2 cores of a Xeon at 2.10 GHz, 2 minutes with installation (`make train`).
Expected, 300 test images, standard error over images: IWAE-5000 -22.12 (.21), IWAE-64 -22.27 (.21),
ELBO -25.14 (.23) nats. Published: none for this split and binarisation.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Burda's architecture on 8x8 images, binarised anew at each use."""
    config = ConfigDict()
    config.seed = 0
    config.dataset = "digits"
    config.data_dir = ""
    config.likelihood = "bernoulli"  # or categorical, discretized_logistic: on integers
    config.binarization_seed = 0  # of validation and test images, and of their evaluation
    # Model.
    config.latents = (20,)
    config.hidden = ((100, 100),)
    # Objective.
    config.objective = "iwae"
    config.num_samples = 20  # K
    config.num_groups = 1  # M, of miwae and piwae
    config.beta = 0.5  # of ciwae
    config.alpha = 0.5  # of renyi
    config.sleep = False  # whether rws adds its sleep phase
    # Optimisation.
    config.optimizer = "adam"  # or adam_warmup, adam_cosine, sgd, or Burda's paper, released_code
    config.learning_rate = 1e-3  # of adam
    config.warmup_steps = 0  # of adam_warmup and adam_cosine
    config.batch_size = 50
    config.num_steps = 6000
    config.clip_norm = 0.0  # 0: off
    config.ema_decay = 0.0  # 0: off
    # Records.
    config.log_every = 100
    config.save_every = 1000
    config.keep_checkpoints = 2
    config.validation_samples = 64
    config.few_samples = 64
    config.test_samples = 5000
    config.test_images = 0  # 0: all
    return config
