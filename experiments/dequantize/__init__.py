"""Densities of integers through noise: what `experiments.dequantize` trains and compares."""
