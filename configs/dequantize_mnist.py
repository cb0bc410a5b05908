"""A small Flow++ on 8-bit MNIST or Fashion-MNIST, uniform against learned noise.

Command: python -m experiments.dequantize --config=configs/dequantize_mnist.py:mnist \
    --workdir=runs/dequantize_mnist --config.data_dir=data
For an accelerator; not run so far, so nothing is expected. Published on MNIST, 200 epochs, IW-8 on
the test set, another flow: 1.078 (uniform), 1.041 (variational), UvA deep learning tutorial 11.
"""

from ml_collections import ConfigDict

DATASETS = ("mnist", "fashion_mnist")


def get_config(dataset: str = "mnist") -> ConfigDict:
    """`dataset` is mnist or fashion_mnist."""
    if dataset not in DATASETS:
        raise ValueError(f"the variant must be one of {', '.join(DATASETS)}, got {dataset!r}.")
    return ConfigDict({
        "models": {"uniform": {"noise": {"name": "uniform"}}, "variational": {}},
        "compare": (("uniform", "variational"),),
        "seeds": (0, 1, 2),
        "together": False,
        "data_dir": "data",
        "data": {"name": dataset},
        "model": {
            "density": "flow",
            "coupling": "mixture",
            "num_components": 8,
            "layout": ("checkerboard:4", "squeeze", "channels:2", "checkerboard:3"),
            "norm": "channel",  # many pixels of the images that start the norms are blank
            "pointwise": True,
            "network": "convolutional",
            "width": 48,  # filters
            "num_layers": 2,  # blocks
            "attention": False,
            "dropout": 0.0,
        },
        "noise": {
            "name": "flow", "width": 32, "num_layers": 1, "num_couplings": 4,
            "coupling": "mixture", "num_components": 8, "norm": False, "pointwise": False,
            "attention": False, "num_features": 32, "num_feature_blocks": 2,
        },
        "refit": {"noise": "", "num_steps": 1000},
        "objective": {
            "name": "elbo", "num_samples": 1, "num_groups": 1, "alpha": 0.5, "beta": 0.5,
            "sleep": False, "images_at_once": 0,
        },
        "optimizer": {
            "name": "adam_cosine", "learning_rate": 1e-3, "warmup_steps": 500, "clip_norm": 1.0,
        },
        "training": {
            "batch_size": 128, "num_steps": 15000, "ema_decay": 0.999, "validation_samples": 4,
        },
        "records": {"log_every": 100, "save_every": 1000, "keep_checkpoints": 1},
        "evaluation": {  # num_images 0: all test images
            "num_images": 0, "num_samples": (1, 8, 64), "seed": 0, "sample_grid": 100,
        },
        "memory": {"images_per_pass": 20, "samples_per_pass": 8},
    })  # fmt: skip
