"""What families share: points, images, held-out means, ensembles, objectives, the contract."""
