"""A VDM on digits: the diffusion bound and its parts.

Command: python -m experiments.diffusion --config=configs/diffusion_digits.py \
    --workdir=runs/diffusion_digits
Machine and time: 2 cores of a Xeon, 8 min 28 s with empty caches.
Expected, test bits/dim, standard error over 3 seeds: 1.9300 (.0018) in continuous time, 2.0230
(.0024) with 128 steps. Published: none for these images.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Three seeds of one model."""
    return ConfigDict({
        "models": {"vdm": {}},
        "compare": (),  # pairs of names
        "seeds": (0, 1, 2),
        "together": False,  # True: all seeds of a model as one
        "data_dir": "",
        "data": {"name": "digits_shuffled"},
        "chain": {
            # vdm_linear and vdm_learned from gamma_min to gamma_max; linear and cosine are DDPM's.
            "schedule": "vdm_linear",
            "gamma_min": -8.0,
            "gamma_max": 5.0,
            "timesteps": 0,  # of training; 0: continuous time
            "evaluation_timesteps": 128,  # 0: those of training
            "prediction": "v",  # or eps, x
            "variance": "fixed_small",  # or fixed_large, learned
            "decoder": "gaussian",  # or logistic; of linear and cosine
        },
        "network": {
            "name": "unet",  # or mlp
            "width": 32,
            "multipliers": (1, 2),  # of the width, one per resolution; unet
            "num_blocks": 1,
            "attention": (1,),  # resolutions that have it; unet
            "fourier": (3, 4),  # sin and cos of 2^p pi x beside x
            "dropout": 0.1,
            "dtype": "float32",  # or bfloat16
        },
        # Or simple (DDPM's L_simple); times: or uniform, importance.
        "objective": {"name": "bound", "times": "low_discrepancy"},
        "optimizer": {
            "name": "adam_cosine", "learning_rate": 3e-3, "warmup_steps": 200, "clip_norm": 1.0,
        },
        "training": {
            "batch_size": 32, "num_steps": 1600, "ema_decay": 0.995, "validation_samples": 16,
        },
        "records": {"log_every": 50, "save_every": 400, "keep_checkpoints": 1},
        "evaluation": {
            "num_images": 0,  # of the test set; 0: all
            "num_times": 64,  # of each image, for the bound of continuous time
            "schedules": (),  # vdm_linear, straight: score the same network under them as well
            "seed": 0,
            "sample_grid": 64,
        },
        "memory": {"images_per_pass": 100},
    })  # fmt: skip
