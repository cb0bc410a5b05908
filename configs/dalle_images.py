"""The joint bound on larger images with captions. No number of these was measured here.

Command: python -m experiments.dalle --config=configs/dalle_images.py:fashion_mnist \
    --config.data_dir=data --workdir=runs/dalle_fashion_mnist

fashion_mnist: 7x7 tokens of 64 codes, class names; the joint bound by importance samples.
emoji: 64x64 RGB with their Unicode names, 8x8 tokens of 256 codes. Of the 367 test captions 166
    have a word that no training caption has, and log p(y) is what an untrained logit gives it.
paper: the sizes of DALL-E (Ramesh et al. 2021, arXiv 2102.12092): 256x256 RGB, 32x32 tokens of
    8,192 codes, 256 text tokens, KL weight 6.6, temperatures 1 to 1/16, the weights 1/8 and 7/8 of
    means over text and image tokens, argmax tokens; Adam in place of AdamW, and the paper's decoder
    as probabilities (likelihood=logit_laplace is its density). Its 250 million images are not
    public: emoji, each pixel 4x4 times, stand in. Its transformer (64 layers of width 3,968 with
    62 heads, 12 billion parameters) is more than one host holds: set the prior_ fields.
    Published, with the encoder and decoder of this size: no log-likelihood.
"""

from ml_collections import ConfigDict


def get_config(data: str = "fashion_mnist") -> ConfigDict:
    """One data set, one model, three seeds."""
    config = ConfigDict()
    config.models = ConfigDict({"dvae": {}})
    config.compare = ()
    config.seeds = (0, 1, 2)
    config.together = False  # True: all seeds of a model as one
    config.dataset = data
    config.data_dir = ""
    config.enlarge = 1  # how often each pixel is repeated, in both directions
    config.text_length = 1  # words of a caption, at most
    # dVAE: tokens in a grid, residual blocks between.
    config.likelihood = (
        "discretized_logit_laplace"  # discretized_logistic, bernoulli, logit_laplace
    )
    config.grid = 2  # tokens in a row
    config.num_codes = 16
    config.width = 32  # filters at full resolution, doubled where it halves
    config.num_blocks = 1  # per resolution
    config.embedding = 32
    # First stage. beta rises, and the temperature falls, along half a cosine.
    config.objective = "relaxed"  # or vimco, reinforce, enumerated
    config.num_samples = 4  # of vimco and reinforce
    config.beta = 1.0
    config.beta_steps = 300
    config.temperature_start = 1.0
    config.temperature_end = 0.0625
    config.temperature_steps = 800
    config.optimizer = "adam_cosine"
    config.learning_rate = 3e-3
    config.warmup_steps = 100
    config.batch_size = 64
    config.num_steps = 1000
    config.clip_norm = 1.0
    config.ema_decay = 0.99
    # Second stage: a causal transformer over text and image tokens.
    config.prior_layers = 2
    config.prior_width = 64
    config.prior_heads = 4
    config.dropout = 0.1
    config.tokens = "sampled"  # or argmax
    config.text_weight = 1.0  # of log p(y) in nats
    config.image_weight = 1.0  # of log p(z | y) in nats
    config.prior_steps = 400
    config.prior_learning_rate = 3e-3
    # Records.
    config.log_every = 50
    config.save_every = 200
    config.keep_checkpoints = 1
    config.validation_samples = 4  # draws of z
    config.evaluation_images = 0  # 0: all test images
    config.evaluation_draws = 8  # of z, for relaxed against hard values
    config.evaluation_samples = 1024  # of z, for IWAE where codes are too many to be summed over
    config.evaluation_temperatures = (1.0, 0.5, 0.0625)
    config.evaluation_seed = 0
    config.images_per_pass = 100
    config.samples_per_pass = 64
    config.sample_grid = 10  # images of each caption
    config.captions = ()  # to draw; empty: those of the classes
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
