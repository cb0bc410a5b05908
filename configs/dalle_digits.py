"""The joint bound on digits with captions "zero" .. "nine": everything exact.

Command: python -m experiments.dalle --config=configs/dalle_digits.py --workdir=runs/dalle_digits
Machine and time: 2 cores of a Xeon at 2.10 GHz, 14 min 55 s with other work beside it.
Expected at beta = 1, nats per test image, standard error over 3 seeds: log p(x, y) -88.01 (.32),
joint bound -91.11 (.25), variational gap 3.11 (.08); captions found .888 (.016). Published: none.
A second study, of the prior alone: --config=configs/dalle_digits.py:prior
"""

from ml_collections import ConfigDict

STUDIES = {
    "beta": {"beta0": {"beta": 0.0}, "beta1": {"beta": 1.0}, "beta6_6": {"beta": 6.6}},
    # Tokens and weights of the second stage. The paper's 1/8 and 7/8 are of means over text and
    # over image tokens, of which there are 1 and 4 here.
    "prior": {
        "sampled": {},
        "argmax": {"tokens": "argmax"},
        "paper_weights": {"text_weight": 1 / 8, "image_weight": 7 / 32},
    },
}


def get_config(study: str = "beta") -> ConfigDict:
    """Three models, three seeds; 2x2 tokens of 16 codes, 65,536 sequences."""
    if study not in STUDIES:
        raise ValueError(f"the study must be one of {', '.join(STUDIES)}, got {study!r}.")
    config = ConfigDict()
    config.models = ConfigDict(STUDIES[study])
    first, middle, last = STUDIES[study]
    base = first if study == "prior" else middle
    config.compare = tuple((name, base) for name in (first, middle, last) if name != base)
    config.seeds = (0, 1, 2)
    config.together = False  # True: all seeds of a model as one
    config.dataset = "digits_shuffled"
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
    return config
