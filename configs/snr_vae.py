"""SNR of the gradients of a VAE on the bundled digits.

Command: python -m experiments.snr --config=configs/snr_vae.py --workdir=runs/snr_digits
Other data: add --config.dataset=mnist --config.data_dir=data, and another --workdir.
Machine and time: 2 cores of a Xeon at 2.10 GHz, under 5 minutes.
Expected on digits, 95% intervals: exponent of SNR(theta)/SNR(phi) +0.390 [.384, .396]; SNR of
phi under DReG over pathwise 4.60 [4.45, 4.75] at K = 4, 3.49 [3.02, 3.91] at K = 256.
Published: none for this model and budget.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Burda's one-layer VAE after a short training, at a fixed minibatch."""
    config = ConfigDict()
    config.problem = "vae"
    config.seed = 0
    config.dataset = "digits"  # or mnist, fashion_mnist, ...: see experiments/data/sets.py
    config.data_dir = ""  # folder with official files; digits need none
    config.latents = (50,)
    config.hidden = ((200, 200),)
    config.train_steps = 2000
    config.train_batch = 128
    config.learning_rate = 1e-3
    config.batch = 16
    config.num_samples = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    config.estimators = ("pathwise", "dreg")
    config.num_replicates = 1000
    config.num_blocks = 20
    config.chunk_elements = 4096  # samples x images in memory at once
    return config
