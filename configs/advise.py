"""Which estimator, at which K: advice on six models, or on a VAE of experiments.train.

Command: python -m experiments.advise --config=configs/advise.py --workdir=runs/advise
Machine and time: 2 cores of an AMD EPYC busy with other work, 12 minutes.
Expected of the VAE for phi, 95% intervals: under IWAE-8 dreg has 8.8 [6.3, 14] times the squared
SNR per second of the next best, rloo, and 23 [20, 33] times that of pathwise. Published: none.
Two studies: advise.py:training (13 minutes there) and advise.py:chains (one).
"""

from ml_collections import ConfigDict

MODELS = {
    "": ("Gaussian, near", "Gaussian, far", "VAE", "two-layer VAE", "dVAE", "NumPyro"),
    "training": ("VAE", "dVAE"),
    "chains": ("VAE",),
}
COUNTS = {"": (2, 8, 32), "training": (8,), "chains": ()}


def get_config(study: str = "") -> ConfigDict:
    """Advice on all; the check by training of two; values of chains of one."""
    if study not in MODELS:
        raise ValueError(f"the study must be training or chains, got {study!r}.")
    return ConfigDict({
        "models": MODELS[study],
        "run": "",  # --workdir of experiments.train: its VAE in their place
        "checkpoint": "best",  # on validation; or latest, or a step
        "member": -1,  # which seed, of a run that trained several together
        "data": {"name": "digits"},
        "data_dir": "",
        "seed": 0,
        # Of a model of images before it is asked about, by IWAE with four samples.
        "training": {
            "num_steps": 6000 if study == "chains" else 1000,
            "batch_size": 50,
            "learning_rate": 1e-3,
        },
        "advice": {
            "num_data": 16,  # of the batch
            "num_samples": COUNTS[study],  # K; none: no advice
            "cost": "seconds",  # or flops
            "num_replicates": 400,
            "num_calls": 15,  # timed gradients of each estimator
            "betas": (0.0, 0.1, 0.3, 1.0),  # of the thermodynamic bound
        },
        # The plain estimator and the advised one of IWAE-K at equal seconds.
        "check": {
            "seeds": (0, 1, 2, 3, 4) if study == "training" else (),  # none: no check
            "num_samples": 8,  # K
            "seconds": 20.0,  # of the processor, for each training
            "test_samples": 1000,
        },
        # ELBO, IWAE, UHA and AIS at as many decoder gradients for each test image.
        "chains": {
            "gradients": (16, 64, 256) if study == "chains" else (),  # none: no table
            "num_bridges": 8,
            "num_steps": 500,  # in which the path of UHA is trained
            "num_images": 0,  # of the test set; 0: all
        },
    })  # fmt: skip
