"""ELBO surgery of trained VAEs: what `experiments.surgery` measures and draws."""
