"""The joint bound on larger images with captions. No number of these was measured here.

Command: python -m experiments.dalle --config=configs/dalle_images.py:fashion_mnist \
    --config.data_dir=data --workdir=runs/dalle_fashion_mnist

fashion_mnist: 7x7 tokens of 64 codes, class names; the joint bound by importance samples.
emoji: 64x64 RGB with their Unicode names, 8x8 tokens of 256 codes.
paper: the sizes of DALL-E (Ramesh et al. 2021, arXiv 2102.12092): 256x256 RGB, 32x32 tokens of
    8,192 codes, 256 text tokens, KL weight 6.6, temperatures 1 to 1/16, the weights 1/8 and 7/8 of
    means over text and image tokens, argmax tokens. Its 250 million images are not public: emoji,
    each pixel 4x4 times, stand in. Its transformer (64 layers of width 3,968 with 62 heads, 12
    billion parameters) is more than one host holds: set prior_layers, prior_width, prior_heads.
    Published, with the encoder and decoder of this size: no log-likelihood.
"""

from ml_collections import ConfigDict

from configs import dalle_digits


def get_config(data: str = "fashion_mnist") -> ConfigDict:
    """One data set, one model, three seeds."""
    config = dalle_digits.get_config()
    config.models = ConfigDict({"dvae": {}})
    config.compare = ()
    config.dataset = data
    if data == "fashion_mnist":
        config.text_length = 2
        config.grid, config.num_codes, config.width, config.embedding = 7, 64, 64, 64
        config.prior_layers, config.prior_width = 4, 128
        config.num_steps, config.prior_steps = 20_000, 20_000
        config.beta_steps, config.temperature_steps = 5000, 15_000
        config.learning_rate, config.prior_learning_rate = 1e-3, 1e-3
        config.evaluation_images = 1000
    elif data == "emoji":
        config.text_length = 15
        config.grid, config.num_codes, config.width, config.embedding = 8, 256, 64, 128
        config.prior_layers, config.prior_width, config.prior_heads = 6, 256, 8
        config.num_steps, config.prior_steps = 50_000, 50_000
        config.beta_steps, config.temperature_steps = 5000, 40_000
        config.learning_rate, config.prior_learning_rate = 5e-4, 5e-4
        config.images_per_pass = 10
    elif data == "paper":
        config.dataset, config.enlarge = "emoji", 4
        config.seeds = (0,)
        config.text_length = 256
        config.grid, config.num_codes, config.width, config.embedding = 32, 8192, 256, 128
        config.num_blocks = 2
        config.beta, config.beta_steps = 6.6, 5000
        config.temperature_steps = 150_000
        config.learning_rate, config.num_steps, config.batch_size = 1e-4, 3_000_000, 512
        config.ema_decay = 0.999
        config.prior_layers, config.prior_width, config.prior_heads = 12, 768, 12
        config.tokens = "argmax"
        config.text_weight, config.image_weight = 1 / 8 / 256, 7 / 8 / 1024
        config.prior_steps, config.prior_learning_rate = 430_000, 4.5e-4
        config.save_every, config.validation_samples = 10_000, 1
        config.images_per_pass, config.evaluation_images, config.sample_grid = 1, 64, 0
    else:
        raise ValueError(f"the data must be fashion_mnist, emoji or paper, got {data!r}.")
    return config
