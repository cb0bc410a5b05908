"""Exact moments of gradient estimators: what `experiments.estimators` sums and prints."""
