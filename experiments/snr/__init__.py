"""The problems `experiments.snr` measures gradients on."""
