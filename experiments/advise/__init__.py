"""Which estimator, at which K: `bounds.advise` on six models, or on a trained VAE."""
