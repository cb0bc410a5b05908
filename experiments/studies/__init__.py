"""Latent-variable models trained and evaluated by `experiments.train` and `.evaluate`."""
