"""All families of bounds on the same data: what `experiments.compare` shows."""
