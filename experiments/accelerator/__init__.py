"""A short visit to an accelerator: what only one can fail, and how fast it is."""
