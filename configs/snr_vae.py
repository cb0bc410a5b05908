"""SNR of the gradients of a VAE on the bundled digits.

Command: python -m experiments.snr --config=configs/snr_vae.py --workdir=runs/snr_digits
Other data: add --config.data.name=mnist --config.data_dir=data, and another --workdir.
Machine and time: 2 cores of a Xeon at 2.10 GHz, under 5 minutes.
Expected on digits, 95% intervals: exponent of SNR(theta)/SNR(phi) +0.390 [.384, .396]; SNR of
phi under DReG over pathwise 4.60 [4.45, 4.75] at K = 4, 3.49 [3.02, 3.91] at K = 256.
Published: none for this model and budget.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Burda's one-layer VAE after a short training, at a fixed minibatch."""
    return ConfigDict({
        "problem": "vae",
        "seed": 0,
        "data_dir": "",  # folder with official files; digits need none
        "data": {"name": "digits"},  # or mnist, fashion_mnist, ...: see experiments/data/sets.py
        "model": {"likelihood": "bernoulli", "latents": (50,), "hidden": ((200, 200),)},
        "training": {"num_steps": 2000, "batch_size": 128, "learning_rate": 1e-3},
        "batch_size": 16,  # of the fixed minibatch
        "num_samples": (1, 2, 4, 8, 16, 32, 64, 128, 256),
        "estimators": ("pathwise", "dreg"),
        "replicates": {"number": 1000, "num_blocks": 20},
        "memory": {"chunk_elements": 4096},  # samples x images at once
    })  # fmt: skip
