"""Which estimator, at which K: advice on six models, or on a VAE of experiments.train.

Command: python -m experiments.advise --config=configs/advise.py --workdir=runs/advise
"""

from ml_collections import ConfigDict

SEEDS = {"": (), "training": (0, 1, 2, 3, 4)}


def get_config(check: str = "") -> ConfigDict:
    """The six models; `advise.py:training` is the check by training, of the two of images."""
    if check not in SEEDS:
        raise ValueError(f"advise.py takes nothing or :training behind it, got {check!r}.")
    models = ("Gaussian, near", "Gaussian, far", "VAE", "two-layer VAE", "dVAE", "NumPyro")
    return ConfigDict({
        "models": ("VAE", "dVAE") if check else models,
        "run": "",  # --workdir of experiments.train: its VAE in their place
        "checkpoint": "best",  # on validation; or latest, or a step
        "member": -1,  # which seed, of a run that trained several together
        "data": {"name": "digits"},
        "data_dir": "",
        "seed": 0,
        # Before a model of images is asked about, by IWAE with four samples.
        "training": {"num_steps": 1000, "batch_size": 50, "learning_rate": 1e-3},
        "advice": {
            "num_data": 16,  # of the batch
            "num_samples": (16,) if check else (2, 8, 32),  # K
            "cost": "seconds",  # or flops
            "num_replicates": 400,
            "num_calls": 15,  # timed gradients of each estimator
            "betas": (0.0, 0.1, 0.3, 1.0),  # of the thermodynamic bound
        },
        "check": {
            "seeds": SEEDS[check],  # none: no check
            "num_samples": 16,  # K of both trainings
            "seconds": 20.0,  # of the processor, for each
            "test_samples": 1000,
        } | ({} if check else {"num_samples": 8}),
    })  # fmt: skip
