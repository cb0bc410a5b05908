"""The VAE of Burda et al. 2015: what train, evaluate and reference share."""
