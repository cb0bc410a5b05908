"""MNIST, one layer: VAE, IWAE and DReG at K = 1, 5, 50, all scored by the same IWAE-5000.

Command: python -m experiments.reference --config=configs/reference_mnist.py:short \
    --workdir=runs/reference_mnist --config.data_dir=data
Machine and time: 2 cores of a Xeon at 2.10 GHz, 48 minutes while it was busy.
Expected, IWAE-5000 in nats, standard error over 5 seeds: elbo -113.04 (.12), -109.93 (.11), -108.95
(.12) at K = 1, 5, 50; iwae -111.02 (.09), -110.29 (.25) at K = 5, 50; dreg -111.30 (.11), -109.56
(.23), -108.49 (.14). Published: none for one epoch.
released_code or paper instead of short is the protocol of Burda et al. 2015, 3,280 epochs, with all
seeds of a model trained as one on an accelerator. hundred_epochs is released_code with each of its
stages shortened to 100 epochs in all, for a CPU. `:released_code,rainforth` is the grid of
Rainforth et al. 2018, Table 1: 64 samples in all under IWAE, PIWAE, MIWAE, CIWAE and the ELBO.
"""

from ml_collections import ConfigDict

# The optimiser and the steps of 20 images; 0: 3,280 epochs.
PROTOCOLS = {
    "short": ("adam", 2980),
    "hundred_epochs": ("released_code", 100 * 2980),
    "paper": ("paper", 0),
    "released_code": ("released_code", 0),
}  # fmt: skip

GRIDS = {
    # At K = 1 the VAE and IWAE are the same objective.
    "burda": (
        "elbo:1", "iwae:5", "dreg:1", "dreg:5", "elbo:5", "iwae:50", "dreg:50", "elbo:50",
    ),
    "rainforth": ("iwae:64", "piwae:8:8", "miwae:8:8", "ciwae:64", "elbo:64"),
}  # fmt: skip


def get_config(variant: str = "short") -> ConfigDict:
    """`variant` is a protocol, and behind a comma the grid if it is Rainforth's."""
    protocol, _, grid = variant.partition(",")
    grid = grid or "burda"
    if protocol not in PROTOCOLS or grid not in GRIDS:
        raise ValueError(
            f"the variant must be one of {', '.join(PROTOCOLS)}, with ,rainforth behind it or "
            f"not, got {variant!r}."
        )
    short, full = protocol == "short", protocol in ("paper", "released_code")
    optimizer, num_steps = PROTOCOLS[protocol]
    return ConfigDict({
        "grid": GRIDS[grid],
        "seeds": (0, 1, 2, 3, 4),
        "together": full,  # all seeds of a model as one; faster on accelerators alone
        "data_dir": "data",
        "data": {"name": "mnist", "binarization_seed": 0},
        "model": {"likelihood": "bernoulli", "latents": (50,), "hidden": ((200, 200),)},
        # The grid takes the place of its name and counts.
        "objective": {
            "name": "iwae", "num_samples": 1, "num_groups": 1, "beta": 0.5, "alpha": 0.5,
            "sleep": False, "images_at_once": 0,
        },
        "optimizer": {
            "name": optimizer, "learning_rate": 1e-3, "warmup_steps": 0, "clip_norm": 0.0,
        },
        "training": {
            "batch_size": 20, "num_steps": num_steps, "ema_decay": 0.0, "validation_samples": 64,
        },
        # Signals are acted on every log_every steps; an epoch takes an accelerator 1 s, a CPU 30 s.
        "records": {
            "log_every": 298 if short else 2980, "save_every": 2980 if short else 10 * 2980,
            "keep_checkpoints": 1,
        },
        # The first test images; 0: all.
        "evaluation": {
            "few_samples": 64, "num_samples": 5000, "num_images": 1000 if short else 0,
        },
        "memory": {"images_per_pass": 20, "samples_per_pass": 125},
    })  # fmt: skip
