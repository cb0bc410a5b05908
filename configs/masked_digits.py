"""Masked diffusion of digits: 64 pixels as tokens of 17 levels, and the forms of its bound.

Command: python -m experiments.masked --config=configs/masked_digits.py --workdir=runs/masked_digits
Machine and time: 2 cores of an AMD EPYC, some ten minutes of processor time.
Expected, test bits/dim, standard error over 3 seeds: ELBO 2.0582 (.0016), IWAE over 4 orders 2.0317
(.0007). Published: none for these images.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Three seeds of one model."""
    return ConfigDict({
        "models": {"masked": {}},
        "compare": (),  # pairs of names
        "seeds": (0, 1, 2),
        "together": False,  # True: all seeds of a model as one
        "data_dir": "",
        "data": {"name": "digits_shuffled"},
        "network": {"num_layers": 3, "width": 64, "num_heads": 4, "dropout": 0.1},
        # Or time; sum and mean are losses without the weight 1/t. draws: or uniform.
        "objective": {"name": "count", "draws": "low_discrepancy"},
        "optimizer": {
            "name": "adam_cosine", "learning_rate": 3e-3, "warmup_steps": 100, "clip_norm": 1.0,
        },
        "training": {  # validation_samples: masks of each image
            "batch_size": 64, "num_steps": 1000, "ema_decay": 0.995, "validation_samples": 16,
        },
        "records": {"log_every": 50, "save_every": 250, "keep_checkpoints": 1},
        "evaluation": {
            "num_images": 0,  # of the test set; 0: all
            "num_counts": 64,  # masks of each image, for the ELBO
            "steps": (1, 2, 4, 8, 16, 64),  # of the chains that are bounded as well
            "num_orders": 4,  # K of IWAE over orders
            "varied_images": 8,  # whose estimates are repeated; 0: none
            "crop": (2, 3),  # rows and columns in the middle, all orders of which are summed over
            "seed": 0,
            "sample_grid": 64,
        },
        "memory": {"images_per_pass": 50, "samples_per_pass": 16},
    })  # fmt: skip
