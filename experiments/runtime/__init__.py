"""What every program needs: command line, settings, keys, trainer, checkpoints, records."""
