"""Diffusion models of integers: what `experiments.diffusion` trains and scores."""
