"""Evaluation of a trained model; --config.run names the --workdir of its training.

Command: python -m experiments.evaluate --config=configs/evaluate.py \
    --config.run=runs/train_digits --workdir=runs/train_digits/evaluation
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Burda's K = 5000 on all test images, and a sandwich on 100 simulated ones."""
    return ConfigDict({
        "run": "",
        "checkpoint": "best",  # on validation; or latest, or a step
        "member": -1,  # which seed, of a run that trained several together
        "data_dir": "",  # where the data lie; empty: where training found them
        "seed": 0,
        "data": {"split": "test", "binarization_seed": 0},  # or validation
        "evaluation": {
            "few_samples": 64,
            "num_samples": 5000,
            "num_images": 0,  # 0: all
            "curve_samples": (1, 8, 64, 512),  # K of the curves, from as many draws as the last
            "curve_alphas": (0.0, 0.5),  # of VR-IWAE; 0 is IWAE
        },
        # Annealed importance sampling, on test images and on data simulated from the model.
        "annealing": {
            "test_images": 100,  # 0: none
            "simulated_images": 100,
            "temperatures": 500,
            "chains": 16,
            "leapfrog": 10,
            "start": "encoder",  # or prior, of one stochastic layer
        },
        # On each device at once.
        "memory": {"images_per_pass": 20, "samples_per_pass": 125, "ais_images_per_pass": 10},
    })  # fmt: skip
