"""A VAE on scikit-learn's digits: IWAE with K = 20, in seconds on a laptop.

Command: python -m experiments.train --config=configs/train_digits.py --workdir=runs/train_digits
Machine and time: 2 cores of a Xeon at 2.10 GHz, 2 minutes with installation (`make train`).
Expected, 300 test images, standard error over images: IWAE-5000 -22.12 (.21), IWAE-64 -22.27 (.21),
ELBO -25.14 (.23) nats. Published: none for this split and binarisation.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Burda's architecture on 8x8 images, binarised anew at each use."""
    return ConfigDict({
        "seed": 0,
        "data_dir": "",
        # The seed is that of validation and test images, and of their evaluation.
        "data": {"name": "digits", "binarization_seed": 0},
        "model": {
            "likelihood": "bernoulli",  # or categorical, discretized_logistic: on integers
            "latents": (20,),
            "hidden": ((100, 100),),
        },
        "objective": {
            "name": "iwae",
            "num_samples": 20,  # K
            "num_groups": 1,  # M, of miwae and piwae
            "beta": 0.5,  # of ciwae
            "alpha": 0.5,  # of renyi
            "sleep": False,  # whether rws adds its sleep phase
            "images_at_once": 0,  # of a batch, for less memory and the same gradient; 0: all
        },
        "optimizer": {
            "name": "adam",  # or paper, released_code: the protocol of Burda et al. 2015
            "learning_rate": 1e-3,  # of adam
            "warmup_steps": 0,
            "clip_norm": 0.0,  # 0: off
        },
        "training": {
            "batch_size": 50,
            "num_steps": 6000,
            "ema_decay": 0.0,  # 0: off
            "validation_samples": 64,
        },
        "records": {"log_every": 100, "save_every": 1000, "keep_checkpoints": 2},
        "evaluation": {"few_samples": 64, "num_samples": 5000, "num_images": 0},  # 0: all
    })  # fmt: skip
