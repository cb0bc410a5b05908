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
    config = ConfigDict()
    config.models = ConfigDict({"uniform": {"noise": "uniform"}, "variational": {"noise": "flow"}})
    config.compare = (("uniform", "variational"),)
    config.seeds = (0, 1, 2)
    config.together = False
    config.dataset = dataset
    config.data_dir = "data"
    config.density = "flow"
    config.coupling = "mixture"
    config.num_components = 8
    config.layout = ("checkerboard:4", "squeeze", "channels:2", "checkerboard:3")
    config.norm = "channel"  # many pixels of the images that start the norms are blank
    config.pointwise = True
    config.network = "convolutional"
    config.width = 48  # filters
    config.num_layers = 2  # blocks
    config.attention = False
    config.dropout = 0.0
    config.noise = "flow"
    config.noise_width = 32
    config.noise_layers = 1
    config.noise_couplings = 4
    config.noise_coupling = "mixture"
    config.noise_components = 8
    config.noise_norm = False
    config.noise_pointwise = False
    config.noise_attention = False
    config.noise_features = 32
    config.noise_feature_blocks = 2
    config.refit_noise = ""
    config.refit_steps = 1000
    config.objective = "elbo"
    config.num_samples = 1
    config.num_groups = 1
    config.alpha = 0.5
    config.beta = 0.5
    config.sleep = False
    config.optimizer = "adam_cosine"
    config.learning_rate = 1e-3
    config.warmup_steps = 500
    config.batch_size = 128
    config.num_steps = 15000
    config.clip_norm = 1.0
    config.ema_decay = 0.999
    config.log_every = 100
    config.save_every = 1000
    config.keep_checkpoints = 1
    config.validation_samples = 4
    config.evaluation_images = 0  # 0: all test images
    config.evaluation_samples = (1, 8, 64)
    config.evaluation_seed = 0
    config.images_per_pass = 20
    config.samples_per_pass = 8
    config.sample_grid = 100
    return config
