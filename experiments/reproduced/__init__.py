"""Published numbers beside ours: what `experiments.reproduced` runs and compares."""
