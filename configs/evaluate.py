"""Evaluation of a trained model; --config.run names the --workdir of its training.

Command: python -m experiments.evaluate --config=configs/evaluate.py \
    --config.run=runs/train_digits --workdir=runs/train_digits/evaluation
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Burda's K = 5000 on all test images, and a sandwich on 100 simulated ones."""
    config = ConfigDict()
    config.run = ""
    config.checkpoint = "best"  # on validation; or latest, or a step
    config.member = -1  # which seed, of a run that trained several together
    config.data_dir = ""  # where the data lie; empty: where training found them
    config.seed = 0
    config.binarization_seed = 0
    config.split = "test"  # or validation
    config.num_images = 0  # 0: all
    config.few_samples = 64
    config.num_samples = 5000
    # On each device at once.
    config.images_per_pass = 20
    config.samples_per_pass = 125
    # Annealed importance sampling on data simulated from the model.
    config.simulated_images = 100
    config.ais_temperatures = 500
    config.ais_chains = 16
    config.ais_leapfrog = 10
    config.ais_images_per_pass = 10
    return config
