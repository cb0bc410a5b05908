"""The joint bound on digits with captions "zero" .. "nine": everything exact.

Command: python -m experiments.dalle --config=configs/dalle_digits.py --workdir=runs/dalle_digits
Machine and time: 2 cores of a Xeon at 2.10 GHz, 14 min 55 s with other work beside it.
Expected at beta = 1, nats per test image, standard error over 3 seeds: log p(x, y) -88.01 (.32),
joint bound -91.11 (.25), variational gap 3.11 (.08); captions found .888 (.016). Published: none.
Further studies, of the prior alone: --config=configs/dalle_digits.py:prior, and :masked, a prior
that predicts masked tokens beside the causal one: joint bound -91.38 (.08), causal -91.07 (.07),
some 14 minutes of processor time for both on 2 cores of an AMD EPYC, busy.
"""

from ml_collections import ConfigDict

STUDIES = {
    "beta": {
        name: {"objective": {"beta": beta}}
        for name, beta in {"beta0": 0.0, "beta1": 1.0, "beta6_6": 6.6}.items()
    },
    # Tokens and weights of the second stage. The paper's 1/8 and 7/8 are of means over text and
    # over image tokens, of which there are 1 and 4 here.
    "prior": {
        "sampled": {},
        "argmax": {"prior": {"tokens": "argmax"}},
        "paper_weights": {"prior": {"text_weight": 1 / 8, "image_weight": 7 / 32}},
    },
    "masked": {"causal": {}, "masked": {"prior": {"network": "masked"}}},
}


def get_config(study: str = "beta") -> ConfigDict:
    """Three models, three seeds; 2x2 tokens of 16 codes, 65,536 sequences."""
    if study not in STUDIES:
        raise ValueError(f"the study must be one of {', '.join(STUDIES)}, got {study!r}.")
    names = tuple(STUDIES[study])
    base = "beta1" if study == "beta" else names[0]
    return ConfigDict({
        "models": STUDIES[study],
        "compare": tuple((name, base) for name in names if name != base),
        "seeds": (0, 1, 2),
        "together": False,  # True: all seeds of a model as one
        "data_dir": "",
        "data": {
            "name": "digits_shuffled",
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
        # Second stage: a transformer over text and image tokens.
        "prior": {
            "network": "causal",  # or masked
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
