"""The joint bound on larger images with captions. No number of these was measured here.

Command: python -m experiments.dalle --config=configs/dalle_images.py:fashion_mnist \
    --config.data_dir=data --workdir=runs/dalle_fashion_mnist

fashion_mnist: 7x7 tokens of 64 codes, class names; the joint bound by importance samples.
emoji: 64x64 RGB with their Unicode names, 8x8 tokens of 256 codes. Of the 367 test captions 166
    have a word that no training caption has, and log p(y) is what an untrained logit gives it.
paper: the sizes of DALL-E (Ramesh et al. 2021, arXiv 2102.12092): 256x256 RGB, 32x32 tokens of
    8,192 codes, 256 text tokens, KL weight 6.6, temperatures 1 to 1/16, the weights 1/8 and 7/8 of
    means over text and image tokens, argmax tokens; Adam in place of AdamW, and the paper's decoder
    as probabilities (model.likelihood=logit_laplace is its density). Its 250 million images are not
    public: emoji, each pixel 4x4 times, stand in. Its transformer (64 layers of width 3,968 with
    62 heads, 12 billion parameters) is more than one host holds: set the fields of prior.
    Published, with the encoder and decoder of this size: no log-likelihood.
"""

from ml_collections import ConfigDict

VARIANTS = {
    "fashion_mnist": {
        "data": {"text_length": 2},
        "model": {"grid": 7, "num_codes": 64, "width": 64, "embedding": 64},
        "objective": {"beta_steps": 5000, "temperature_steps": 15_000},
        "prior": {"num_layers": 4, "width": 128, "num_steps": 20_000, "learning_rate": 1e-3},
        "optimizer": {"learning_rate": 1e-3},
        "training": {"num_steps": 20_000},
        "evaluation": {"num_images": 1000},
    },
    "emoji": {
        "data": {"text_length": 15},
        "model": {"grid": 8, "num_codes": 256, "width": 64, "embedding": 128},
        "objective": {"beta_steps": 5000, "temperature_steps": 40_000},
        "prior": {
            "num_layers": 6, "width": 256, "num_heads": 8, "num_steps": 50_000,
            "learning_rate": 5e-4,
        },
        "optimizer": {"learning_rate": 5e-4},
        "training": {"num_steps": 50_000},
        "memory": {"images_per_pass": 10},
    },
    "paper": {
        "seeds": (0,),
        "data": {"name": "emoji", "enlarge": 4, "text_length": 256},
        "model": {
            "grid": 32, "num_codes": 8192, "width": 256, "num_blocks": 2, "embedding": 128,
        },
        "objective": {"beta": 6.6, "beta_steps": 5000, "temperature_steps": 150_000},
        "prior": {
            "num_layers": 12, "width": 768, "num_heads": 12, "tokens": "argmax",
            "text_weight": 1 / 8 / 256, "image_weight": 7 / 8 / 1024, "num_steps": 430_000,
            "learning_rate": 4.5e-4,
        },
        "optimizer": {"learning_rate": 1e-4},
        "training": {
            "num_steps": 3_000_000, "batch_size": 512, "ema_decay": 0.999, "validation_samples": 1,
        },
        "records": {"save_every": 10_000},
        "evaluation": {"num_images": 64, "sample_grid": 0},
        "memory": {"images_per_pass": 1},
    },
}  # fmt: skip


def get_config(data: str = "fashion_mnist") -> ConfigDict:
    """One data set, one model, three seeds."""
    if data not in VARIANTS:
        raise ValueError(f"the data must be one of {', '.join(VARIANTS)}, got {data!r}.")
    config = ConfigDict({
        "models": {"dvae": {}},
        "compare": (),
        "seeds": (0, 1, 2),
        "together": False,  # True: all seeds of a model as one
        "data_dir": "",
        "data": {
            "name": data,
            "enlarge": 1,  # how often each pixel is repeated, in both directions
            "text_length": 1,  # words of a caption, at most
        },
        # dVAE: tokens in a grid, residual blocks between.
        "model": {
            # Or discretized_logistic, bernoulli, logit_laplace.
            "likelihood": "discretized_logit_laplace",
            "grid": 2,  # tokens in a row
            "num_codes": 16,
            "width": 32,  # filters at full resolution, doubled where it halves
            "num_blocks": 1,  # per resolution
            "embedding": 32,
        },
        # First stage. beta rises, and the temperature falls, along half a cosine.
        "objective": {
            "name": "relaxed",  # or vimco, reinforce, enumerated
            "num_samples": 4,  # of vimco and reinforce
            "beta": 1.0,
            "beta_steps": 300,
            "temperature_start": 1.0,
            "temperature_end": 0.0625,
            "temperature_steps": 800,
        },
        # Second stage: a causal transformer over text and image tokens.
        "prior": {
            "num_layers": 2,
            "width": 64,
            "num_heads": 4,
            "dropout": 0.1,
            "tokens": "sampled",  # or argmax
            "text_weight": 1.0,  # of log p(y) in nats
            "image_weight": 1.0,  # of log p(z | y) in nats
            "num_steps": 400,
            "learning_rate": 3e-3,
        },
        "optimizer": {
            "name": "adam_cosine", "learning_rate": 3e-3, "warmup_steps": 100, "clip_norm": 1.0,
        },
        "training": {  # validation_samples: draws of z
            "batch_size": 64, "num_steps": 1000, "ema_decay": 0.99, "validation_samples": 4,
        },
        "records": {"log_every": 50, "save_every": 200, "keep_checkpoints": 1},
        "evaluation": {
            "num_images": 0,  # of the test set; 0: all
            "num_draws": 8,  # of z, for relaxed against hard values
            "num_samples": 1024,  # of z, for IWAE where codes are too many to be summed over
            "temperatures": (1.0, 0.5, 0.0625),
            "seed": 0,
            "sample_grid": 10,  # images of each caption
            "captions": (),  # to draw; empty: those of the classes
        },
        "memory": {"images_per_pass": 100, "samples_per_pass": 64},
    })  # fmt: skip
    config.update(VARIANTS[data])  # section by section
    return config
