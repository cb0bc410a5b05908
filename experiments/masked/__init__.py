"""Masked diffusion of pixels: what `experiments.masked` trains and scores."""
