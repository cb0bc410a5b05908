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
    config.curve_samples = (1, 8, 64, 512)  # K of the curves, all from as many draws as the last
    config.curve_alphas = (0.0, 0.5)  # of VR-IWAE; 0 is IWAE
    # On each device at once.
    config.images_per_pass = 20
    config.samples_per_pass = 125
    # Annealed importance sampling, on test images and on data simulated from the model.
    config.ais_test_images = 100  # 0: none
    config.simulated_images = 100
    config.ais_temperatures = 500
    config.ais_chains = 16
    config.ais_leapfrog = 10
    config.ais_images_per_pass = 10
    return config
